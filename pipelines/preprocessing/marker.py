"""A data folder that is removed while a job runs ends the job, and is not made again without what was in it."""

from __future__ import annotations

from shards.storage import filesystem
from shards.storage.errors import StorageError


def require_marker(marker: str) -> None:
    """Raise `StorageError` if a file that every data folder on this machine has is not there any more.

    Files of a bucket are not looked at, as that would be a request for every video.
    """
    if marker and not filesystem.is_remote(marker) and not filesystem.exists(marker):
        folder = filesystem.folder_of(marker)
        raise StorageError(
            f"the data folder {folder!r} was removed or emptied while the job ran; restore it, or run the same command"
            " again to make it anew"
        )
