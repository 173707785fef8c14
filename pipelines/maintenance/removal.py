"""Take videos out of a data set by a list of the form that `pipelines.preprocess --ids` reads.

This is the work of `python -m shards remove`: the lists are `ingest`'s, which `shards` does not import.
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

_NAMED = 10
"""Ids that a message names; of more it gives the number."""


def run(data: str, given: str, console: Console) -> int:
    """Write the shards concerned again and print what went; returns the exit status.

    Raises `UsageError`, with nothing removed, for a list that is not there or an entry that is not a video.
    """
    folders = dataset.data_folders(data)
    if len(folders) > 1:
        raise UsageError(f"videos are removed from one folder at a time; {data!r} names {', '.join(folders)}")
    folder = folders[0].rstrip("/")
    ids = video_ids(folder, removal.removable(folder), given)
    gone = removal.remove(folder, ids)
    card.write(dataset.open_data(folder))
    console.print(
        f"{gone.videos} of {len(ids)} videos were in the shards: {gone.shards} shards written again,"
        f" {gone.examples} examples gone, and with them {gone.other_segments} segments of other videos"
    )
    if gone.absent:
        console.print(
            f"{len(gone.absent)} in no shard: {_names(gone.absent)}; jobs of this folder will not use them either",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    return 0


def video_ids(folder: str, committed: Manifest, given: str) -> list[str]:
    """The ids that a list names, or one id or address, in order and once each.

    A name that is not YouTube's counts if the data set has a video of that name. Raises `UsageError` for any other.
    """
    entries = _entries(given)
    named = [video_id(entry) for entry in entries]
    known = _known(folder, committed) if None in named else set()
    found = [entry if entry in known else name for entry, name in zip(entries, named, strict=True)]
    if malformed := [entry for entry, name in zip(entries, found, strict=True) if name is None]:
        if entries == [given]:
            raise UsageError(f"there is no file {given!r}, nor is it the id or address of a video; nothing was removed")
        raise UsageError(
            f"{len(malformed)} of {len(entries)} entries of {given!r} name no video: {_names(malformed)};"
            " nothing was removed"
        )
    return list(dict.fromkeys(name for name in found if name is not None))


def _entries(given: str) -> list[str]:
    is_address = filesystem.is_remote(given) and video_id(given) is None
    try:
        if is_address or (given and not filesystem.is_remote(given) and Path(given).exists()):
            return list(read_entries(given))
    except RawError as error:
        raise UsageError(f"{error}; nothing was removed") from None
    except OSError:
        # A name that is too long for a path.
        pass
    return [given]


def _known(folder: str, committed: Manifest) -> set[str]:
    """Every video that the data set names."""
    groups = (group for shard in committed.shards() for group in read_contents(folder, shard.name)[1])
    waiting = (run[0] for generation in committed.generations for run in generation.remainder)
    return {*Ledger(folder).entries(), *(run.video_id for group in groups for run in group), *waiting}


def _names(names: Collection[str]) -> str:
    listed = [repr(name[:100]) for name in list(names)[:_NAMED]]
    return ", ".join(listed) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
