"""The options of the inference commands, with their checks; nothing here imports the code that reads videos."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ingest.ids import video_id
from ingest.raw import decode_text
from model.config import MASK_TEXT, PUBLISHED_NAMES, Use
from shards import command_line
from shards.storage.errors import UsageError
from shards.tokens import SPECIAL_TOKENS

_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANKS = " \t\r\n\ufeff"


File = Annotated[str, tyro.conf.arg(metavar="FILE")]
OptionalFile = Annotated[str | None, tyro.conf.arg(metavar="FILE")]
Checkpoint = Annotated[
    str,
    tyro.conf.arg(
        metavar="CHECKPOINT",
        help="The weights: base, large, a checkpoint file, the folder of a run, or a gs:// or https:// address.",
    ),
]
Grid = Annotated[
    tuple[int, int] | None,
    tyro.conf.arg(
        metavar="ROWS COLUMNS",
        help="Rows and columns of 16-pixel patches; by default those of the checkpoint, or 18 32.",
    ),
]
UseInputs = Annotated[
    Use,
    tyro.conf.arg(
        help="Inputs besides the frames: audio, text, frames for none, or auto for audio if available, else text."
    ),
]


@dataclass(frozen=True)
class Part:
    """The part of the video to use, and its captions."""

    start: float = 0.0
    """Start of the part, in seconds."""
    end: float | None = None
    """End of the part, in seconds; by default the end of the video."""
    captions: OptionalFile = None
    """A .vtt, .srt or .json3 file; by default the captions beside the video."""


@dataclass(frozen=True)
class Ask:
    """Rank the options for the <|MASK|> in a prompt about a video."""

    video: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="VIDEO")]
    """A video file, or a YouTube id or address."""
    prompt: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PROMPT [PROMPT ...]")]
    """One or more sentences with one or more <|MASK|>."""
    options: Annotated[str, tyro.conf.arg(metavar="OPTION,OPTION,...")] = ""
    """Options to rank, separated by commas."""
    options_file: OptionalFile = None
    """A file with one option per line."""
    checkpoint: Checkpoint = "base"
    grid: Grid = None
    part: Annotated[Part, tyro.conf.arg(name="")] = field(default_factory=Part)
    use: UseInputs = "auto"
    timeline: OptionalFile = None
    """Write a chart of the probabilities over time to this PNG file."""
    json: bool = False
    """Print the answers as JSON."""
    top: int = 10
    """Number of options to print."""


@dataclass(frozen=True)
class App:
    """Serve a local web page for asking questions about videos."""

    checkpoint: Checkpoint = "base"
    grid: Grid = None
    port: int = 8765
    """Port of the page on this machine."""
    max_upload_mb: int = 512
    """Maximum size of an uploaded video, in MB."""
    max_minutes: float = 20.0
    """Maximum length of a video in minutes; the rest of longer videos is ignored."""
    seconds: float = 300.0
    """Time limit of one request, in seconds."""


@dataclass(frozen=True)
class Embed:
    """Write embedding vectors of every segment of a data set or of videos."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A data folder or shard, a folder of videos, a video file, or a YouTube id or address."""
    out: File
    """The .npz or .parquet file to write."""
    checkpoint: Checkpoint = "base"
    grid: Grid = None
    use: UseInputs = "auto"
    split: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The split of a data set to embed; by default all."""
    limit: int | None = None
    """Maximum number of videos, or of runs of consecutive segments in a data set."""


def listed_options(options: str, options_file: str | None) -> list[str]:
    """Return the options in a comma-separated text and in the lines of a file.

    Raises `UsageError` if there are none.
    """
    listed = options.split(",")
    if options_file:
        try:
            listed += _LINE_END.split(decode_text(Path(options_file).read_bytes()))
        except OSError as error:
            raise UsageError(f"--options-file {options_file!r} cannot be read: {error}") from None
    listed = [option.strip(_BLANKS) for option in listed]
    if not any(listed):
        raise UsageError('there are no options; give --options "a,b,c" or --options-file')
    return [option for option in listed if option]


def check_prompts(prompts: Iterable[str]) -> None:
    """Raise `UsageError` for a prompt without a mask, or with another special token."""
    for prompt in prompts:
        if MASK_TEXT not in prompt:
            raise UsageError(f"prompt {prompt!r} has no {MASK_TEXT}; write it where the answer belongs")
        _check_text("prompt", prompt, prompt.replace(MASK_TEXT, ""))


def check_options(options: Iterable[str]) -> None:
    """Raise `UsageError` for an option that is empty, repeated, or contains a special token."""
    seen: set[str] = set()
    for option in options:
        if not option.strip():
            raise UsageError(f"option {option!r} is empty; give every option a text")
        if option in seen:
            raise UsageError(f"option {option!r} is given twice; give it once")
        _check_text("option", option, option)
        seen.add(option)


def _check_text(kind: str, whole: str, text: str) -> None:
    for token in SPECIAL_TOKENS:
        if token in text:
            raise UsageError(f"{kind} {whole!r} contains the special token {token}; remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{kind} {whole!r} contains an unpaired surrogate, or bytes that are not UTF-8") from None


def is_file(path: str) -> bool:
    """Return whether a path is a file; a text that is too long for a path is not."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def check_video(video: str) -> None:
    """Raise `UsageError` unless `video` is a file or a YouTube id or address."""
    if not is_file(video) and video_id(video) is None:
        raise UsageError(f"{video!r} is neither a file nor a YouTube id or address")


def check_checkpoint(checkpoint: str) -> None:
    """Raise `UsageError` unless a checkpoint is a published name, a path on this machine, or an address."""
    command_line.require_checkpoint("--checkpoint", checkpoint, PUBLISHED_NAMES)
