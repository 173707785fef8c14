"""What tests compare of data folders."""

from __future__ import annotations

from pathlib import Path

from shards.storage import filesystem

ENDINGS = (".tfrecord", ".index", ".stats.json", "CARD.md", "manifest.json", "config.json")


def content(folder: object) -> dict[str, bytes]:
    """The files of a data folder, on a disk or in a bucket, that must depend on the videos alone, by name."""
    paths = [path for path in filesystem.list_files(str(folder)) if path.endswith(ENDINGS)]
    return {path.rpartition("/")[2]: filesystem.read_bytes(path) for path in paths}


def unfinished_files(folder: Path) -> list[Path]:
    """What a killed process may leave and the next one must remove."""
    return [path for path in folder.rglob("*") if path.name.startswith(".incomplete")]
