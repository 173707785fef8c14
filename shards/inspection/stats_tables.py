"""The statistics of a data set as terminal tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from shards.inspection.outliers import Outlier
from shards.inspection.plain_table import PlainTable
from shards.inspection.stats import Summary

_MOST_ROWS = 12
_HISTOGRAMS = (
    ("speeds", "playback speed"),
    ("videos_per_example", "videos in an example"),
    ("image_sizes", "frame size"),
    ("categories", "category"),
    ("licences", "licence"),
    ("text_sources", "text sequences from"),
    ("groups", "groups evaluated"),
)


def tables(summary: Summary, unusual: Sequence[Outlier] = ()) -> list[Table]:
    """Return the totals, a table per histogram, and the outliers."""
    shown = [_totals(summary)]
    for name, title in _HISTOGRAMS:
        if summary.histograms[name]:
            shown.append(_histogram(title, summary.histograms[name]))
    if summary.languages:
        shown.append(_histogram("language", summary.languages))
    shown.append(_sizes(summary))
    if summary.outcomes:
        shown.append(_outcomes(summary))
    if unusual:
        shown.append(_outliers(unusual))
    return shown


def totals(summary: Summary) -> list[tuple[str, str]]:
    """Return the main statistics as (name, value) pairs."""
    counts = summary.counts
    segments = max(counts["segments"], 1)
    lines = [
        ("shards", f"{summary.shards:,} ({summary.bytes / 1e6:,.1f} MB)"),
        ("examples", f"{counts['examples']:,}"),
        ("segments", f"{counts['segments']:,}"),
        ("videos", f"{summary.videos:,}"),
        ("hours", f"{summary.seconds / 3600:,.2f}"),
        ("segments waiting", f"{summary.waiting:,} ({summary.utilisation:.2%} packed)"),
        ("words per minute", f"{60 * counts['words'] / max(summary.seconds, 1e-9):.0f}{_middle(summary)}"),
        ("tokens per segment", _spread(summary)),
        ("silent segments", f"{counts['silent']:,} ({counts['silent'] / segments:.1%})"),
        ("near-black frames", f"{counts['near_black']:,} ({counts['near_black'] / segments:.1%})"),
    ]
    frames = summary.duplicates
    if frames is None:
        lines.append(("duplicate frames", "not recorded, --recompute counts them"))
    else:
        lines.append(("duplicate frames", f"{frames.exact:,} ({frames.exact / segments:.1%}, byte for byte)"))
        lines.append(("near duplicates", f"{frames.near:,} ({frames.near / segments:.1%}, of another video's frames)"))
    return lines


def _totals(summary: Summary) -> Table:
    table = PlainTable("", "", title="data set", show_header=False)
    for name, value in totals(summary):
        table.add_row(name, value)
    return table


def _histogram(title: str, histogram: dict[str, int]) -> Table:
    table = PlainTable(title, "count", "share", title=None)
    ranked = sorted(histogram.items(), key=lambda item: -item[1])
    for value, count in ranked[:_MOST_ROWS]:
        table.add_row(value, f"{count:,}", f"{count / sum(histogram.values()):.1%}")
    if rest := sum(count for _, count in ranked[_MOST_ROWS:]):
        table.add_row(f"{len(ranked) - _MOST_ROWS} others", f"{rest:,}", f"{rest / sum(histogram.values()):.1%}")
    return table


def _sizes(summary: Summary) -> Table:
    table = PlainTable("field", "MB", "bytes per segment")
    for name, size in summary.histograms["field_bytes"].items():
        table.add_row(name, f"{size / 1e6:,.2f}", f"{size / max(summary.counts['segments'], 1):,.0f}")
    return table


def _outcomes(summary: Summary) -> Table:
    table = PlainTable("outcome", "reason", "videos")
    for kind, reasons in summary.outcomes.items():
        for reason, count in reasons.items():
            table.add_row(kind, reason, f"{count:,}")
    return table


def _outliers(unusual: Sequence[Outlier]) -> Table:
    table = PlainTable("outlier shard", "quantity", "value", "median")
    for outlier in unusual[:_MOST_ROWS]:
        table.add_row(outlier.shard, outlier.quantity, f"{outlier.value:,.3g}", f"{outlier.median:,.3g}")
    return table


def _middle(summary: Summary) -> str:
    if not summary.histograms["words_per_minute"]:
        return ""
    low, high = (summary.percentile("words_per_minute", share) for share in (0.05, 0.95))
    return f", 90 % of the segments between {low:.0f} and {high:.0f}"


def _spread(summary: Summary) -> str:
    mean = summary.counts["tokens"] / max(summary.counts["segments"], 1)
    low, median, high = (summary.percentile("tokens_per_segment", share) for share in (0.05, 0.5, 0.95))
    return f"mean {mean:.1f}, median {median:.0f}, 90 % between {low:.0f} and {high:.0f}"
