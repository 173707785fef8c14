"""Every command parses and checks its paths before it imports what does the work.

What is loaded is compared with a list instead of the time, which depends on the machine; `python -m benchmarks.startup`
measures that.
"""

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipelines.zeroshot.__main__ import NAMES
from shards.__main__ import COMMANDS
from shards.command_line import VERSION
from train.configs import PRESETS
from train.evaluate import TASKS
from train.tasks import table
from train.tasks.readers import READERS

ROOT = Path(__file__).parent.parent
PACKAGES = ("shards", "ingest", "model", "train", "pipelines")
ALLOWED = {
    "docstring_parser",
    "markdown_it",
    "mdurl",
    "numpy",
    "pygments",
    "rich",
    "typeguard",
    "typing_extensions",
    "tyro",
}
"""Third-party packages that a command may load before it works: the parser, the console, and NumPy."""

NO_COMMANDS = {
    "pipelines.runner.local_workers": "the server of a job's workers, which exists to import Beam",
    "shards.reading.worker": "a worker process of the reader, started with file descriptors",
    "pipelines.extraction.child": "the child of a worker that decodes, started with file descriptors",
    "pipelines.questions.child": "the child of a worker that prepares questions, started with file descriptors",
}
SUBCOMMANDS = {
    "shards": COMMANDS,
    "train.pretrain": PRESETS,
    "train.compile": PRESETS,
    "train.finetune": READERS,
    "train.evaluate": TASKS,
    "pipelines.zeroshot": NAMES,
}
"""What the first word of a command is one of."""

MISSING = {
    "pipelines.preprocess": ("--out o --videos {none}", "--out o --ids {none}", "--out o --raw {none}"),
    "pipelines.vcr": ("--out o --data {none}",),
    "pipelines.tvqa": ("--out o --data {none}",),
    "pipelines.choices": (
        "--out o --data {none}",
        "--out o --data {here} --tokenizer {none}",
        "--out o --data {here} --media {none}",
    ),
    "pipelines.refilter": ("{none} --set max_seconds=1",),
    "pipelines.stats": ("{none}",),
    "pipelines.status": ("{none}",),
    "pipelines.timing": ("{none} --out o",),
    "pipelines.ask": (
        "{none} --prompt <|MASK|> --options a",
        "{here} --prompt <|MASK|> --options a --checkpoint {none}",
        "{here} --prompt <|MASK|> --options a --captions {none}",
    ),
    "pipelines.ask_batch": ("{none} --out o --options a",),
    "pipelines.app": ("--checkpoint {none}",),
    "pipelines.embed": ("{none} --out o.npz", "{here} --out o.npz --checkpoint {none}"),
    "pipelines.zeroshot": (
        "epic --out o --videos {none} --annotations .",
        "star --out o --videos . --questions {none}",
    ),
    "pipelines.demo.choices": ("--out o --truth {none}",),
    "pipelines.demo.curves": ("{none}",),
    "pipelines.demo.questions": ("--data {none} --truth . --checkpoint .",),
    "train.pretrain": ("tiny --workdir w --data {none}", "tiny --workdir w --data . --init {none}"),
    "train.finetune": ("vcr --workdir w --init base --data {none}", "vcr --workdir w --data . --init {none}"),
    "train.evaluate": ("vcr --checkpoint {none} --data .", "pretraining --checkpoint base --data {none}"),
    "shards": ("stats {none}", "verify {none}", "merge o {none}", "train-tokenizer {none} --out o"),
}
"""Command lines whose one wrong thing is a path where nothing is; `{here}` is a file that exists."""

PROGRAM = "tests.programs.run_commands"


def commands():
    """Every module that can be run, by the name that follows `python -m`."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            tests = (node.test for node in ast.parse(path.read_text()).body if isinstance(node, ast.If))
            if any("__name__" in ast.unparse(test) for test in tests):
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")


def run(command, *runs):
    """Each run's status, output and third-party packages, all in one new process; a package loaded by one run stays."""
    package = (ROOT / command.replace(".", "/")).is_dir()
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM, f"{command}.__main__" if package else command, json.dumps(runs)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


