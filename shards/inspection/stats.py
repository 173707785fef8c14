"""A data set in numbers, from the sidecars written with every shard: no shard is opened.

What cannot come from sidecars is beside them: the outcomes in the ledger, and the segments that wait to be packed.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shards import duplicates, filesystem, generations, tally
from shards.dataset import DataSet
from shards.duplicates import Duplicates
from shards.errors import StorageError
from shards.manifest import Manifest, ManifestError, Shard, stats_path
from shards.sidecar import ADDED_LATER, COUNTS, HISTOGRAMS


@dataclass(frozen=True, slots=True)
class ShardSums:
    """What is known of one shard, from its sidecar or its records; `problem` says why nothing is.

    `videos` and `lengths` are the ids and numbers of segments of its runs in order, `digests` and `hashes` the names of
    its frames, `uint64 [segments]` or empty, `worst` the examples [number, count] with most of each fault.
    """

    name: str
    bytes: int
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    histograms: dict[str, dict[int | str, int]] = field(default_factory=dict)
    videos: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    digests: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    worst: dict[str, list[list[int]]] = field(default_factory=dict)
    problem: str = ""

    @classmethod
    def of(cls, name: str, size: int, sidecar: dict[str, Any]) -> ShardSums:
        """The sums in a sidecar's content. Raises `TypeError`, `ValueError` or `LookupError` if it is none."""
        counts = {key: sidecar[key] for key in COUNTS}
        _expect((*counts.values(), size), {int})
        _expect([sidecar["seconds"]], {int, float})
        histograms = {}
        for key in HISTOGRAMS:
            histograms[key] = dict(sidecar.get(key, ()) if key in ADDED_LATER else sidecar[key])
            _expect(histograms[key], {int, str})
            _expect(histograms[key].values(), {int})
        runs = list(itertools.chain.from_iterable(sidecar["runs"]))
        videos, firsts, stops = zip(*runs, strict=True) if runs else ((), (), ())
        _expect(videos, {str})
        _expect((*firsts, *stops), {int})
        digests, hashes = (duplicates.decode(sidecar.get(key, "")) for key in ("digests", "hashes"))
        worst = {fault: [[n, k] for n, k in held] for fault, held in sidecar.get("worst", {}).items()}
        _expect((value for held in worst.values() for pair in held for value in pair), {int})
        lengths = tuple(map(int.__sub__, stops, firsts))
        if min(lengths, default=0) < 0 or digests.size != hashes.size or hashes.size not in (0, sum(lengths)):
            raise ValueError("the runs and the names of the frames are not of equally many segments")
        return cls(name, size, counts, sidecar["seconds"], histograms, tuple(videos), lengths, digests, hashes, worst)


def _expect(values: Iterable[object], types: set[type]) -> None:
    if not set(map(type, values)) <= types:
        raise TypeError("a value has another type")


@dataclass(frozen=True)
class Summary:
    """A data set in numbers; histograms map a value to how many segments (or examples, bytes) have it.

    `waiting` are committed segments that fill no example yet. `outcomes` counts the ledger's entries by kind and
    reason, `languages` its extracted videos. `duplicates` is missing where the sidecars do not name the frames.
    """

    shards: int
    bytes: int
    videos: int
    counts: dict[str, int]
    seconds: float
    histograms: dict[str, dict[str, int]]
    waiting: int = 0
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)
    duplicates: Duplicates | None = None

    def percentile(self, histogram: str, share: float) -> float:
        """The smallest value that at least `share` of the entries do not exceed."""
        items = sorted((float(v), n) for v, n in self.histograms[histogram].items())
        total, seen = sum(n for _, n in items), 0
        for value, count in items:
            seen += count
            if seen >= share * total:
                return value
        return 0.0

    @property
    def utilisation(self) -> float:
        """The share of committed segments that are in an example."""
        return self.counts["segments"] / max(self.counts["segments"] + self.waiting, 1)


