"""Detect that the data folder was removed while a job runs, instead of creating it again without its files."""

from __future__ import annotations

from shards.storage import filesystem
from shards.storage.errors import StorageError


def require_marker(marker: str) -> None:
    """Raise `StorageError` if a file that every data folder on this machine has does not exist any more.

    Files in a bucket are not checked, because that would take a request for every video.
    """
    if marker and not filesystem.is_remote(marker) and not filesystem.exists(marker):
        folder = filesystem.folder_of(marker)
        raise StorageError(
            f"the data folder {folder!r} was removed or emptied while the job ran; restore it, or run the same command"
            " again to create it anew"
        )
