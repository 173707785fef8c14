"""The options of the commands that ask about videos, and their checks; imports nothing that reads videos."""

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


@dataclass(frozen=True)
class Part:
    """Which part of a video is asked about, and what is said in it."""

    start: float = 0.0
    """Seconds into the video."""
    end: float | None = None
    """The video's end if not given."""
    captions: str | None = None
    """A .vtt, .srt or .json3 file; without one, captions beside the video are read."""


@dataclass(frozen=True)
class Ask:
    """Ask a video which option fills the <|MASK|> of a prompt."""

    video: Annotated[str, tyro.conf.Positional]
    """A video file, or an id or address of YouTube."""
    prompt: tuple[str, ...]
    """One or more sentences with one or more <|MASK|>."""
    options: str = ""
    """Answers to choose from, with commas between them."""
    options_file: str | None = None
    """A file with one answer a line."""
    checkpoint: str = "base"
    """base, large, a file, a folder of a run's export, or a gs:// or https:// address."""
    grid: tuple[int, int] | None = None
    """Rows and columns of 16-pixel patches; the checkpoint's own, or 18 32, if not given."""
    part: Annotated[Part, tyro.conf.arg(name="")] = field(default_factory=Part)
    use: Use = "auto"
    """What to use beside the frames: sound, else captions, else nothing; or only what is named."""
    timeline: str | None = None
    """Draw the probabilities over time into this PNG."""
    json: bool = False
    """Print JSON."""
    top: int = 10
    """Rows of the table."""


@dataclass(frozen=True)
class App:
    """Serve the page."""

    checkpoint: str = "base"
    """As for `pipelines.ask`."""
    grid: tuple[int, int] | None = None
    """As for `pipelines.ask`."""
    port: int = 8765
    """Port of this machine that the page is served on."""
    max_upload_mb: int = 512
    """Larger uploads are refused."""
    max_minutes: float = 20.0
    """Of longer videos only the first minutes are looked at."""
    seconds: float = 300.0
    """How long one request may take."""


@dataclass(frozen=True)
class Embed:
    """Write the vectors of every segment."""

    source: Annotated[str, tyro.conf.Positional]
    """A data folder or shard, a folder of videos, a video file, or an id or address of YouTube."""
    out: str
    """The .npz or .parquet file to write."""
    checkpoint: str = "base"
    """As for `pipelines.ask`."""
    grid: tuple[int, int] | None = None
    """As for `pipelines.ask`."""
    use: Use = "auto"
    """What goes into the joint vector beside the frames."""
    split: str | None = None
    """The split of a data set."""
    limit: int | None = None
    """Only so many videos, or runs of a video in a data set."""


def listed_options(options: str, options_file: str | None) -> list[str]:
    """The answers of a command line and of a file, one a line of any of the three line ends.

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
    """Raise `UsageError` for an option that is empty, given twice, or spells a special token."""
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
            raise UsageError(f"{kind} {whole!r} contains {token}, which is not text; leave it out")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{kind} {whole!r} contains half a character, or bytes that are not UTF-8") from None


def is_file(path: str) -> bool:
    """Whether there is such a file; a text that is too long for a path is not one."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def check_video(video: str) -> None:
    """Raise `UsageError` for what is neither a file nor an id or address of YouTube."""
    if not is_file(video) and video_id(video) is None:
        raise UsageError(f"{video!r} is neither a file nor an id or address of YouTube")


def check_checkpoint(checkpoint: str) -> None:
    """Raise `UsageError` for a checkpoint that is not published, not on this machine and not an address."""
    command_line.require_checkpoint("--checkpoint", checkpoint, PUBLISHED_NAMES)