def summarize(data: str, manifest: Manifest, split: str | None = None) -> Summary:
    """Statistics of a data set from its sidecars. Raises `ManifestError` naming a bad sidecar."""
    held = DataSet(data, [], manifest)
    return of_shards(held, read_sidecars(data, manifest, split), split)


def of_shards(data: DataSet, shards: Iterable[ShardSums], split: str | None = None) -> Summary:
    """The sums of the shards, with what the folder says of segments that wait and of how items ended."""
    left = waiting(data.folder, data.manifest, split) if data.manifest else 0
    ended, languages = outcomes(data.folder, split)
    return dataclasses.replace(total(shards), waiting=left, outcomes=ended, languages=languages)


def read_sidecars(data: str, manifest: Manifest, split: str | None = None) -> Iterator[ShardSums]:
    """The sums of every shard of the manifest. Raises `ManifestError` naming a bad sidecar."""
    for shard in manifest.shards(split):
        held = read_sidecar(data, shard)
        if held.problem:
            raise ManifestError(f"{held.problem}; --recompute reads the shards instead")
        yield held


def read_sidecar(data: str, shard: Shard) -> ShardSums:
    """The sums of one shard, or why they cannot be had."""
    path = stats_path(filesystem.join(data, shard.name))
    try:
        return ShardSums.of(shard.name, shard.bytes, json.loads(filesystem.read_bytes(path)))
    except StorageError:
        problem = f"the sidecar {path!r} is missing"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        problem = f"the sidecar {path!r} is damaged ({type(error).__name__})"
    return ShardSums(shard.name, shard.bytes, problem=problem)


def total(shards: Iterable[ShardSums]) -> Summary:
    """The sums of all shards that have any."""
    counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
    histograms: dict[str, dict[Any, int]] = {name: defaultdict(int) for name in HISTOGRAMS}
    videos: dict[str, int] = {}
    digests, hashes, owners = [], [], []
    number = size = 0
    seconds = 0.0
    named = True
    for shard in shards:
        number, size, seconds = number + 1, size + shard.bytes, seconds + shard.seconds
        for name, count in shard.counts.items():
            counts[name] += count
        for name, held in shard.histograms.items():
            histogram = histograms[name]
            for value, n in held.items():
                histogram[value] += n
        for video in shard.videos:
            videos.setdefault(video, len(videos))
        if shard.hashes.size:
            digests.append(shard.digests)
            hashes.append(shard.hashes)
            owners.append(np.repeat([videos[video] for video in shard.videos], shard.lengths))
        else:
            named = named and not shard.counts.get("segments")
    found = None
    if named and hashes:
        found = duplicates.count(np.concatenate(digests), np.concatenate(hashes), np.concatenate(owners))
    return Summary(
        number,
        size,
        len(videos),
        counts,
        seconds,
        {name: {str(value): n for value, n in h.items()} for name, h in histograms.items()},
        duplicates=found,
    )


def waiting(data: str, manifest: Manifest, split: str | None = None) -> int:
    """Committed segments that fill no example and wait for the next generation of their split."""
    path = filesystem.join(data, generations.REMAINDER)
    if not filesystem.exists(path):
        return 0
    splits = [split] if split else manifest.splits()
    try:
        return sum(len(run) for name in splits for run in generations.read_remainder(data, manifest, name))
    except (ValueError, TypeError, LookupError):
        raise ManifestError(f"{path!r} is damaged; the segments that wait in it cannot be counted") from None


def outcomes(data: str, split: str | None = None) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """How many items of the ledger ended with each reason, by kind, and the languages of those that are done.

    The most frequent comes first.
    """
    counts, languages = Counter(), Counter()
    for reason, count in tally.of_data(data).counts().items():
        if split in (None, reason.split):
            counts[reason.kind, reason.outcome] += count
            if reason.kind == "done":
                languages[reason.language] += count
    ended: dict[str, dict[str, int]] = defaultdict(dict)
    for (kind, outcome), count in counts.most_common():
        ended[kind][outcome] = count
    return dict(ended), dict(languages.most_common())
