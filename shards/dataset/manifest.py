"""The manifest of a data set: generations and shards with counts and digests, and the digests of config and tokenizer.

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
    """Return a name such as `train-g0000-5b2e61-00000of00001.tfrecord`, or `train-g0000-00000of00001.tfrecord`."""
    parts = [split, f"g{generation:04d}", *([tag] if tag else []), f"{index:05d}of{count:05d}"]
    return f"{'-'.join(parts)}.tfrecord"


def rest_name(split: str, generation: int, index: int, count: int, tag: str) -> str:
    """Return the name of a shard of left-over segments: `train-g0000-5b2e61-rest-00000of00001.tfrecord`."""
    return shard_name(split, generation, index, count, f"{tag}-rest")


def lock_path(data: str) -> str:
    """Return the path of the lock under which a data folder is changed."""
    return filesystem.join(data, ".lock")


def index_path(shard: str) -> str:
    """Return the path of a shard's index: little-endian uint64 offsets of its records, then the length of the file."""
    return shard.removesuffix(".tfrecord") + ".index"


def stats_path(shard: str) -> str:
    """Return the path of a shard's sidecar."""
    return shard.removesuffix(".tfrecord") + ".stats.json"


def generation_stats_path(data: str, generation: Generation) -> str:
    """Return the path of the statistics of a generation."""
    return filesystem.join(generation_folder(data, generation), f"{generation.stem}.stats.json")


def generation_folder(data: str, generation: Generation) -> str:
    """Return the folder of a generation's files: that of the manifest, or the one that a merged manifest names."""
    folder = generation.folder
    if not folder or folder.startswith("/") or "://" in folder:
        return folder or data
    return filesystem.join(data, folder)


class ManifestError(UserError):
    """A folder has no manifest or a damaged one; the message names the folder and the reason."""


@dataclass(frozen=True)
class Shard:
    """One shard file: its name in the folder of the generation, number of records, size and SHA-256."""

    name: str
    examples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Generation:
    """The shards that one run added to a split. It is identified by folder and number."""

    number: int
    split: str
    videos: int
    """Number of videos in the shards."""
    segments: int
    """Number of segments in the shards."""
    shards: list[Shard]
    took: list[int] = field(default_factory=list)
    """Numbers of the generations whose left-over segments this one packed."""
    text: dict[str, int] = field(default_factory=dict)
    """Number of text sequences in the examples by source."""
    remainder: list[list[Any]] = field(default_factory=list)
    """Runs of segments, as (video, first, stop), that did not fill an example."""
    ledger: int = 0
    """Number of files of the ledger."""
    tag: str = ""
    """Distinguishes the files of concurrent jobs that compete for one generation number."""
    folder: str = ""
    """Folder of the files in a merged manifest: absolute, in a bucket, or relative to the manifest; else empty."""

    @property
    def stem(self) -> str:
        """Common prefix of the names of the ledger and the statistics."""
        return f"{self.split}-g{self.number:04d}{f'-{self.tag}' if self.tag else ''}"

    @property
    def examples(self) -> int:
        """Number of records in all shards of the generation."""
        return sum(shard.examples for shard in self.shards)


