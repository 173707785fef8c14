"""The options that the commands of all data sets of questions share, with their checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import tyro

from pipelines.runner import beam_flags
from shards import command_line
from shards import tokenizer as vocabulary
from shards.storage.errors import UsageError

TEST = "test"
"""The split without labels, of which no question may be missing."""

Options = TypeVar("Options", bound="QuestionOptions")


@dataclass(frozen=True)
class QuestionOptions:
    """What the commands of all data sets of questions take."""

    data: str
    """The questions."""
    out: str
    """The data folder that is made or continued; all splits go into one."""
    split: str = "train"
    """The split to prepare."""
    tokenizer: str = "published"
    """The vocabulary: published, or a tokenizer.json."""
    shards: int | None = None
    """How many shards; 256 for train and 8 for other splits, but never more than questions."""
    limit: int | None = None
    """Maximum number of questions."""
    decode_seconds: float = 600.0
    """Wall time that preparing one question may take."""
    decode_memory_mb: int = 2048
    """Memory that preparing one question may take."""


def parse(kind: type[Options], command: str, argv: Sequence[str] | None) -> tuple[Options, list[str]]:
    """A command's own options, and the flags of Beam. Raises `UsageError` for a flag that is neither."""
    target = tyro.conf.OmitArgPrefixes[kind]
    options, flags = command_line.parse(tyro.cli, target, command, argv, foreign=beam_flags.FLAGS)
    beam_flags.check(flags)
    for name in ("shards", "limit"):
        number = getattr(options, name)
        if number is not None and number < 1:
            raise UsageError(f"--{name} {number} must be at least 1")
    if not options.decode_seconds > 0 or options.decode_memory_mb < 256:
        raise UsageError(
            f"--decode-seconds {options.decode_seconds:g} and --decode-memory-mb {options.decode_memory_mb} must be"
            " more than 0 and at least 256"
        )
    if options.tokenizer != vocabulary.PUBLISHED:
        command_line.require_file("--tokenizer", options.tokenizer)
    return options, flags


def require_split(given: str, known: Sequence[str], data_set: str) -> None:
    """Raise `UsageError` for a split that the data set does not have."""
    if given not in known:
        raise UsageError(f"--split {given!r} is none of {data_set}'s: {', '.join(known)}")


def require_questions(path: str) -> None:
    """Raise `UsageError` if the file of the questions is on this machine and not there."""
    command_line.require_file("--data", path)
