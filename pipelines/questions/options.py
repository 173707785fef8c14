"""The options shared by the commands for question data sets, with their checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import tyro

from pipelines.runner import beam_flags
from shards import command_line
from shards import tokenizer as vocabulary
from shards.storage.errors import UsageError

TEST = "test"
"""The split without labels, in which every question must be prepared."""

Options = TypeVar("Options", bound="QuestionOptions")


@dataclass(frozen=True)
class QuestionOptions:
    """The options shared by the commands for question data sets."""

    data: Annotated[str, tyro.conf.arg(metavar="DATA")]
    """The questions."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """The data folder to create or to continue; one folder for all splits."""
    split: Annotated[str, tyro.conf.arg(metavar="NAME")] = "train"
    """The split to prepare."""
    tokenizer: Annotated[str, tyro.conf.arg(metavar="FILE")] = "published"
    """The tokenizer: published, or a tokenizer.json."""
    shards: int | None = None
    """Number of shards; by default 256 for train and 8 for other splits, but at most the number of questions."""
    limit: int | None = None
    """Maximum number of questions."""
    decode_seconds: float = 600.0
    """Maximum wall time for preparing one question, in seconds."""
    decode_memory_mb: int = 2048
    """Maximum memory for preparing one question, in MiB."""


def parse(kind: type[Options], command: str, argv: Sequence[str] | None) -> tuple[Options, list[str]]:
    """Return a command's own options and Beam's flags. Raises `UsageError` for unknown flags and invalid values."""
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


def require_split(split: str, known: Sequence[str], data_set: str) -> None:
    """Raise `UsageError` for a split that the data set does not have."""
    if split not in known:
        raise UsageError(f"--split {split!r} is not a split of {data_set}; give one of {', '.join(known)}")


def require_questions(path: str) -> None:
    """Raise `UsageError` if the file of the questions should be on this machine but does not exist."""
    command_line.require_file("--data", path)
