"""The HTML report of a data set: statistics, charts, the filter funnel, examples, and a table of the shards.

The page is self-contained: it opens from a disk and sends no requests. Text from videos is embedded as JSON and
inserted as text only, never as HTML.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from shards.dataset.location import DataSet
from shards.dataset.manifest import ManifestError, stats_path
from shards.dataset.sums import Sums
from shards.inspection import funnel, gallery, outliers, scanning, show, stats, stats_tables
from shards.inspection.show import Decode
from shards.inspection.stats import Summary
from shards.reading.vocabulary import Vocabulary, of_data
from shards.storage import filesystem
from shards.storage.errors import RecordError, StorageError
from shards.storage.randomness import generator

PAGE = "index.html"
_PICTURE_BYTES = 6_500_000
"""Maximum total size of the images of the gallery; as base64 and with the chart library the page is under 15 MB."""

_FAULTS = {"words": "fewest words", "silent": "most silent", "near_black": "most near-black"}
_MOST_WORST = 5
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


_MOST_SHARDS = 5000
"""Maximum number of rows of the table of shards."""


@dataclasses.dataclass(frozen=True)
class Place:
    """One example: the name of its shard, its number in the shard, and why it is shown."""

    shard: str
    record: int
    tags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ShardRow:
    """One row of the table of shards: name, number of examples, bytes, path."""

    name: str
    examples: int
    bytes: int
    path: str = ""


def write(data: DataSet, out: str, examples: int = 200, split: str | None = None, processes: int = 1) -> str:
    """Write the page into the folder `out` and return its path.

    The shards of a data set without a manifest, or with damaged statistics, are read; errors are listed on the page.
    """
    totals, problems = sums(data, split, processes)
    summary = stats.summary_of(totals, data.manifest, split)
    content = collect(data, totals, summary, problems, examples, split)
    path = filesystem.join(out, PAGE)
    filesystem.write_bytes(path, render(content).encode())
    return path


def sums(data: DataSet, split: str | None, processes: int) -> tuple[Sums, list[str]]:
    """Return the sums of all shards, and the errors as sentences."""
    problems: list[str] = []
    if data.manifest is not None:
        try:
            return stats.sums_of(data, split), problems
        except ManifestError as error:
            problems.append(f"{str(error).partition(';')[0]}; its numbers were read from the shards")
    totals, errors = scanning.scan(data, processes)
    return totals, problems + errors


def rows(data: DataSet, split: str | None) -> list[ShardRow]:
    """Return the rows of the table of shards, from the manifest or else from their indexes."""
    if data.manifest is not None:
        located = data.manifest.located(data.folder, split).items()
        return [ShardRow(data.names[path], shard.examples, shard.bytes, path) for path, shard in located]
    listed = []
    for path in data.shards:
        try:
            offsets = show.record_offsets(path)
            listed.append(ShardRow(data.names[path], len(offsets) - 1, offsets[-1], path))
        except (RecordError, StorageError):
            listed.append(ShardRow(data.names[path], 0, filesystem.size(path), path))
    return listed


def collect(
    data: DataSet, totals: Sums, summary: Summary, problems: Sequence[str], examples: int, split: str | None
) -> dict[str, Any]:
    """Return the content of the page as JSON-able values."""
    listed = rows(data, split)
    drawn, broken = _gallery(data, choose(totals, listed, examples))
    unusual = outliers.outliers(totals)
    notes = [f"{one.shard}: {one.quantity} {one.value:.3g}, the median is {one.median:.3g}" for one in unusual]
    return {
        "name": data.folder.rstrip("/").rpartition("/")[2] or data.folder,
        "tiles": stats_tables.totals(summary),
        "charts": [chart for chart in (_chart(summary, *named) for named in _CHARTS) if chart],
        "languages": summary.languages,
        "funnel": [dataclasses.asdict(step) for step in funnel.steps(summary)],
        "segments": summary.counts["segments"],
        "examples": summary.counts["examples"],
        "outcomes": [[kind, reason, n] for kind, counts in summary.outcomes.items() for reason, n in counts.items()],
        "problems": [{"where": "statistics", "what": problem} for problem in problems] + broken,
        "outliers": [dataclasses.asdict(outlier) for outlier in unusual],
        "gallery": drawn,
        "columns": ["shard", "examples", "MB", "problem"],
        "shards": [_row(row, [*problems, *notes]) for row in listed[:_MOST_SHARDS]],
    }


def _row(row: ShardRow, problems: Sequence[str]) -> list[Any]:
    files = [name for shard in (row.name, row.path) for name in (shard, stats_path(shard))]
    problem = next((text for text in problems if any(name and name in text for name in files)), "")
    return [row.name, row.examples, round(row.bytes / 1e6, 3), problem]


def _chart(summary: Summary, name: str, title: str, unit: str) -> dict[str, Any] | None:
    """Return a bar chart of a histogram: numbers in ascending order, names by frequency."""
    histogram = summary.histograms[name]
    if not histogram:
        return None
    if all(value.lstrip("-").isdigit() for value in histogram):
        items = sorted((int(value), n) for value, n in histogram.items())
        step = max(-(-(items[-1][0] - items[0][0] + 1) // _MOST_BARS), 1)
        binned: dict[int, int] = {}
        for value, n in items:
            binned[value // step * step] = binned.get(value // step * step, 0) + n
        return {"title": title, "unit": unit, "x": list(binned), "y": list(binned.values()), "numbers": len(binned) > 4}
    ranked = sorted(histogram.items(), key=lambda item: (-item[1], item[0]))[:_MOST_BARS]
    return {"title": title, "unit": unit, "x": [v for v, _ in ranked], "y": [n for _, n in ranked], "numbers": False}


def choose(totals: Sums, listed: Sequence[ShardRow], count: int) -> list[Place]:
    """Return the examples of the gallery: the worst ones by fault, then a random sample of all shards."""
    names = {row.name for row in listed}
    places = [
        Place(shard, record, (tag,))
        for fault, tag in _FAULTS.items()
        for _, shard, record in [place for place in totals.worst.get(fault, ()) if place[1] in names][:_MOST_WORST]
    ]
    starts = list(itertools.accumulate((row.examples for row in listed), initial=0))
    rng = generator(0, "report", "gallery")
    chosen = sorted(rng.choice(starts[-1], min(count, starts[-1]), replace=False).tolist()) if starts[-1] else []
    for number in chosen:
        shard = bisect.bisect_right(starts, number) - 1
        places.append(Place(listed[shard].name, number - starts[shard], ("sample",)))
    merged: dict[tuple[str, int], Place] = {}
    for place in places:
        known = merged.get((place.shard, place.record))
        tags = (*(known.tags if known else ()), *place.tags)
        merged[place.shard, place.record] = dataclasses.replace(place, tags=tags)
    return list(merged.values())[:count]


def _gallery(data: DataSet, places: Sequence[Place]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Return the rendered examples, and the errors of damaged ones."""
    drawn: list[dict[str, Any]] = []
    broken: list[dict[str, str]] = []
    if not places:
        return drawn, broken
    vocabulary, decode = _vocabulary(data), gallery.decoder(data.folder)
    budget = _PICTURE_BYTES // len(places)
    paths = {name: path for path, name in data.names.items()}
    for place in places:
        name, path = place.shard, paths[place.shard]
        try:
            payload = show.read_payload(path, place.record)
            drawn.append(gallery.entry(payload, (name, place.record), list(place.tags), vocabulary, decode, budget))
        except (RecordError, StorageError) as error:
            broken.append({"where": f"{name}, record {place.record}", "what": str(error)})
    return drawn, broken


def _vocabulary(data: DataSet) -> Vocabulary:
    return of_data(data.folder, data.manifest)


def one_example(data: DataSet, path: str, record: int, decode: Decode) -> dict[str, Any]:
    """Return the content of a page with a single example. Raises `RecordError` if it is damaged."""
    name = data.names[path]
    payload = show.read_payload(path, record)
    drawn = gallery.entry(payload, (name, record), [], _vocabulary(data), decode, _PICTURE_BYTES)
    empty = ("tiles", "charts", "funnel", "outcomes", "problems", "outliers", "columns", "shards")
    return {key: [] for key in empty} | {"name": f"{name}, record {record}", "gallery": [drawn]}


def render(content: dict[str, Any]) -> str:
    """Return the page: the template with the chart library and the content as JSON."""
    # The library is three megabytes of text and slow to import.
    from plotly.offline import get_plotlyjs

    template = resources.files("shards.inspection").joinpath("report.html").read_text(encoding="utf-8")
    # Escaped, so that no text can end the script element.
    embedded = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    before, _, rest = template.partition("/*PLOTLY*/")
    middle, _, after = rest.partition("/*CONTENT*/")
    return "".join([before, get_plotlyjs(), middle, embedded, after])
