"""What it costs to look at data: statistics of many shards, verification per core, and the page.

    python -m benchmarks.report [--shards 10000] [--gallery 200]

Statistics read synthetic sidecars of shards that were never written. Verification reads one shard again and again; the
checks that no verification can do without, reading, CRC32C and two SHA-256 sums, are measured beside it, for frames of
two sizes because the rest of the cost is per segment. The page is that of a data set of large frames.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

from shards.dataset import duplicates, generation_sums, manifest
from shards.dataset import location as dataset
from shards.dataset.manifest import Generation, Manifest, Shard, generation_stats_path, shard_name, stats_path
from shards.dataset.packing import Run
from shards.dataset.writer import write_shard
from shards.inspection import outliers, report, stats, verify
from shards.records.pretraining import arrange
from shards.records.segments import Segment, VideoText
from shards.tokenizer import SMALLEST_VOCABULARY, train_tokenizer

SEGMENTS = 16


@dataclass(frozen=True)
class Options:
    """How large the cases are."""

    shards: int = 10_000
    """Synthetic shards whose statistics are added up."""
    examples: int = 4
    """Examples in each of them."""
    gallery: int = 200
    """Examples on the page."""


@dataclass(frozen=True)
class Cost:
    """Seconds of wall and of CPU."""

    wall: float
    cpu: float


def measure(work: Callable[[], object], times: int = 1) -> Cost:
    """The cost of `work`, once or on average."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        work()
    return Cost((time.perf_counter() - wall) / times, (time.process_time() - cpu) / times)


def picture(rng: np.random.Generator, height: int, width: int, detail: int) -> bytes:
    """A JPEG of soft noise; more `detail` gives more bytes."""
    noise = Image.fromarray(rng.integers(0, 256, (detail * 9, detail * 16, 3), dtype=np.uint8))
    out = io.BytesIO()
    noise.resize((width, height), Image.Resampling.BICUBIC).save(out, "JPEG", quality=75)
    return out.getvalue()


def spectrogram(rng: np.random.Generator) -> bytes:
    """A grey JPEG like those of the format."""
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (16, 47), dtype=np.uint8)).resize((188, 64)).save(out, "JPEG", quality=95)
    return out.getvalue()


def write_data(folder: str, examples: int, detail: int) -> None:
    """A data set of one shard with frames of 512x288."""
    rng = np.random.default_rng(0)
    tokenizer = train_tokenizer(["some words"], SMALLEST_VOCABULARY).to_str().encode()
    Path(folder, "tokenizer.json").write_bytes(tokenizer)
    groups, made = [], []
    for i in range(examples):
        times = np.sort(rng.random(20) * 5).astype(np.float32)
        segments = [
            Segment(
                start=5.0 * j,
                end=5.0 * j + 5,
                speed=1,
                image=picture(rng, 288, 512, detail),
                width=512,
                height=288,
                spectrogram=spectrogram(rng),
                magic=100.0,
                tokens=rng.integers(20, SMALLEST_VOCABULARY, 20),
                token_starts=times,
                token_ends=times,
            )
            for j in range(SEGMENTS)
        ]
        groups.append([Run(f"video{i:06d}", 0, SEGMENTS)])
        made.append(arrange([(VideoText(f"video{i:06d}"), segments)]))
    shard, _ = write_shard(folder, shard_name("train", 0, 0, 1), "plan", groups, made)
    held = Generation(0, "train", examples, SEGMENTS * examples, [shard])
    manifest.save(folder, Manifest(SEGMENTS, "", hashlib.sha256(tokenizer).hexdigest(), [held]))