COMMANDS_HERE = [name for name in commands() if name not in NO_COMMANDS]


@pytest.mark.parametrize("command", COMMANDS_HERE)
def test_a_command_answers_before_it_imports(command, tmp_path):
    here, none = tmp_path / "here", tmp_path / "none"
    here.write_text("")
    names = list(SUBCOMMANDS.get(command, ()))
    helps = [["--help"], *([name, "--help"] for name in names)]
    missing = [line.format(here=here, none=none).split(" ") for line in MISSING.get(command, ())]
    runs = [*helps, ["--version"], [*names[:1], "--no-such-flag"], *([f"{names[0]}x"] for _ in names[:1]), *missing]
    for one in run(command, *runs):
        argv, printed = one["argv"], one["out"] + one["err"]
        assert set(one["loaded"]) <= ALLOWED, (argv, sorted(set(one["loaded"]) - ALLOWED), printed)
        if argv in helps:
            assert one["status"] == 0, printed
            assert "usage:" in one["out"], argv
        elif argv == ["--version"]:
            assert (one["status"], one["out"]) == (0, f"reservoir {VERSION}\n")
        else:
            assert one["status"] == 2, (argv, printed)
            sentence = one["err"].splitlines()
            assert len(sentence) == 1, (argv, printed)
            assert sentence[0].startswith("error: ")
        if argv[-1] == "--no-such-flag":
            assert "unknown argument '--no-such-flag'" in one["err"]
        elif names and argv == [f"{names[0]}x"]:
            assert f"did you mean {names[0]!r}?" in one["err"]
        elif argv in missing:
            assert str(none) in one["err"]


def test_the_lists_of_this_test_name_commands():
    assert set(NO_COMMANDS) | set(MISSING) | set(SUBCOMMANDS) <= set(commands())


@pytest.mark.parametrize(
    ("command", "line", "sentence"),
    [
        ("pipelines.preprocess", "--vidoes v --out o", "did you mean '--videos'?"),
        ("pipelines.preprocess", "--videos v --out o --direct_num_worker=2", "did you mean '--direct_num_workers'?"),
        ("pipelines.preprocess", "--videos v --out o --stage download", "needs --ids FILE and --raw FOLDER"),
        ("pipelines.preprocess", "--ids gs://i --raw gs://r --out gs://o --template_location gs://t", "needs --runner"),
        ("pipelines.ask", "clip.mp4 --promt p --options a", "did you mean '--prompt'?"),
        ("pipelines.ask", "clip.mp4 --prompt p --options a", "has no <|MASK|>"),
        ("pipelines.refilter", "data --set max_second=1", "must be NAME=VALUE"),
        ("train.pretrain", "base --data d --workdir w --optimizer.learning_rte 1", "'--optimizer.learning-rate'?"),
        ("train.pretrain", "tiny --data . --workdir w --hosts 2", "need --coordinator"),
        ("train.finetune", "vcr --data . --init base --workdir w --sweep lr=fast", "is not a list such as"),
        ("train.evaluate", "choices --data . --checkpoint base --submit s", "has no leaderboard"),
        ("train.evaluate", "vcr --data . --checkpoint vcr_finetune_bse", "did you mean 'vcr_finetune_base'?"),
        ("shards", "stats data --recompte", "did you mean '--recompute'?"),
    ],
)
def test_usage_errors_are_one_sentence_and_load_nothing(command, line, sentence):
    (one,) = run(command, line.split(" "))
    assert one["status"] == 2, one["err"]
    assert sentence in one["err"]
    assert len(one["err"].splitlines()) == 1
    assert set(one["loaded"]) <= ALLOWED


def test_the_version_is_that_of_the_distribution():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def test_every_task_has_its_reader():
    assert {name: task.reader for name, task in table.TASKS.items()} == READERS
