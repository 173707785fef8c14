"""Mergeable statistics of shards and items in bounded space: sums, histograms and samples.

Merging is commutative and associative, so the result does not depend on the order or the runner. Everything that could
grow with the data is a bounded sample of the smallest hashes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shards.dataset import duplicates
from shards.dataset.duplicates import Duplicates
from shards.dataset.frame_sample import FrameSample
from shards.dataset.ledger import Entry
from shards.dataset.sidecar import ADDED_LATER, COUNTS, HISTOGRAMS

MOST_NAMES = 4096
"""Maximum number of values of a histogram; further values are counted together as `OTHERS`."""

MOST_WORST = 8
"""Number of examples listed for each fault, and of shards at each end of each rate."""

OTHERS = "others"
_SAMPLES = 3
_DIGITS = 3
"""Rates of shards are rounded to this many significant digits."""

_LARGEST = 1 << 63
_MOST_SECONDS = 1e15
_PLAIN = ("shards", "bytes", "videos", "milliseconds", "item_milliseconds")


@dataclass
class Sums:
    """Statistics of some shards and some items.

    `worst` lists the worst examples of each fault as (number, shard, record). `rates` counts the shards by the rounded
    value of each rate; `ends` lists the shards with the smallest and the largest values. `outcomes` counts items by
    (kind, outcome), where an entry that replaces another one subtracts it; `samples` lists some ids of each outcome,
    `languages` counts the extracted videos. `named` is false if the frames of some shard have no names.
    """

    shards: int = 0
    bytes: int = 0
    videos: int = 0
    milliseconds: int = 0
    item_milliseconds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, Counter[int | str]] = field(default_factory=lambda: {name: Counter() for name in HISTOGRAMS})
    copies: FrameSample = field(default_factory=FrameSample)
    looks: FrameSample = field(default_factory=FrameSample)
    named: bool = True
    worst: dict[str, list[tuple[int, str, int]]] = field(default_factory=dict)
    rates: dict[str, Counter[float]] = field(default_factory=dict)
    ends: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    samples: dict[str, list[str]] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of_shard(cls, name: str, size: int, sidecar: Mapping[str, Any]) -> Sums:
        """Return the statistics of one shard from the content of its sidecar.

        Raises `TypeError`, `ValueError` or `LookupError` if the content is not valid.
        """
        counts = {key: sidecar[key] for key in COUNTS}
        _expect((*counts.values(), size), {int})
        _expect([sidecar["seconds"]], {int, float})
        if not abs(sidecar["seconds"]) < _MOST_SECONDS:
            raise ValueError("the seconds are out of range")
        sums = cls(1, size, 0, round(1000 * sidecar["seconds"]), counts=Counter(counts))
        for key in HISTOGRAMS:
            histogram = dict(sidecar.get(key, ()) if key in ADDED_LATER else sidecar[key])
            _expect(histogram, {int, str})
            _expect(histogram.values(), {int})
            sums.histograms[key] = _bounded(Counter(histogram))
        runs = list(itertools.chain.from_iterable(sidecar["runs"]))
        videos, firsts, stops = zip(*runs, strict=True) if runs else ((), (), ())
        _expect(videos, {str})
        _expect((*firsts, *stops), {int})
        sums.videos = len(set(videos))
        sums._add_frames(sidecar, videos, list(map(int.__sub__, stops, firsts)))
        for fault, places in sidecar.get("worst", {}).items():
            sums.worst[fault] = [(number, name, record) for record, number in places]
            _expect((value for number, _, record in sums.worst[fault] for value in (number, record)), {int})
        for rate, value in rates(size, counts, sidecar["seconds"]).items():
            sums.rates[rate] = Counter([_rounded(value)])
            sums.ends[rate] = [(value, name)]
        return sums

    def _add_frames(self, sidecar: Mapping[str, Any], videos: tuple[str, ...], lengths: list[int]) -> None:
        digests, hashes = (duplicates.decode(sidecar.get(key, "")) for key in ("digests", "hashes"))
        if min(lengths, default=0) < 0 or digests.size != hashes.size or hashes.size not in (0, sum(lengths)):
            raise ValueError("the runs and the names of the frames have different numbers of segments")
        self.named = bool(hashes.size) or not self.counts["segments"]
        if hashes.size:
            owners = np.repeat(np.array([_digest(video) for video in videos], np.uint64), lengths)
            hashed = hashes != 0
            self.copies = FrameSample.of(digests, owners)
            self.looks = FrameSample.of(hashes[hashed], owners[hashed])

    @classmethod
    def of_items(cls, entries: Iterable[Entry]) -> Sums:
        """Return the statistics of some ledger entries."""
        sums = cls()
        for entry in entries:
            sums.outcomes[entry.kind, entry.outcome] += 1
            if entry.earlier:
                kind, _, outcome = entry.earlier.partition("/")
                sums.outcomes[kind, outcome] -= 1
            sums.samples[entry.outcome] = _sampled([*sums.samples.get(entry.outcome, ()), entry.id])
            if entry.kind == "done":
                sums.languages[str(entry.scores.get("language", "unknown"))] += 1
            sums.item_milliseconds += round(1000 * entry.video_seconds)
        return sums

    def items(self) -> Sums:
        """Return the statistics of the items alone."""
        return Sums(
            item_milliseconds=self.item_milliseconds,
            outcomes=Counter(self.outcomes),
            samples=dict(self.samples),
            languages=Counter(self.languages),
        )

    def renamed(self, names: Mapping[str, str]) -> Sums:
        """Return a copy with other names of shards, for folders with shards of the same name."""
        worst = {
            fault: [(number, names.get(shard, shard), record) for number, shard, record in places]
            for fault, places in self.worst.items()
        }
        ends = {rate: [(value, names.get(shard, shard)) for value, shard in ends] for rate, ends in self.ends.items()}
        return dataclasses.replace(self, worst=worst, ends=ends)

    def add(self, other: Sums) -> Sums:
        """Add other statistics in place and return `self`."""
        for name in _PLAIN:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.named = self.named and other.named
        for counted in ("counts", "outcomes", "languages"):
            getattr(self, counted).update(getattr(other, counted))
        for name, histogram in other.histograms.items():
            self.histograms[name].update(histogram)
            self.histograms[name] = _bounded(self.histograms[name])
        self.copies, self.looks = self.copies.merged(other.copies), self.looks.merged(other.looks)
        for fault, places in other.worst.items():
            self.worst[fault] = _worst(fault, [*self.worst.get(fault, ()), *places])
        for rate, counted in other.rates.items():
            self.rates[rate] = self.rates.get(rate, Counter()) + counted
            self.ends[rate] = _ends([*self.ends.get(rate, ()), *other.ends[rate]])
        for outcome, ids in other.samples.items():
            self.samples[outcome] = _sampled([*self.samples.get(outcome, ()), *ids])
        return self

    @property
    def duplicates(self) -> Duplicates | None:
        """Counts of duplicate frames, estimated if the samples are incomplete; `None` if frames have no names."""
        if not (self.named and self.copies.names.size):
            return None
        return Duplicates(self.counts["segments"], self.copies.repeated, self.looks.alike)

    def to_json(self) -> str:
        """Return JSON that depends on the content alone."""
        values: dict[str, Any] = {
            name: getattr(self, name) for name in (*_PLAIN, "named", "worst", "ends", "samples", "counts", "languages")
        }
        for name in ("histograms", "rates"):
            counted = getattr(self, name)
            values[name] = {key: sorted(counted[key].items(), key=lambda pair: str(pair[0])) for key in counted}
        values["outcomes"] = [[kind, outcome, n] for (kind, outcome), n in sorted(self.outcomes.items())]
        values["copies"], values["looks"] = self.copies.to_json(), self.looks.to_json()
        return json.dumps(values, ensure_ascii=False, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Sums:
        """Parse JSON. Raises `ValueError`, `TypeError` or `LookupError` if it is not valid."""
        values = json.loads(text)
        sums = cls(**{name: values[name] for name in (*_PLAIN, "named", "samples")})
        sums.counts, sums.languages = Counter(values["counts"]), Counter(values["languages"])
        sums.histograms = {name: Counter(dict(values["histograms"][name])) for name in HISTOGRAMS}
        sums.rates = {name: Counter(dict(counted)) for name, counted in values["rates"].items()}
        sums.outcomes = Counter({(kind, outcome): n for kind, outcome, n in values["outcomes"]})
        sums.worst = {fault: [(n, shard, i) for n, shard, i in places] for fault, places in values["worst"].items()}
        sums.ends = {rate: [(value, shard) for value, shard in ends] for rate, ends in values["ends"].items()}
        sums.copies, sums.looks = FrameSample.from_json(values["copies"]), FrameSample.from_json(values["looks"])
        sums._check()
        return sums

    def _check(self) -> None:
        """Raise `TypeError` or `ValueError` for values that are not valid."""
        counters = [self.counts, self.languages, self.outcomes, *self.histograms.values(), *self.rates.values()]
        _expect((getattr(self, name) for name in _PLAIN), {int})
        _expect((number for counted in counters for number in counted.values()), {int})
        _expect((name for histogram in self.histograms.values() for name in histogram), {int, str})
        _expect((value for counted in self.rates.values() for value in counted), {int, float})
        _expect((part for pair in self.outcomes for part in pair), {str})
        _expect((i for ids in self.samples.values() for i in ids), {str})
        _expect((part for places in self.worst.values() for n, _, i in places for part in (n, i)), {int})
        _expect((value for ends in self.ends.values() for value, _ in ends), {int, float})
        shards = [shard for places in self.worst.values() for _, shard, _ in places]
        _expect([*shards, *(shard for ends in self.ends.values() for _, shard in ends)], {str})
        if self.rates.keys() != self.ends.keys():
            raise ValueError("the rates and their ends are of different quantities")


def rates(size: int, counts: Mapping[str, int], seconds: float) -> dict[str, float]:
    """Return the rates of a shard of `size` bytes: per segment (bytes, tokens, shares) or per minute (words)."""
    segments = counts.get("segments", 0)
    if not segments:
        return {}
    return {
        "bytes per segment": size / segments,
        "tokens per segment": counts["tokens"] / segments,
        "words per minute": 60 * counts["words"] / seconds if seconds else 0.0,
        "silent share": counts["silent"] / segments,
        "near-black share": counts["near_black"] / segments,
    }


def _expect(values: Iterable[object], types: set[type]) -> None:
    for value in values:
        if type(value) not in types:
            raise TypeError("a value has another type")
        if type(value) is int and abs(value) >= _LARGEST:
            raise ValueError("a number is too large")


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _bounded(histogram: Counter[int | str]) -> Counter[int | str]:
    """Return a histogram of at most `MOST_NAMES` names, those with the smallest digests, and `OTHERS`."""
    if len(histogram) <= MOST_NAMES + 1:
        return histogram
    kept = heapq.nsmallest(MOST_NAMES, (name for name in histogram if name != OTHERS), key=lambda n: _digest(str(n)))
    bounded = Counter({name: histogram[name] for name in kept})
    bounded[OTHERS] = histogram.total() - bounded.total()
    return bounded


def _worst(fault: str, places: Iterable[tuple[int, str, int]]) -> list[tuple[int, str, int]]:
    """Return the worst examples of a fault; for words, those with the fewest are the worst."""
    sign = 1 if fault == "words" else -1
    return sorted(places, key=lambda place: (sign * place[0], *place[1:]))[:MOST_WORST]


def _ends(values: list[tuple[float, str]]) -> list[tuple[float, str]]:
    ranked = sorted(set(values))
    return ranked if len(ranked) <= 2 * MOST_WORST else [*ranked[:MOST_WORST], *ranked[-MOST_WORST:]]


def _sampled(ids: Iterable[str]) -> list[str]:
    return sorted(set(ids), key=lambda i: (_digest(i), i))[:_SAMPLES]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
