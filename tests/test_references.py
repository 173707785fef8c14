"""Modules, objects and files that docstrings and guides name exist under these names."""

import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("shards", "ingest", "model", "train", "pipelines")
NAMES = "|".join(PACKAGES)
OBJECT = re.compile(rf"`((?:{NAMES})(?:\.[A-Za-z_]\w*)+)(?:\(\))?`|python -m ((?:shards|train|pipelines)[\w.]*\w)")
FILE = re.compile(rf"(?<![\w/.-])((?:{NAMES}|tests|benchmarks|docs)/[\w./-]+\.(?:py|md|html|sh|toml|json))")
NO_OBJECTS = re.compile(r"\.(py|md|jsonl)$|^ingest\.md")
PLACEHOLDER = "NAME.py"


def shipped():
    for folder in (*PACKAGES, "docs", "benchmarks"):
        yield from sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md"))
    yield from (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile"))


def exists(name):
    """Whether a dotted name is a module or what one holds; of attributes that instances get, their class is read."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                source = Path(sys.modules[found.__module__].__file__).read_text() if isinstance(found, type) else ""
                return bool(re.search(rf"(self\.|^    ){part}\b", source, re.MULTILINE))
            found = getattr(found, part)
        return True
    return False


def test_the_check_knows_what_exists():
    assert exists("shards.reader.Reader.state")
    assert exists("train.config.TrainConfig.microbatches")
    assert not exists("shards.packing")
    assert not exists("shards.reader.Writer")


@pytest.mark.parametrize("path", shipped(), ids=lambda path: str(path.relative_to(ROOT)))
def test_named_modules_and_files_exist(path):
    text = path.read_text()
    names = {first or second for first, second in OBJECT.findall(text)}
    assert [name for name in sorted(names) if not NO_OBJECTS.search(name) and not exists(name)] == []
    files = {name for name in FILE.findall(text) if not name.endswith(PLACEHOLDER)}
    assert [name for name in sorted(files) if not (ROOT / name).exists()] == []
