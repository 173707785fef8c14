"""Remove videos from a data set by a list in a format of `pipelines.preprocess --ids`.

This implements `python -m shards remove`, because `shards` does not import `ingest`, which reads such lists.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from ingest.id_lists import read_entries
from ingest.ids import video_id
from ingest.raw import RawError
from shards.dataset import location as dataset
from shards.dataset import removal
from shards.dataset.ledger import Ledger
from shards.dataset.manifest import Manifest
from shards.dataset.sidecar import read_contents
from shards.inspection import card
from shards.storage import filesystem
from shards.storage.errors import UsageError

_MAX_NAMED = 10
"""The maximum number of ids that a message names."""


def run(data: str, videos: str, console: Console) -> int:
    """Rewrite the shards that contain the videos, print what was removed, and return the exit status.

    `videos` is a list, or one id or address. Raises `UsageError` for a missing list or an invalid entry; nothing is
    removed then.
    """
    folders = dataset.data_folders(data)
    if len(folders) > 1:
        raise UsageError(f"videos are removed from one folder at a time; {data!r} names {', '.join(folders)}")
    folder = folders[0].rstrip("/")
    ids = video_ids(folder, removal.removable(folder), videos)
    removed = removal.remove(folder, ids)
    card.write(dataset.open_data(folder))
    console.print(
        f"{removed.videos} of {len(ids)} videos were in the shards: {removed.shards} shards rewritten,"
        f" {removed.examples} examples removed, with {removed.other_segments} segments of other videos"
    )
    if removed.absent:
        console.print(
            f"{len(removed.absent)} in no shard: {_names(removed.absent)}; jobs of this folder will skip them",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    return 0


def video_ids(folder: str, committed: Manifest, videos: str) -> list[str]:
    """Return the distinct ids in a list, or of one id or address, in order.

    Other names are accepted if the data set has a video of that name. Raises `UsageError` for any other entry.
    """
    entries = _entries(videos)
    youtube_ids = [video_id(entry) for entry in entries]
    known = _known(folder, committed) if None in youtube_ids else set()
    ids = [entry if entry in known else name for entry, name in zip(entries, youtube_ids, strict=True)]
    if malformed := [entry for entry, name in zip(entries, ids, strict=True) if name is None]:
        if entries == [videos]:
            raise UsageError(f"{videos!r} is neither a file nor the id or address of a video; nothing was removed")
        raise UsageError(
            f"{len(malformed)} of {len(entries)} entries of {videos!r} are not videos: {_names(malformed)};"
            " nothing was removed"
        )
    return list(dict.fromkeys(name for name in ids if name is not None))


def _entries(videos: str) -> list[str]:
    is_address = filesystem.is_remote(videos) and video_id(videos) is None
    try:
        if is_address or (videos and not filesystem.is_remote(videos) and Path(videos).exists()):
            return list(read_entries(videos))
    except RawError as error:
        raise UsageError(f"{error}; nothing was removed") from None
    except OSError:
        # A name that is too long for a path.
        pass
    return [videos]


def _known(folder: str, committed: Manifest) -> set[str]:
    """Return the ids of all videos in the ledger, the shards and the remainders of the data set."""
    groups = (group for shard in committed.shards() for group in read_contents(folder, shard.name)[1])
    pending = (run[0] for generation in committed.generations for run in generation.remainder)
    return {*Ledger(folder).entries(), *(run.video_id for group in groups for run in group), *pending}


def _names(names: Collection[str]) -> str:
    listed = [repr(name[:100]) for name in list(names)[:_MAX_NAMED]]
    return ", ".join(listed) + (f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else "")
