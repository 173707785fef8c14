"""CPU seconds until a command has answered `--help`, an unknown flag, and a path where nothing is.

The baseline is the interpreter alone, `python -c pass`. Every module of ours that can be run is measured; figures are
medians of three runs, user and system time together.

    python -m benchmarks.startup
"""

import ast
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
PACKAGES = ("shards", "train", "pipelines")
RUNS = 3
NO_COMMANDS = ("pipelines.runner.local_workers", "pipelines.extraction.child", "pipelines.questions.child")
"""Processes that a job starts, and that answer nothing."""

MISSING = {
    "pipelines.preprocess": "--out o --videos /nowhere",
    "pipelines.vcr": "--out o --data /nowhere",
    "pipelines.tvqa": "--out o --data /nowhere",
    "pipelines.choices": "--out o --data /nowhere",
    "pipelines.refilter": "/nowhere --set max_seconds=1",
    "pipelines.stats": "/nowhere",
    "pipelines.status": "/nowhere",
    "pipelines.timing": "/nowhere --out o",
    "pipelines.ask": "/nowhere --prompt <|MASK|> --options a",
    "pipelines.ask_batch": "/nowhere --out o --options a",
    "pipelines.app": "--checkpoint /nowhere",
    "pipelines.embed": "/nowhere --out o.npz",
    "pipelines.zeroshot": "epic --out o --videos /nowhere --annotations a",
    "pipelines.demo.choices": "--out o --truth /nowhere",
    "pipelines.demo.curves": "/nowhere",
    "pipelines.demo.questions": "--data /nowhere --truth t --checkpoint c",
    "train.pretrain": "tiny --workdir w --data /nowhere",
    "train.finetune": "vcr --workdir w --init base --data /nowhere",
    "train.evaluate": "vcr --checkpoint base --data /nowhere",
    "shards": "stats /nowhere",
}
"""A command line whose only mistake is its path, for each command that reads one."""


def commands() -> Iterator[str]:
    """The modules that can be run, by the name that follows `python -m`."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            tests = (node.test for node in ast.parse(path.read_text()).body if isinstance(node, ast.If))
            if any("__name__" in ast.unparse(test) for test in tests):
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")


def cpu_seconds(*arguments: str) -> float:
    """The median of the CPU seconds of running the interpreter with these arguments."""
    figures = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(figures)


def main() -> None:
    """Measure and print."""
    table = Table(title="CPU seconds")
    for name in ("python -m ...", "--help", "unknown flag", "missing path"):
        table.add_column(name, justify="left" if name == "python -m ..." else "right", no_wrap=True)
    table.add_row("python -c pass", f"{cpu_seconds('-c', 'pass'):.2f}", "", "")
    for command in commands():
        if command in NO_COMMANDS:
            continue
        lines = ["--help", "--no-such-flag", MISSING.get(command)]
        cells = ["" if line is None else f"{cpu_seconds('-m', command, *line.split(' ')):.2f}" for line in lines]
        table.add_row(command, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
