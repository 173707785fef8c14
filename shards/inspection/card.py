"""The data card: counts, sources, licences, the filter funnel, and the settings of a data set.

Its content is read from the manifest, the configuration, the sidecars and the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from shards.dataset.location import DataSet
from shards.dataset.manifest import Manifest
from shards.inspection import funnel, stats, stats_tables
from shards.inspection.stats import Summary
from shards.storage import filesystem
from shards.storage.errors import UsageError
from shards.storage.stored_config import CONFIG_NAME

NAME = "CARD.md"
_MOST_ROWS = 30


def write(data: DataSet) -> str:
    """Write the card next to the manifest and return its path.

    Raises `UsageError` without a manifest or for several folders, `ManifestError` naming a damaged sidecar.
    """
    if data.manifest is None:
        raise UsageError(f"{data.folder!r} has no manifest; a card describes a data folder")
    if data.several:
        raise UsageError(f"a card describes one folder; merge {', '.join(data.manifest.folders())} first")
    summary = stats.summarize(data)
    path = filesystem.join(data.folder, NAME)
    filesystem.put_bytes(path, card(data.manifest, _config(data.folder), summary).encode())
    return path


def card(manifest: Manifest, config: dict[str, Any], summary: Summary) -> str:
    """Return the card as Markdown; it depends on its arguments alone."""
    steps = [(step.name, step.left, step.lost) for step in funnel.steps(summary)]
    parts = [
        ("counts", _rows(("", ""), stats_tables.totals(summary))),
        ("splits", _rows(("generation", "split", "videos", "segments", "examples"), _generations(manifest))),
        (
            "sources",
            _histograms(summary, {"categories": "category"})
            + _named("language", summary.languages)
            + _histograms(summary, {"text_sources": "text (sequences)"}),
        ),
        ("licences", _histograms(summary, {"licences": "licence, as the videos' metadata state it (segments)"})),
        ("filter funnel", _rows(("step", "remaining", "rejected"), steps)),
        ("settings", _rows(("", ""), _digests(manifest)) + _settings(config)),
    ]
    written = [f"\n## {title.capitalize()}\n\n{body.strip() or 'Not recorded.'}\n" for title, body in parts]
    return "# Data card\n" + "".join(written)


def _generations(manifest: Manifest) -> list[tuple[object, ...]]:
    return [
        (f"{g.number} of {g.folder}" if g.folder else g.number, g.split, g.videos, g.segments, g.examples)
        for g in manifest.generations
    ]


def _digests(manifest: Manifest) -> list[tuple[str, str]]:
    return [
        ("segments per example", str(manifest.segments_per_example)),
        ("SHA-256 of the configuration", manifest.config),
        ("SHA-256 of the vocabulary", manifest.tokenizer),
    ]


def _settings(config: dict[str, Any]) -> str:
    return f"\n```json\n{json.dumps(config, indent=1)}\n```\n" if config else ""


def _histograms(summary: Summary, names: dict[str, str]) -> str:
    return "\n".join(_named(title, summary.histograms[name]) for name, title in names.items())


def _named(title: str, counts: dict[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_ROWS]
    return "\n" + _rows((title, "count"), ranked) if ranked else ""


def _rows(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """Return a Markdown table; empty without rows."""
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines]) + "\n"


def _cell(value: object) -> str:
    """Return the text of a table cell with Markdown and HTML escaped; it may come from a video's metadata."""
    text = f"{value:,}" if isinstance(value, int) else str(value)
    for mark, escaped in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("`", "&#96;"), ("[", "&#91;")):
        text = text.replace(mark, escaped)
    return " ".join(text.split())


def _config(folder: str) -> dict[str, Any]:
    path = filesystem.join(folder, CONFIG_NAME)
    if not filesystem.exists(path):
        return {}
    try:
        config = json.loads(filesystem.read_bytes(path))
    except ValueError:
        raise UsageError(f"{path!r} is not JSON; restore or remove it") from None
    return config if isinstance(config, dict) else {}
