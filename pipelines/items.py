"""Which videos a job works on: those the command names, without those that have ended and those that are blocked.

An item whose segments are committed but have no line in the ledger, because a job was killed between the two, gets its
line here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ingest import raw as raw_videos
from ingest.ids import read_ids
from ingest.outcomes import Kind, Outcome
from ingest.result import Result
from pipelines import id_list
from pipelines.extraction import Extracted
from pipelines.folder import manifest_of
from pipelines.options import PreprocessOptions
from pipelines.transforms import Item, Source, entry_of
from shards import filesystem, generations, tally
from shards.ledger import Entry, Ledger
from shards.segments import SegmentStore, VideoText, segments_folder


def list_items(options: PreprocessOptions) -> list[Item]:
    """The videos the command names. Raises `RawError` if there is nothing to read."""
    if options.videos:
        names = raw_videos.list_folder(options.videos)
    elif options.ids:
        listed = read_ids(options.ids)
        names = [*listed.ids, *listed.bad]
    else:
        names = raw_videos.list_layout(options.raw)
    return [item_of(name, options) for name in names[: options.limit]]


def item_of(name: str, options: PreprocessOptions) -> Item:
    """The video behind the path of a media file, or behind an id."""
    if options.videos:
        return Item(Path(name).stem, Source.FOLDER, name)
    return Item(name, Source.YOUTUBE if options.ids else Source.LAYOUT, options.raw or "")


def _name_of(item: Item) -> str:
    return item.place if item.source is Source.FOLDER else item.id


def names_to_do(options: PreprocessOptions) -> Iterator[str]:
    """What `item_of` needs of every listed video that has not ended yet, in the order of the list."""
    # What is done and in no shard was left by a job that did not get to the end.
    final = {kind.value for kind in Kind} - {Kind.DONE.value} - _tried_again(options)
    held = manifest_of(options.out)
    packed = [tally.id_digests(generations.videos_of(options.out, g)) for g in (held.generations if held else [])]
    finished = np.concatenate([tally.of_data(options.out).ended(final), *packed])
    if options.ids:
        return id_list.names_left(options.ids, options.limit, finished)
    items = list_items(options)
    known = np.isin(tally.id_digests(item.id for item in items), finished)
    return (_name_of(item) for item, ended in zip(items, known.tolist(), strict=True) if not ended)


def _tried_again(options: PreprocessOptions) -> set[str]:
    return {Kind.FAILED_RETRYABLE.value} if options.retry_failed else set()


def to_do(
    items: list[Item], options: PreprocessOptions, config: str, packed: set[str], part: str | None = None
) -> list[Item]:
    """The items without an outcome; one whose segments are committed but not in the ledger gets its line now."""
    store, ledger = SegmentStore(segments_folder(options.out)), Ledger(options.out, part=part)
    entries = ledger.entries()
    pending = []
    for item in items:
        entry = entries.get(item.id)
        if item.id in packed or (entry and not _again(entry, options)):
            if item.id in packed or entry.kind != Kind.DONE.value or filesystem.exists(store.path(item.id)):
                continue
        elif (committed := store.find(item.id)) and committed.config_digest == config:
            result = Result(Outcome.EXTRACTED, "", committed.scores, committed.text, [])
            line = entry_of(Extracted(result, 0.0), options.split)
            ledger.append(dataclasses.replace(line, segments=len(committed.spans)))
            continue
        pending.append(item)
    return pending


def allowed(items: list[Item], options: PreprocessOptions, part: str | None = None) -> list[Item]:
    """The items that are not on the block list; the others get their outcome."""
    if options.blocklist is None:
        return items
    listed = read_ids(options.blocklist)
    blocked, ledger = {*listed.ids, *listed.bad}, Ledger(options.out, "blocklist", part)
    for item in items:
        if item.id in blocked:
            result = Result(Outcome.BLOCKED, Outcome.BLOCKED.sentence, {}, VideoText(item.id))
            ledger.append(entry_of(Extracted(result, 0.0), options.split))
    return [item for item in items if item.id not in blocked]


def _again(entry: Entry, options: PreprocessOptions) -> bool:
    return entry.kind in _tried_again(options)
