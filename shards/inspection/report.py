"""One HTML page that shows a data set: numbers, charts, the way of the items, examples, and a table of the shards.

The page holds everything it needs, so it opens from a disk and asks no server for anything. Text that came with the
videos travels as JSON and is only ever set as text.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from shards import filesystem
from shards.dataset import DataSet
from shards.errors import StorageError
from shards.inspection import funnel, gallery, outliers, scanning, show, stats, stats_tables
from shards.inspection.show import Decode
from shards.inspection.stats import ShardSums, Summary
from shards.randomness import generator
from shards.records.example import RecordError
from shards.vocabulary import Vocabulary, of_data

PAGE = "index.html"
_PICTURE_BYTES = 6_500_000
"""Bytes of all pictures of the gallery; as base64 and with the charts' library the page stays under 15 MB."""

_FAULTS = {"words": "fewest words", "silent": "most silent", "near_black": "most near-black"}
_MOST_OFFENDERS = 5
_CHARTS = (
    ("tokens_per_segment", "Tokens per segment", "segments"),
    ("words_per_minute", "Words per minute", "segments"),
    ("speeds", "Playback speed", "segments"),
    ("videos_per_example", "Videos in an example", "examples"),
    ("image_sizes", "Frame size", "segments"),
    ("categories", "Category", "segments"),
    ("licences", "Licence", "segments"),
    ("field_bytes", "Bytes per field", "bytes"),
)
_MOST_BARS = 80


@dataclasses.dataclass(frozen=True)
class Place:
    """One example: its shard's number in the data set, its number in the shard, and why it is shown."""

    shard: int
    record: int
    tags: tuple[str, ...] = ()


def write(data: DataSet, out: str, examples: int = 200, split: str | None = None, processes: int = 1) -> str:
    """Write the page into the folder `out` and return its path.

    Shards without a sound sidecar are read; what cannot be read is listed on the page and the rest is shown.
    """
    shards = sums(data, split, processes)
    content = collect(data, shards, stats.of_shards(data, shards, split), examples)
    path = filesystem.join(out, PAGE)
    filesystem.write_bytes(path, render(content).encode())
    return path


def sums(data: DataSet, split: str | None, processes: int) -> list[ShardSums]:
    """The sums of every shard: from its sidecar, or from the shard where that is missing or damaged."""
    if data.manifest is None:
        return list(scanning.scan(data, processes))
    held = [stats.read_sidecar(data.folder, shard) for shard in data.manifest.shards(split)]
    lost = [i for i, shard in enumerate(held) if shard.problem]
    again = scanning.scan(dataclasses.replace(data, shards=[data.shards[i] for i in lost]), processes)
    for i, found in zip(lost, again, strict=True):
        problem = f"{held[i].problem}; " + (found.problem or "its numbers were read from the shard")
        held[i] = dataclasses.replace(found, bytes=held[i].bytes, problem=problem)
    return held


def collect(data: DataSet, shards: Sequence[ShardSums], summary: Summary, examples: int) -> dict[str, Any]:
    """Everything the page shows, as JSON-able values."""
    problems = [{"where": shard.name, "what": shard.problem} for shard in shards if shard.problem]
    drawn, broken = _gallery(data, choose(shards, examples))
    strange = outliers.outliers(shards)
    return {
        "name": data.folder.rstrip("/").rpartition("/")[2] or data.folder,
        "tiles": stats_tables.totals(summary),
        "charts": [chart for chart in (_chart(summary, *named) for named in _CHARTS) if chart],
        "languages": summary.languages,
        "funnel": [dataclasses.asdict(step) for step in funnel.steps(summary)],
        "segments": summary.counts["segments"],
        "examples": summary.counts["examples"],
        "outcomes": [[kind, reason, n] for kind, held in summary.outcomes.items() for reason, n in held.items()],
        "problems": problems + broken,
        "outliers": [dataclasses.asdict(outlier) for outlier in strange],
        "gallery": drawn,
        "columns": ["shard", "examples", "segments", "MB", *_RATES, "problem"],
        "shards": [_row(shard) for shard in shards],
    }


_RATES = ("bytes per segment", "tokens per segment", "words per minute", "silent share", "near-black share")


def _row(shard: ShardSums) -> list[Any]:
    rated = outliers.rates(shard)
    numbers = [shard.counts.get("examples", 0), shard.counts.get("segments", 0), round(shard.bytes / 1e6, 3)]
    return [shard.name, *numbers, *(round(rated.get(name, 0.0), 3) for name in _RATES), shard.problem]