def write_sidecars(folder: str, shards: int, examples: int) -> None:
    """Sidecars of shards of a usual shape, without the shards."""
    rng, claims, segments = np.random.default_rng(0), [], examples * SEGMENTS
    spread = {
        name: [[value * step, 1 + segments // 40] for value in range(5, 45)]
        for name, step in (("tokens_per_segment", 1), ("words_per_minute", 10))
    }
    for i in range(shards):
        claims.append(Shard(shard_name("train", 0, i, shards), examples, segments * 33_000, "0" * 64))
        hashes = [rng.integers(0, 2**63, segments, dtype=np.uint64).tolist() for _ in range(2)]
        content = {
            "plan": "0" * 64,
            "shard": vars(claims[-1]),
            **{"examples": examples, "segments": segments, "tokens": segments * 20, "words": segments * 16},
            **{"silent": 1, "near_black": 1, "seconds": segments * 5.0},
            "field_bytes": [["image", segments * 25_000], ["spectrogram", segments * 7_000]],
            **spread,
            **{"speeds": [[1, segments]], "image_sizes": [["512x288", segments]]},
            **{"videos_per_example": [[1, examples]], "categories": [["Education", segments]]},
            **{"digests": duplicates.encode(hashes[0]), "hashes": duplicates.encode(hashes[1])},
            "runs": [[[f"v{i:05d}_{j:04d}", 0, SEGMENTS]] for j in range(examples)],
        }
        Path(folder, stats_path(claims[-1].name)).write_text(json.dumps(content))
    held = Generation(0, "train", shards * examples, shards * segments, claims)
    manifest.save(folder, Manifest(SEGMENTS, "", "", [held]))


def measure_stats(console: Console, options: Options) -> None:
    """The statistics of many shards from their sidecars, as a removal sums them up again, and from those of the job."""
    with tempfile.TemporaryDirectory() as folder:
        write_sidecars(folder, options.shards, options.examples)

        opened = dataset.open_data(folder)
        (generation,) = opened.manifest.generations
        summed = measure(lambda: stats.sums_of(opened))
        content = generation_sums.read_generation(folder, generation).to_json()
        Path(generation_stats_path(folder, generation)).write_text(content)

        def work() -> None:
            found = stats.sums_of(dataset.open_data(folder))
            stats.summary_of(found, opened.manifest)
            outliers.outliers(found)

        read = measure(work)
    table = Table("statistics", "wall s", "CPU s", "limit s")
    for name, cost, limit in (("from sidecars", summed, ""), ("from the generation's file", read, "2")):
        table.add_row(f"{options.shards:,} shards, {name}", f"{cost.wall:.2f}", f"{cost.cpu:.2f}", limit)
    console.print(table)


def measure_verify(console: Console) -> None:
    """Megabytes a second of one core, beside the sums that must be made of every byte."""
    table = Table("verify", "kB per segment", "MB per CPU-s", "the sums alone", "limit")
    for name, detail in (("small frames", 4), ("usual frames", 14)):
        with tempfile.TemporaryDirectory() as folder:
            write_data(folder, 40, detail)
            opened = dataset.open_data(folder)
            (claim,) = opened.manifest.shards()
            (path,) = opened.shards
            content = Path(path).read_bytes()

            def sums(path: str = path) -> None:
                held = Path(path).read_bytes()
                google_crc32c.value(held)
                for _ in range(2):
                    hashlib.sha256(held).digest()

            def whole(path: str = path, claim: Shard = claim) -> None:
                if (found := verify.check_shard(path, claim, None)).findings:
                    raise SystemExit(f"the shard of the benchmark is not sound: {found.findings[0]}")

            whole()
            rates = [len(content) / 1e6 / measure(work, 10).cpu for work in (whole, sums)]
            size = len(content) / 40 / SEGMENTS / 1000
            table.add_row(name, f"{size:.1f}", *(f"{rate:,.0f}" for rate in rates), "300")
    console.print(table)


def measure_page(console: Console, options: Options) -> None:
    """Time and size of the page."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
        write_data(folder, options.gallery, 14)
        cost = measure(lambda: report.write(dataset.open_data(folder), out, options.gallery))
        size = Path(out, report.PAGE).stat().st_size / 1e6
    table = Table("page", "wall s", "CPU s", "limit s", "MB", "limit MB")
    name = f"{options.gallery} examples of {SEGMENTS} segments"
    table.add_row(name, f"{cost.wall:.1f}", f"{cost.cpu:.1f}", "30", f"{size:.1f}", "15")
    console.print(table)


def main() -> None:
    """Print the three tables."""
    options, console = tyro.cli(Options, prog="python -m benchmarks.report"), Console()
    measure_stats(console, options)
    measure_verify(console)
    measure_page(console, options)


if __name__ == "__main__":
    main()
