"""Show that tests catch faults: make one fault at a time in a copy of the sources and run the test that must fail.

    python -m tests.run_mutations [--only NAME]

`tests/mutations.toml` lists the faults: a file, the text that is replaced, the text in its place, and the test. A fault
is caught if its test fails with it; all tests pass without (that is what `make test` says). A test checks that the list
fits the sources.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import tyro

ROOT = Path(__file__).parent.parent
LIST = ROOT / "tests" / "mutations.toml"
_FAILED = 1
"""What pytest returns if tests ran and some failed; an error of usage or no test at all is something else."""


@dataclass(frozen=True)
class Mutation:
    """One fault: `before` occurs once in `file` and becomes `after`; `test` must fail then."""

    name: str
    file: str
    before: str
    after: str
    test: str

    def apply(self, root: Path) -> None:
        """Make the fault in the sources below `root`. Raises `ValueError` if the text is not there exactly once."""
        path = root / self.file
        text = path.read_text()
        if text.count(self.before) != 1:
            raise ValueError(
                f"{self.name}: {self.before!r} is {text.count(self.before)} times in {self.file}, not once"
            )
        path.write_text(text.replace(self.before, self.after))


@dataclass(frozen=True)
class Options:
    """Which faults to make."""

    only: str | None = None
    """The name of one fault."""


def mutations() -> list[Mutation]:
    """The faults of the list."""
    return [Mutation(**entry) for entry in tomllib.loads(LIST.read_text())["mutation"]]


def is_caught(mutation: Mutation) -> bool:
    """Whether the test of a fault fails with it."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder) / "sources"
        shutil.copytree(ROOT, copy, ignore=_left_out)
        mutation.apply(copy)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", mutation.test]
        ran = subprocess.run(
            command, cwd=copy, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(copy)}
        )
    if ran.returncode not in (0, _FAILED):
        raise RuntimeError(f"{mutation.name}: pytest ended with {ran.returncode}: {(ran.stdout + ran.stderr)[-500:]}")
    return ran.returncode == _FAILED


def _left_out(folder: str, names: list[str]) -> set[str]:
    """What a copy of the sources does without; `demo` is a package too, except where `make demo` writes."""
    made = {"demo"} if Path(folder) == ROOT else set()
    return shutil.ignore_patterns(".venv", ".git", ".*_cache", "__pycache__")(folder, names) | made


def main() -> int:
    """Print a row per fault; 1 if one is not caught."""
    options = tyro.cli(Options, prog="python -m tests.run_mutations")
    missed = 0
    for mutation in mutations():
        if options.only in (None, mutation.name):
            started = time.monotonic()
            caught = is_caught(mutation)
            missed += not caught
            seconds = time.monotonic() - started
            print(
                f"{'caught' if caught else 'MISSED':8}{mutation.name:48}{seconds:6.0f} s  {mutation.test}", flush=True
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
