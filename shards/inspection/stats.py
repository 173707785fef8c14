"""A data set in numbers, from the statistics that every generation leaves: no shard and no sidecar is opened.

Where a generation has none, its sidecars and the ledger are summed up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from shards.dataset import generation_sums, manifest
from shards.dataset.duplicates import Duplicates
from shards.dataset.ledger import Ledger, read_removals
from shards.dataset.location import DataSet
from shards.dataset.manifest import Generation, Manifest, ManifestError
from shards.dataset.sidecar import COUNTS
from shards.dataset.sums import Sums
from shards.storage import filesystem


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


def summarize(data: DataSet, split: str | None = None) -> Summary:
    """Statistics of a data set. Raises `ManifestError` naming statistics that are damaged."""
    return summary_of(sums_of(data, split), data.manifest, split)


def summary_of(sums: Sums, committed: Manifest | None, split: str | None = None) -> Summary:
    """What sums mean, with the segments that wait according to the manifest."""
    splits = [split] if split else committed.splits() if committed else []
    runs = [run for name in splits for generation in committed.waiting(name) for run in generation.remainder]
    outcomes: dict[str, dict[str, int]] = defaultdict(dict)
    for (kind, outcome), count in sorted(sums.outcomes.items(), key=lambda item: (-item[1], item[0])):
        outcomes[kind][outcome] = count
    done = outcomes_by_kind(sums)["done"]
    return Summary(
        sums.shards,
        sums.bytes,
        # A video whose last segments are in a shard of what the others left over is in two shards.
        min(sums.videos, done) if done else sums.videos,
        {name: sums.counts[name] for name in COUNTS},
        sums.milliseconds / 1000,
        {name: {str(value): n for value, n in histogram.items()} for name, histogram in sums.histograms.items()},
        sum(stop - first for _, first, stop in runs),
        dict(outcomes),
        dict(sorted(sums.languages.items(), key=lambda item: (-item[1], item[0]))),
        sums.duplicates,
    )


def sums_of(data: DataSet, split: str | None = None) -> Sums:
    """The sums of all generations of a data set. Raises `ManifestError` naming statistics that are damaged."""
    sums = Sums()
    if data.manifest is None:
        raise ManifestError(f"{data.folder!r} has no manifest and so no statistics; --recompute reads its shards")
    listed = [g for g in data.manifest.generations if split in (None, g.split)]
    names: dict[str, dict[str, str]] = defaultdict(dict)
    for path, name in data.names.items():
        names[filesystem.folder_of(path)][path.rpartition("/")[2]] = name
    for generation in listed:
        ours = names[manifest.generation_folder(data.folder, generation)]
        sums.add(generation_sums.read_generation(data.folder, generation).renamed(ours))
    return sums.add(_other_items(data.folder, listed, split))


def items_of(data: DataSet, split: str | None = None) -> Sums:
    """How the items of all generations ended, without their shards. Raises `ManifestError` as `sums_of` does."""
    listed = [g for g in data.manifest.generations if split in (None, g.split)] if data.manifest else []
    sums = Sums()
    for generation in listed:
        if generation.ledger:
            sums.add(generation_sums.read_generation(data.folder, generation).items())
    return sums.add(_other_items(data.folder, listed, split))


def _other_items(folder: str, listed: list[Generation], split: str | None) -> Sums:
    """The items that no generation counts: those taken out, or all where jobs append to the ledger."""
    sums = Sums()
    for place in dict.fromkeys(manifest.generation_folder(folder, g) for g in listed) or [folder]:
        counted = any(g.ledger for g in listed if manifest.generation_folder(folder, g) == place)
        entries = read_removals(place) if counted else Ledger(place).entries().values()
        sums.add(Sums.of_items(entry for entry in entries if split in (None, entry.split)))
    return sums


def outcomes_by_kind(sums: Sums) -> Counter[str]:
    """How many items ended in each kind of outcome."""
    kinds: Counter[str] = Counter()
    for (kind, _), count in sums.outcomes.items():
        kinds[kind] += count
    return kinds
