"""What the commands that ask take and check, without what reads videos or computes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ingest.ids import video_id
from model.config import MASK_TEXT, PUBLISHED_NAMES
from shards import command_line
from shards.errors import UsageError


@dataclass(frozen=True)
class Part:
    """Which part of a video is asked about, and what is said in it."""

    start: float = 0.0
    """Seconds into the video."""
    end: float | None = None
    """The video's end if not given."""
    captions: str | None = None
    """A .vtt, .srt or .json3 file; without one, captions beside the video are taken."""


def listed_options(options: str, options_file: str | None) -> list[str]:
    """The answers of a command line and of a file. Raises `UsageError` if there are none."""
    listed = [option.strip() for option in options.split(",") if option.strip()]
    if options_file:
        try:
            listed += [line.strip() for line in Path(options_file).read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--options-file {options_file!r} cannot be read: {error}") from None
    if not listed:
        raise UsageError('there are no options; give --options "a,b,c" or --options-file')
    return listed


def check_prompts(prompts: Iterable[str]) -> None:
    """Raise `UsageError` for a prompt without a mask."""
    for prompt in prompts:
        if MASK_TEXT not in prompt:
            raise UsageError(f"prompt {prompt!r} has no {MASK_TEXT}; write it where the answer belongs")


def check_options(options: Iterable[str]) -> None:
    """Raise `UsageError` for an option that is given twice."""
    seen: set[str] = set()
    for option in options:
        if option in seen:
            raise UsageError(f"option {option!r} is given twice; give it once")
        seen.add(option)


def check_video(video: str) -> None:
    """Raise `UsageError` for what is neither a file nor an id or address of YouTube."""
    if not Path(video).is_file() and video_id(video) is None:
        raise UsageError(f"{video!r} is neither a file nor an id or address of YouTube")


def check_checkpoint(checkpoint: str) -> None:
    """Raise `UsageError` for a checkpoint that is not published, not on this machine and not an address."""
    command_line.require_checkpoint("--checkpoint", checkpoint, PUBLISHED_NAMES)