def _chart(summary: Summary, name: str, title: str, unit: str) -> dict[str, Any] | None:
    """Bars in the order of their values; of names the most frequent ones."""
    held = summary.histograms[name]
    if not held:
        return None
    if all(value.lstrip("-").isdigit() for value in held):
        items = sorted((int(value), n) for value, n in held.items())
        step = max(-(-(items[-1][0] - items[0][0] + 1) // _MOST_BARS), 1)
        binned: dict[int, int] = {}
        for value, n in items:
            binned[value // step * step] = binned.get(value // step * step, 0) + n
        return {"title": title, "unit": unit, "x": list(binned), "y": list(binned.values()), "numbers": len(binned) > 4}
    ranked = sorted(held.items(), key=lambda item: (-item[1], item[0]))[:_MOST_BARS]
    return {"title": title, "unit": unit, "x": [v for v, _ in ranked], "y": [n for _, n in ranked], "numbers": False}


def choose(shards: Sequence[ShardSums], count: int) -> list[Place]:
    """The examples of the gallery: the worst of their kind first, then a sample over all shards."""
    places: list[Place] = []
    for fault, tag in _FAULTS.items():
        sign = 1 if fault == "words" else -1
        ranked = sorted(
            (sign * number, i, record)
            for i, shard in enumerate(shards)
            for record, number in shard.worst.get(fault, ())
        )
        places += [Place(i, record, (tag,)) for _, i, record in ranked[:_MOST_OFFENDERS]]
    sizes = [shard.counts.get("examples", 0) for shard in shards]
    total = sum(sizes)
    starts = list(itertools.accumulate(sizes, initial=0))
    rng = generator(0, "report", "gallery")
    chosen = sorted(rng.choice(total, min(count, total), replace=False).tolist()) if total else []
    shard = 0
    for number in chosen:
        while starts[shard + 1] <= number:
            shard += 1
        places.append(Place(shard, number - starts[shard], ("sample",)))
    merged: dict[tuple[int, int], Place] = {}
    for place in places:
        held = merged.get((place.shard, place.record))
        tags = (*(held.tags if held else ()), *place.tags)
        merged[place.shard, place.record] = dataclasses.replace(place, tags=tags)
    return list(merged.values())[:count]


def _gallery(data: DataSet, places: Sequence[Place]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The drawn examples, and what is wrong with those that cannot be drawn."""
    drawn: list[dict[str, Any]] = []
    broken: list[dict[str, str]] = []
    if not places:
        return drawn, broken
    vocabulary, decode = _vocabulary(data), gallery.decoder(data.folder)
    budget = _PICTURE_BYTES // len(places)
    for place in places:
        path = data.shards[place.shard]
        name = path.rpartition("/")[2]
        try:
            payload = show.read_payload(path, place.record)
            drawn.append(gallery.entry(payload, (name, place.record), list(place.tags), vocabulary, decode, budget))
        except (RecordError, StorageError) as error:
            broken.append({"where": f"{name}, record {place.record}", "what": str(error)})
    return drawn, broken


def _vocabulary(data: DataSet) -> Vocabulary:
    return of_data(data.folder, data.manifest)


def one_example(data: DataSet, path: str, record: int, decode: Decode) -> dict[str, Any]:
    """The content of a page with a single example. Raises `RecordError` if it cannot be drawn."""
    name = path.rpartition("/")[2]
    payload = show.read_payload(path, record)
    drawn = gallery.entry(payload, (name, record), [], _vocabulary(data), decode, _PICTURE_BYTES)
    empty = ("tiles", "charts", "funnel", "outcomes", "problems", "outliers", "columns", "shards")
    return {key: [] for key in empty} | {"name": f"{name}, record {record}", "gallery": [drawn]}


def render(content: dict[str, Any]) -> str:
    """The page: the template with the charts' library and the content as JSON in it."""
    # The library is three megabytes of text and takes a moment to import.
    from plotly.offline import get_plotlyjs

    template = resources.files("shards.inspection").joinpath("report.html").read_text(encoding="utf-8")
    # No text may end the element it stands in.
    held = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    before, _, rest = template.partition("/*PLOTLY*/")
    middle, _, after = rest.partition("/*CONTENT*/")
    return "".join([before, get_plotlyjs(), middle, held, after])
