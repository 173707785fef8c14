"""What the commands `ask` and `ask_batch` accept and check, without what reads videos or computes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ingest.ids import video_id
from ingest.raw import decode_text
from model.config import MASK_TEXT, PUBLISHED_NAMES
from shards import command_line
from shards.errors import UsageError
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
