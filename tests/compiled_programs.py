"""Compiled programs that are kept between runs of the tests, so that a machine compiles each of them once.

The folder is never needed: without it, or with any of its files removed, the tests take longer.
"""

from __future__ import annotations

from pathlib import Path

import zstandard

from shards.storage.fetch import programs_folder

MOST_BYTES = 1_000_000_000


def folder() -> Path:
    """Return where the programs are kept."""
    return programs_folder() / "tests"


def tidy(place: Path, since: float, most_bytes: int = MOST_BYTES) -> None:
    """Remove the oldest programs beyond `most_bytes`, and those that a process killed after `since` left incomplete."""
    found = sorted(((file.stat(), file) for file in place.glob("*-cache")), key=lambda each: -each[0].st_mtime)
    total = 0
    for status, file in found:
        total += status.st_size
        if total > most_bytes or (status.st_mtime >= since and not _is_whole(file)):
            file.unlink(missing_ok=True)


def _is_whole(file: Path) -> bool:
    try:
        zstandard.ZstdDecompressor().decompress(file.read_bytes())
    except zstandard.ZstdError:
        return False
    return True
