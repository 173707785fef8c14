"""Statistics of a data set from the statistics file of every generation, without reading shards or sidecars.

For a generation without such a file, its sidecars and the ledger are aggregated.
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
    """Statistics of a data set; histograms map a value to the number of segments (or examples, bytes).

    `waiting` is the number of committed segments that do not fill an example yet. `outcomes` counts the ledger entries
    by kind and outcome, `languages` the extracted videos. `duplicates` is `None` if sidecars do not name the frames.
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
        """Return the smallest value that at least `share` of the entries do not exceed."""
        items = sorted((float(v), n) for v, n in self.histograms[histogram].items())
        total, cumulative = sum(n for _, n in items), 0
        for value, count in items:
            cumulative += count
            if cumulative >= share * total:
                return value
        return 0.0

    @property
    def utilisation(self) -> float:
        """Share of the committed segments that are in an example."""
        return self.counts["segments"] / max(self.counts["segments"] + self.waiting, 1)


def summarize(data: DataSet, split: str | None = None) -> Summary:
    """Return the statistics of a data set. Raises `ManifestError` naming a damaged file."""
    return summary_of(sums_of(data, split), data.manifest, split)


def summary_of(sums: Sums, committed: Manifest | None, split: str | None = None) -> Summary:
    """Return the summary of `sums`, with the waiting segments of the manifest."""
    runs = []
    if committed:
        for name in [split] if split else committed.splits():
            runs += [run for generation in committed.waiting(name) for run in generation.remainder]
    outcomes: dict[str, dict[str, int]] = defaultdict(dict)
    for (kind, outcome), count in sorted(sums.outcomes.items(), key=lambda item: (-item[1], item[0])):
        outcomes[kind][outcome] = count
    done = outcomes_by_kind(sums)["done"]
    return Summary(
        sums.shards,
        sums.bytes,
        # A video whose last segments are in a `rest` shard is counted in two shards.
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
    """Return the sums of all generations of a data set. Raises `ManifestError` naming a damaged file."""
    sums = Sums()
    if data.manifest is None:
        raise ManifestError(f"{data.folder!r} has no manifest and so no statistics; --recompute reads its shards")
    listed = [g for g in data.manifest.generations if split in (None, g.split)]
    names: dict[str, dict[str, str]] = defaultdict(dict)
    for path, name in data.names.items():
        names[filesystem.folder_of(path)][path.rpartition("/")[2]] = name
    for generation in listed:
        renamed = names[manifest.generation_folder(data.folder, generation)]
        sums.add(generation_sums.read_generation(data.folder, generation).renamed(renamed))
    return sums.add(_other_items(data.folder, listed, split))


def items_of(data: DataSet, split: str | None = None) -> Sums:
    """Return the outcomes of the items of all generations, without shards. Raises `ManifestError` as `sums_of` does."""
    listed = [g for g in data.manifest.generations if split in (None, g.split)] if data.manifest else []
    sums = Sums()
    for generation in listed:
        if generation.ledger:
            sums.add(generation_sums.read_generation(data.folder, generation).items())
    return sums.add(_other_items(data.folder, listed, split))


def _other_items(folder: str, listed: list[Generation], split: str | None) -> Sums:
    """Return the items that no generation counts: removed videos, or all items of an appendable ledger."""
    sums = Sums()
    for path in dict.fromkeys(manifest.generation_folder(folder, g) for g in listed) or [folder]:
        counted = any(g.ledger for g in listed if manifest.generation_folder(folder, g) == path)
        entries = read_removals(path) if counted else Ledger(path).entries().values()
        sums.add(Sums.of_items(entry for entry in entries if split in (None, entry.split)))
    return sums


def outcomes_by_kind(sums: Sums) -> Counter[str]:
    """Return the number of items by kind of outcome."""
    kinds: Counter[str] = Counter()
    for (kind, _), count in sums.outcomes.items():
        kinds[kind] += count
    return kinds
