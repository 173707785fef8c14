"""The commands that the README and the guides name exist, and know every flag that is written there."""

import contextlib
import importlib
import io
import re
from pathlib import Path

import pytest

from pipelines.cli import COMMANDS
from pipelines.runner.beam_flags import FLAGS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"python -m ((?:pipelines|shards|train)[\w.]*)((?: [^\s`|#…]+)*)")
CONSOLE = re.compile(rf"\breservoir ({'|'.join(sorted(COMMANDS, key=len, reverse=True))})\b((?: [^\s`|#…]+)*)")
WITH_SUBCOMMANDS = {
    "shards",
    "train.compile",
    "train.evaluate",
    "train.finetune",
    "train.pretrain",
    "pipelines.zeroshot",
}


def documented():
    """(module, subcommand, flags) of every command, with the flags of all places together."""
    found = {}
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        console = [(COMMANDS[name], rest) for name, rest in CONSOLE.findall(text)]
        named = [
            (command.module.removesuffix(".__main__"), " ".join((*command.words, rest))) for command, rest in console
        ]
        for module, rest in [*COMMAND.findall(text), *named]:
            words = rest.replace("[", " ").replace("]", " ").split()
            named = module in WITH_SUBCOMMANDS and words and re.fullmatch(r"[a-z][a-z-]*", words[0])
            flags = {word.split("=")[0] for word in words if re.match(r"--[a-z]", word)}
            found.setdefault((module, words[0] if named else None), set()).update(flags)
    return [(*key, sorted(flags)) for key, flags in sorted(found.items(), key=str)]


def main_of(module):
    with contextlib.suppress(ImportError):
        return importlib.import_module(f"{module}.__main__").main
    return importlib.import_module(module).main


@pytest.mark.parametrize(("module", "subcommand", "flags"), documented())
def test_commands_know_their_documented_flags(module, subcommand, flags, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        main_of(module)([*([subcommand] if subcommand else []), "--help"])
    assert ended.value.code == 0
    known = set(re.findall(r"--[a-z][\w.-]*", said.getvalue()))
    unknown = [flag for flag in flags if flag not in known]
    if module == "pipelines.preprocess":
        unknown = [flag for flag in unknown if flag not in FLAGS]
    assert not unknown
