"""What a data set holds: its shards with counts and digests, what they were made with, and their generations.

The manifest is written last; a shard that it does not name is not data. Every run that adds videos adds a generation.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shards.storage import filesystem
from shards.storage.errors import UserError

NAME = "manifest.json"
FORMAT = "reservoir-shards"
VERSION = 1


def shard_name(split: str, generation: int, index: int, count: int, tag: str = "") -> str:
    """`train-g0000-5b2e61-00000of00001.tfrecord`, without the tag `train-g0000-00000of00001.tfrecord`."""
    parts = [split, f"g{generation:04d}", *([tag] if tag else []), f"{index:05d}of{count:05d}"]
    return f"{'-'.join(parts)}.tfrecord"


def rest_name(split: str, generation: int, index: int, count: int, tag: str) -> str:
    """A shard of what the others left over: `train-g0000-5b2e61-rest-00000of00001.tfrecord`."""
    return shard_name(split, generation, index, count, f"{tag}-rest")


def lock_path(data: str) -> str:
    """Return the path of the lock under which a data folder is changed."""
    return filesystem.join(data, ".lock")


def index_path(shard: str) -> str:
    """Where a shard's index is: little-endian uint64 offsets of its records, then the file's length."""
    return shard.removesuffix(".tfrecord") + ".index"


def stats_path(shard: str) -> str:
    """Where a shard's statistics are."""
    return shard.removesuffix(".tfrecord") + ".stats.json"


def generation_stats_path(data: str, generation: Generation) -> str:
    """Where the statistics of a whole generation are."""
    return filesystem.join(generation_folder(data, generation), f"{generation.stem}.stats.json")


def generation_folder(data: str, generation: Generation) -> str:
    """Where the files of a generation are: the folder of the manifest, or the one that a merged manifest names."""
    folder = generation.folder
    if not folder or folder.startswith("/") or "://" in folder:
        return folder or data
    return filesystem.join(data, folder)


class ManifestError(UserError):
    """A folder holds no readable manifest; the message says which and why."""


@dataclass(frozen=True)
class Shard:
    """One shard file: its name beside the manifest, records, bytes and the SHA-256 of its bytes."""

    name: str
    examples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Generation:
    """The shards that one run added to a split, and how many videos and segments are in them.

    `took` are the numbers of the generations whose left-over segments it packed, `remainder` the runs of segments, as
    (video, first, stop), that it leaves over itself. `text` counts the sequences that its examples took from each
    source of text, `ledger` is the number of files that say how its videos ended, `tag` what tells its ledger and its
    statistics from those of a job of other videos that lost the race for its number. `folder` is where its files are,
    in a manifest that was merged of several: absolute, in a bucket, or relative to the manifest's folder. Its number is
    the one that it has there, so a generation is named by folder and number.
    """

    number: int
    split: str
    videos: int
    segments: int
    shards: list[Shard]
    took: list[int] = field(default_factory=list)
    text: dict[str, int] = field(default_factory=dict)
    remainder: list[list[Any]] = field(default_factory=list)
    ledger: int = 0
    tag: str = ""
    folder: str = ""

    @property
    def stem(self) -> str:
        """How the names of its ledger and its statistics begin."""
        return f"{self.split}-g{self.number:04d}{f'-{self.tag}' if self.tag else ''}"

    @property
    def examples(self) -> int:
        """Records in all shards of the generation."""
        return sum(shard.examples for shard in self.shards)


