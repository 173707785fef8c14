"""The console command `reservoir`, which runs every command of the toolkit.

`reservoir ask clip.mp4 ...` is equivalent to `python -m pipelines.ask clip.mp4 ...`. A command's module is imported
only when the command runs, so `reservoir --help` starts fast. The working directory is not on the import path, so a
`train.py` or `model.py` there cannot shadow a package of the toolkit.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from shards import command_line, completion
from shards.command_line import PROGRAM, run_command
from shards.storage.errors import UsageError

NAME = "reservoir"


@dataclass(frozen=True)
class Command:
    """A command: its module, a summary for the list of commands, and words that precede the user's.

    `runs_beam` commands exit the process themselves, because Beam's threads outlive a failed job.
    """

    module: str
    summary: str
    words: tuple[str, ...] = ()
    runs_beam: bool = False


def _of_shards(name: str, summary: str) -> Command:
    return Command("shards.__main__", summary, (name,))


GROUPS: dict[str, dict[str, Command]] = {
    "Data": {
        "preprocess": Command("pipelines.preprocess", "Convert videos into shards.", runs_beam=True),
        "vcr": Command("pipelines.vcr", "Convert VCR into shards of questions.", runs_beam=True),
        "tvqa": Command("pipelines.tvqa", "Convert TVQA into shards of questions.", runs_beam=True),
        "choices": Command("pipelines.choices", "Convert your own questions into shards.", runs_beam=True),
        "status": Command("pipelines.status", "Print the status of a preprocessing job."),
        "refilter": Command("pipelines.refilter", "Apply other thresholds to a finished data set.", runs_beam=True),
        "timing": Command("pipelines.timing", "Train a timing model for another speech recogniser."),
    },
    "Shards": {
        "stats": _of_shards("stats", "Print the statistics of a data set."),
        "stats-job": Command("pipelines.stats", "Compute the statistics of shards with a Beam job."),
        "show": _of_shards("show", "Print one example, or write its images and audio."),
        "report": _of_shards("report", "Write a page with charts and examples of a data set."),
        "card": _of_shards("card", "Write the data card of a data set."),
        "verify": _of_shards("verify", "Read and check every byte of a data set."),
        "export": _of_shards("export", "Write the shards as WebDataset tar files or Parquet tables."),
        "merge": _of_shards("merge", "Merge several data folders into one."),
        "remove": _of_shards("remove", "Remove videos from a data set."),
        "train-tokenizer": _of_shards("train-tokenizer", "Train a tokenizer on text files."),
    },
    "Training": {
        "pretrain": Command("train.pretrain", "Pretrain a model on shards."),
        "finetune": Command("train.finetune", "Finetune a model on questions."),
        "evaluate": Command("train.evaluate", "Evaluate weights on a split."),
        "compile": Command("train.compile", "Compile a training step for accelerators that are not present."),
    },
    "Inference": {
        "ask": Command("pipelines.ask", "Answer questions about a video."),
        "ask-batch": Command("pipelines.ask_batch", "Answer a CSV of questions about videos."),
        "app": Command("pipelines.app", "Serve a local page for questions about videos."),
        "embed": Command("pipelines.embed", "Write embedding vectors of segments."),
        "zeroshot": Command("pipelines.zeroshot.__main__", "Run the zero-shot benchmarks."),
    },
    "Help": {
        "demo": Command("pipelines.demo.__main__", "Run the whole pipeline on generated videos."),
        "doctor": Command("pipelines.doctor", "Check this machine for what the commands need."),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status. Raises `UsageError` for an unknown one."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return 0 if words else 2
    if words[0] == "--version":
        sys.stdout.write(f"{NAME} {command_line.VERSION}\n")
        return 0
    if words[0] == "completion":
        sys.stdout.write(completion_script(words[1:]))
        return 0
    return _run(resolve(words[0]), words[1:])


def resolve(name: str) -> str:
    """Return the name of a command, in which `-` and `_` are equivalent. Raises `UsageError` with a suggestion."""
    command_line.require_name("command", name, (*COMMANDS, "completion"))
    return name.replace("_", "-")


def usage() -> str:
    """Return the list of commands."""
    lines = [f"usage: {NAME} COMMAND [OPTIONS]", ""]
    for group, commands in GROUPS.items():
        lines += [group, *(f"  {name:16} {command.summary}" for name, command in commands.items()), ""]
    lines += [
        f"  {'completion':16} Print a completion script: {NAME} completion {'|'.join(completion.SHELLS)}.",
        "",
        f"{NAME} COMMAND --help lists the options of a command. Every command accepts --config FILE, a TOML file of",
        "its options or the config.json of a training run.",
        "",
    ]
    return "\n".join(lines)


def completion_script(words: Sequence[str]) -> str:
    """Return the completion script of the shell that `words` name. Raises `UsageError` unless they name one."""
    if len(words) != 1 or words[0] not in completion.SHELLS:
        raise UsageError(f"{NAME} completion needs one of {', '.join(completion.SHELLS)}")
    return completion.script(words[0], NAME, {name: _flags(name) for name in COMMANDS})


def _flags(name: str) -> list[str]:
    """Return the subcommands of a command, and the flags in its help and theirs."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        _run(name, ["--help"])
    choices = re.search(r"\{([\w,-]+)\}\s*$", text.getvalue().splitlines()[0])
    if choices is None:
        return sorted(command_line.flags_in(text.getvalue()))
    subcommands = choices[1].split(",")
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        _run(name, [subcommands[0], "--help"])
    return [*subcommands, *sorted(command_line.flags_in(text.getvalue()))]


def _run(name: str, words: Sequence[str]) -> int:
    command = COMMANDS[name]
    token = PROGRAM.set(NAME if command.words else f"{NAME} {name}")
    try:
        module = importlib.import_module(command.module)
        return module.main([*command.words, *words])
    finally:
        PROGRAM.reset(token)


def run() -> None:
    """Run the console command and exit."""
    words = sys.argv[1:]
    command = COMMANDS.get(words[0].replace("_", "-")) if words else None
    if command is not None and command.runs_beam:
        from pipelines.runner.command import run_and_leave

        run_and_leave(main)
    sys.exit(run_command(main))