@dataclass(frozen=True)
class Manifest:
    """A data set. `config` is the digest of config.json, `tokenizer` the SHA-256 of tokenizer.json."""

    segments_per_example: int
    config: str
    tokenizer: str
    generations: list[Generation] = field(default_factory=list)

    def shards(self, split: str | None = None) -> list[Shard]:
        """Return the shards of a split, or of all splits, oldest generation first."""
        return [s for g in self.generations if split in (None, g.split) for s in g.shards]

    def located(self, data: str, split: str | None = None) -> dict[str, Shard]:
        """Return the shards of a split by path, in the order of `shards`; `data` is the folder of the manifest."""
        listed = [(generation_folder(data, g), g) for g in self.generations if split in (None, g.split)]
        return {filesystem.join(folder, shard.name): shard for folder, g in listed for shard in g.shards}

    def folders(self) -> list[str]:
        """Return the folders that a merged manifest refers to; empty for the manifest of a single folder."""
        return list(dict.fromkeys(g.folder for g in self.generations if g.folder))

    def waiting(self, split: str) -> list[Generation]:
        """Return the generations of a split whose left-over segments have not been packed by a later one."""
        candidates = [g for g in self.generations if g.split == split]
        packed = {(g.folder, number) for g in candidates for number in g.took}
        return [g for g in candidates if (g.folder, g.number) not in packed]

    def next_number(self) -> int:
        """Return the number of the next generation."""
        return max((g.number for g in self.generations), default=-1) + 1

    def splits(self) -> list[str]:
        """Return the names of the splits, in order of appearance."""
        return list(dict.fromkeys(g.split for g in self.generations))

    def to_json(self) -> str:
        """Return indented JSON that depends on the content alone."""
        head: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        return json.dumps(head | dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parse a manifest. Raises `ManifestError` with the reason if it is not valid."""
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
        raise ManifestError(f"{generation.split!r} is not a valid name of a split")
    if not all(map(_is_count, (generation.number, generation.videos, generation.segments))):
        raise ManifestError(f"the counts of a generation of {generation.split!r} are not numbers")
    if not isinstance(generation.took, list) or not all(map(_is_count, generation.took)):
        raise ManifestError(f"the field 'took' of generation {generation.number} is not a list of numbers")
    named = isinstance(generation.tag, str) and "/" not in generation.tag
    if not (_is_count(generation.ledger) and named and _are_runs(generation.remainder)):
        raise ManifestError(f"the remainder, the ledger or the tag of generation {generation.number} is not valid")
    if not isinstance(generation.folder, str):
        raise ManifestError(f"the folder of generation {generation.number} is {generation.folder!r}, not text")
    if not isinstance(generation.text, dict) or not all(map(_is_count, generation.text.values())):
        raise ManifestError(f"the texts of a generation of {generation.split!r} are not counts by name")
    return generation


def _checked_shard(values: dict[str, Any]) -> Shard:
    shard = Shard(**values)
    if not (isinstance(shard.name, str) and isinstance(shard.sha256, str)) or "/" in shard.name:
        raise ManifestError(f"{shard.name!r} is not a valid name of a shard")
    if not all(map(_is_count, (shard.examples, shard.bytes))):
        raise ManifestError(f"the counts of {shard.name!r} are not numbers")
    return shard


def load(data: str) -> Manifest:
    """Return the manifest of a data folder. Raises `ManifestError` if there is none or it is damaged."""
    existing = find(data)
    if existing is None:
        raise ManifestError(f"{data!r} contains no {NAME}: it is not a finished data set")
    return existing


def find(data: str) -> Manifest | None:
    """Return the manifest of a data folder, `None` before its first generation.

    Raises `ManifestError` if it is damaged.
    """
    path = filesystem.join(data, NAME)
    content = filesystem.read_existing(path)
    return None if content is None else _parsed(path, content)


def _parsed(path: str, content: bytes) -> Manifest:
    try:
        return Manifest.from_json(content.decode())
    except (ManifestError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: {error}") from None


def save(data: str, manifest: Manifest) -> None:
    """Write the manifest atomically."""
    filesystem.write_bytes(filesystem.join(data, NAME), manifest.to_json().encode())


def update(data: str, change: Callable[[Manifest | None], Manifest]) -> Manifest:
    """Replace the manifest with `change(manifest)` atomically and return the new one.

    `change` receives `None` before the first generation, and is called again if another job changed the manifest.
    """
    path = filesystem.join(data, NAME)
    changed: list[Manifest] = []

    def written(content: bytes | None) -> bytes:
        changed.append(change(None if content is None else _parsed(path, content)))
        return changed[-1].to_json().encode()

    filesystem.update(path, written)
    return changed[-1]