@dataclass(frozen=True)
class Manifest:
    """A data set. `config` is the digest of config.json, `tokenizer` the SHA-256 of tokenizer.json."""

    segments_per_example: int
    config: str
    tokenizer: str
    generations: list[Generation] = field(default_factory=list)

    def shards(self, split: str | None = None) -> list[Shard]:
        """The shards of a split (all of them without one), oldest generation first."""
        return [s for g in self.generations if split in (None, g.split) for s in g.shards]

    def located(self, data: str, split: str | None = None) -> dict[str, Shard]:
        """The shards of a split by path, in the order of `shards`; `data` is the folder of the manifest."""
        listed = [(generation_folder(data, g), g) for g in self.generations if split in (None, g.split)]
        return {filesystem.join(folder, shard.name): shard for folder, g in listed for shard in g.shards}

    def folders(self) -> list[str]:
        """The folders that a merged manifest refers to; empty for one that names the shards beside it."""
        return list(dict.fromkeys(g.folder for g in self.generations if g.folder))

    def waiting(self, split: str) -> list[Generation]:
        """The generations of a split whose left-over segments no other took up."""
        ours = [g for g in self.generations if g.split == split]
        taken = {(g.folder, number) for g in ours for number in g.took}
        return [g for g in ours if (g.folder, g.number) not in taken]

    def next_number(self) -> int:
        """The number of a generation after all others."""
        return max((g.number for g in self.generations), default=-1) + 1

    def splits(self) -> list[str]:
        """The names of the splits, in order of appearance."""
        return list(dict.fromkeys(g.split for g in self.generations))

    def to_json(self) -> str:
        """Readable JSON that depends on the content alone."""
        head: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        return json.dumps(head | dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """The manifest behind the JSON. Raises `ManifestError` with what is wrong."""
        try:
            values = json.loads(text)
            if (values.pop("format"), values.pop("version")) != (FORMAT, VERSION):
                raise ManifestError(f"this is not a {FORMAT} manifest of version {VERSION}")
            generations = [_checked_generation(g) for g in values.pop("generations")]
            manifest = cls(**values, generations=generations)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, ManifestError):
                raise
            raise ManifestError(f"the manifest cannot be read: {type(error).__name__}: {str(error)[:120]}") from None
        if not _is_count(manifest.segments_per_example) or not manifest.segments_per_example:
            raise ManifestError(f"segments_per_example is {manifest.segments_per_example!r}, not a positive number")
        if not isinstance(manifest.config, str) or not isinstance(manifest.tokenizer, str):
            raise ManifestError("the digests of config and tokenizer are not text")
        return manifest


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_runs(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(run, list) and len(run) == 3 and isinstance(run[0], str) and all(map(_is_count, run[1:]))
        for run in value
    )


def _checked_generation(values: dict[str, Any]) -> Generation:
    generation = Generation(**{**values, "shards": [_checked_shard(s) for s in values["shards"]]})
    if not isinstance(generation.split, str) or "/" in generation.split:
        raise ManifestError(f"{generation.split!r} is not the name of a split")
    if not all(map(_is_count, (generation.number, generation.videos, generation.segments))):
        raise ManifestError(f"the counts of a generation of {generation.split!r} are not numbers")
    if not isinstance(generation.took, list) or not all(map(_is_count, generation.took)):
        raise ManifestError(f"the generations that generation {generation.number} took up are not numbers")
    named = isinstance(generation.tag, str) and "/" not in generation.tag
    if not (_is_count(generation.ledger) and named and _are_runs(generation.remainder)):
        raise ManifestError(f"what generation {generation.number} leaves over, or its ledger, cannot be read")
    if not isinstance(generation.folder, str):
        raise ManifestError(f"the folder of generation {generation.number} is {generation.folder!r}, not text")
    if not isinstance(generation.text, dict) or not all(map(_is_count, generation.text.values())):
        raise ManifestError(f"the texts of a generation of {generation.split!r} are not counts by name")
    return generation


def _checked_shard(values: dict[str, Any]) -> Shard:
    shard = Shard(**values)
    if not (isinstance(shard.name, str) and isinstance(shard.sha256, str)) or "/" in shard.name:
        raise ManifestError(f"{shard.name!r} is not the name of a shard beside the manifest")
    if not all(map(_is_count, (shard.examples, shard.bytes))):
        raise ManifestError(f"the counts of {shard.name!r} are not numbers")
    return shard


def load(data: str) -> Manifest:
    """The manifest of a data folder. Raises `ManifestError` if there is none or it is damaged."""
    found = find(data)
    if found is None:
        raise ManifestError(f"{data!r} holds no {NAME}: it is not a finished data set")
    return found


def find(data: str) -> Manifest | None:
    """The manifest of a data folder, `None` before its first generation. Raises `ManifestError` if it is damaged."""
    path = filesystem.join(data, NAME)
    content = filesystem.read_existing(path)
    return None if content is None else _parsed(path, content)


def _parsed(path: str, content: bytes) -> Manifest:
    try:
        return Manifest.from_json(content.decode())
    except (ManifestError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: {error}") from None


def save(data: str, manifest: Manifest) -> None:
    """Write the manifest in one step."""
    filesystem.write_bytes(filesystem.join(data, NAME), manifest.to_json().encode())


def update(data: str, change: Callable[[Manifest | None], Manifest]) -> Manifest:
    """Replace the manifest by `change(manifest)`, with nobody else's change in between, and return the new one.

    `change` gets `None` before the first generation, and may be called again if another job was faster.
    """
    path = filesystem.join(data, NAME)
    changed: list[Manifest] = []

    def written(content: bytes | None) -> bytes:
        changed.append(change(None if content is None else _parsed(path, content)))
        return changed[-1].to_json().encode()

    filesystem.update(path, written)
    return changed[-1]
