"""Whether a data set of millions of videos can be made and looked after: CPU seconds and memory of what grows with it.

    python -m benchmarks.ops_scale [--ids 20000000] [--shards 100000] [--generations 20]

A data folder is simulated: a manifest of all shards, a real `stats.json` and the names of the ledger's parts for every
generation, a list of all ids, and shards that are empty files of the right size but for a real one in the first
generation. Each operation runs in a process of its own; its CPU seconds without imports and its largest resident memory
stand beside limits. An operation on a sample says so: its seconds are then those of the sample times its share. Those
that the runner spreads over workers are marked with a star. The elements of every stage that handles more of them for
a longer list are those of the samples times their share. The exit status is 1 if a limit is not kept.
"""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import numpy as np
import simplejpeg
import tyro
from apache_beam.metrics import monitoring_infos
from rich.console import Console
from rich.table import Table

from benchmarks.report import SEGMENTS, write_data
from ingest.id_lists import read_entries
from pipelines.preprocessing import graph, status_report
from pipelines.preprocessing.listing import list_of
from pipelines.preprocessing.options import PreprocessOptions
from pipelines.preprocessing.select_videos import SelectVideos
from shards.dataset import duplicates, generations, ledger, manifest, merging, planning, removal
from shards.dataset import location as dataset
from shards.dataset.ledger import Entry
from shards.dataset.manifest import Generation, Manifest, Shard, generation_stats_path, shard_name, stats_path
from shards.dataset.packing import Run
from shards.dataset.planning import Packing, Target
from shards.dataset.sums import Sums
from shards.dataset.video_store import VideoStore, VideoTable
from shards.inspection import card, report, stats
from shards.reading.source import Source
from shards.records.segments import Segment, VideoText

SHARD_BYTES = 128 << 20
EXAMPLES = 250
"""Examples in a shard of 128 MiB."""

VIDEO_SEGMENTS = 33
"""Segments of a usual video: nearly three minutes of speech."""

LEDGER_LINES = 50_000
SEED, VICTIM, TAG = 0, "video000007", "5b2e61"
SAMPLE = 100
"""One in so many ids is selected for the count of elements."""

ASSEMBLED = 400
STORED = 100_000
SUMMED = 1000
PLANNED = 200
KINDS = (("done", "extracted"), ("rejected", "no-captions"), ("rejected", "sparse-speech"), ("failed-final", "removed"))


@dataclass(frozen=True)
class Options:
    """How large the simulated data set is."""

    ids: int = 20_000_000
    """Videos with an outcome."""
    shards: int = 100_000
    """Shards of the manifest."""
    generations: int = 20
    """Generations, of equally many videos."""


@dataclass(frozen=True)
class Work:
    """The simulated folders: one of all generations, one for each, an empty one, and the lists."""

    root: str
    options: Options

    @property
    def data(self) -> str:
        """The folder of all generations."""
        return f"{self.root}/data"

    @property
    def shards_each(self) -> int:
        """Shards of a generation."""
        return self.options.shards // self.options.generations


@dataclass(frozen=True)
class Operation:
    """One row: what is done, by which function, within which seconds and gigabytes, for how many samples."""

    name: str
    run: Callable[[Work], str]
    seconds: float
    gigabytes: float
    times: float = 1


def name_of(number: int) -> str:
    """An id of eleven characters."""
    return f"id{number:09d}"


def entry(number: int) -> Entry:
    """A line of the ledger with the scores that a job writes."""
    kind, outcome = KINDS[number % len(KINDS)]
    scores = {
        **{"caption_kind": "asr-original", "caption_track": "en-orig", "duration": 93.4, "language": "en"},
        **{"language_probability": 0.9871, "words": 241, "words_per_30s": 88, "good_words": 0.9343},
        **{"length_variance": 3.712, "sound_peak": 18231.0, "segments": 18, "frames_black": 0},
    }
    return Entry(name_of(number), outcome, kind, "", scores, "train", 18, 93.4, 1.21, 1.7e9 + number / 100)


def sidecar(seed: int) -> dict:
    """What the sidecar of a full shard holds, all frames different."""
    rng, segments = np.random.default_rng(seed), EXAMPLES * SEGMENTS
    runs = [[[f"v{seed:03d}_{i:06d}", 0, SEGMENTS]] for i in range(EXAMPLES)]
    return {
        "plan": "0" * 64,
        **{"examples": EXAMPLES, "segments": segments, "tokens": segments * 20, "words": segments * 16 + seed},
        **{"silent": 1, "near_black": 1, "seconds": segments * 5.0, "runs": runs},
        **{name: [[value, 1 + segments // 40] for value in range(40)] for name in ("tokens_per_segment",)},
        **{"words_per_minute": [[10 * value, 100] for value in range(5, 45)], "speeds": [[1, segments]]},
        **{"image_sizes": [["512x288", segments]], "videos_per_example": [[1, EXAMPLES]]},
        **{"field_bytes": [["image", segments * 25_000]], "categories": [["Education", segments]]},
        "worst": {"words": [[i, 100 + i] for i in range(3)]},
        **{key: duplicates.encode(rng.integers(1, 2**63, segments).tolist()) for key in ("digests", "hashes")},
    }


def make(work: Work) -> None:
    """Simulate the folders."""
    options, root, each = work.options, Path(work.data), work.shards_each
    root.mkdir()
    write_data(work.data, 50, 4)
    (real,) = manifest.load(work.data).shards()
    victim = planning.shard_of(SEED, VICTIM, each)
    sums = Sums()
    sidecars = [sidecar(seed) for seed in range(20)]
    for number, content in enumerate(sidecars):
        (root / f"sidecar{number}").write_text(json.dumps(content))
        sums.add(Sums.of_shard(f"shard{number}", SHARD_BYTES, content))
    videos = options.ids // options.generations
    sums.add(Sums.of_items(map(entry, range(1000))))
    for outcome in sums.outcomes:
        sums.outcomes[outcome] = videos // len(KINDS)
    made = []
    for number in range(options.generations):
        names = [shard_name("train", number, i, each, TAG) for i in range(each)]
        claims = [Shard(name, EXAMPLES, SHARD_BYTES, f"{i:064x}") for i, name in enumerate(names)]
        for i, name in enumerate(names):
            with (root / name).open("wb") as file:
                file.truncate(SHARD_BYTES)
            if number == 0 or i == victim:
                os.link(root / f"sidecar{i % 20}", root / stats_path(name))
        if number == 0:
            for ending in (".tfrecord", ".index", ".stats.json"):
                (root / real.name.replace(".tfrecord", ending)).replace(
                    root / names[victim].replace(".tfrecord", ending)
                )
            claims[victim] = dataclasses.replace(real, name=names[victim])
        parts = -(-videos // LEDGER_LINES)
        waiting = [[name_of(number), 0, SEGMENTS - 1]]
        made.append(
            Generation(
                number,
                "train",
                videos // len(KINDS),
                each * EXAMPLES * SEGMENTS,
                claims,
                took=[number - 1] if number else [],
                remainder=waiting,
                ledger=parts,
            )
        )
        Path(generation_stats_path(work.data, made[-1])).write_text(sums.to_json())
    held = dataclasses.replace(manifest.load(work.data), generations=made)
    manifest.save(work.data, held)
    (root / "config.json").write_text(json.dumps({"video": {"seed": SEED}}))
    make_others(work, held)


def make_others(work: Work, held: Manifest) -> None:
    """A folder for each generation, the lists, a sample of the ledger, and the objects of a job that runs."""
    root, options = Path(work.root), work.options
    for generation in held.generations:
        folder = root / f"part-{generation.number:02d}"
        folder.mkdir()
        manifest.save(str(folder), dataclasses.replace(held, generations=[generation]))
        os.link(generation_stats_path(work.data, generation), generation_stats_path(str(folder), generation))
        os.link(root / "data" / "tokenizer.json", folder / "tokenizer.json")
    for name, count in (("all", options.ids), ("sample", options.ids // SAMPLE), ("few", 100)):
        with (root / name).open("w") as file:
            file.writelines(f"{name_of(number)}\n" for number in range(count))
    known = options.ids // SAMPLE // 2
    with (root / "ledger.jsonl").open("wb") as file:
        file.writelines(ledger.line(entry(number)) + b"\n" for number in range(known))
    store = VideoStore(f"{root}/running")
    status_report.note_start(f"{root}/running")
    for number in range(min(STORED, options.ids)):
        path = Path(store.path(name_of(number)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "empty").mkdir()
    os.link(root / "data" / "tokenizer.json", root / "empty" / "tokenizer.json")


def graph_bytes(out: str, ids: str) -> int:
    """Bytes of the graph of a job over a list on a folder."""
    pipeline = beam.Pipeline()
    graph.build(pipeline, PreprocessOptions(out, ids=ids), "config")
    return len(pipeline.to_runner_api().SerializeToString())


def build_graph(work: Work) -> str:
    """The whole list on the folder of all generations."""
    many = graph_bytes(work.data, f"{work.root}/all")
    few = graph_bytes(work.data, f"{work.root}/few")
    first = graph_bytes(f"{work.root}/empty", f"{work.root}/all")
    return f"{many:,} bytes, {few:,} for 100 ids; {first:,} on an empty folder"


def read_list(work: Work) -> str:
    """Read the sample of the list."""
    return f"{sum(1 for _ in read_entries(f'{work.root}/sample')):,} lines"


def select(work: Work) -> str:
    """Join the sample of the list with the sample of the ledger, in this process."""
    options = PreprocessOptions(f"{work.root}/empty", ids=f"{work.root}/sample")
    pipeline = beam.Pipeline(runner="DirectRunner")
    _ = pipeline | "Select videos" >> SelectVideos(list_of(options), None, (f"{work.root}/ledger.jsonl",), False)
    counted = run_counted(work, pipeline, SAMPLE)
    found = counted["Select videos/Leave out what earlier generations hold"]
    return f"{counted['Select videos/Read the list']:,} listed, {found:,} to look up"


def assemble(work: Work) -> str:
    """Make a generation of a sample of videos, half of them with segments, in this process."""
    out, segment = f"{work.root}/assembled", sample_segment()
    store = VideoStore(out)
    for number in range(ASSEMBLED):
        held = table(name_of(number), 0)
        done = number % 2 == 0
        held = held if done else dataclasses.replace(held, outcome="no-captions", kind="rejected")
        store.commit(held, [segment] * VIDEO_SEGMENTS if done else [])
    os.link(f"{work.data}/tokenizer.json", f"{out}/tokenizer.json")
    size = EXAMPLES * SEGMENTS * store.get(name_of(0)).spans[0][1]
    pipeline = beam.Pipeline(runner="DirectRunner")
    graph.build(pipeline, PreprocessOptions(out, ids="", stage="assemble", shard_bytes=size), "config")
    run_counted(work, pipeline, work.options.ids // ASSEMBLED)
    return f"{len(manifest.load(out).shards())} shards of {ASSEMBLED:,} videos"


def sample_segment() -> Segment:
    """A segment with small pictures."""
    rng = np.random.default_rng(0)
    grey = simplejpeg.encode_jpeg(rng.integers(0, 256, (64, 188, 1), dtype=np.uint8), colorspace="GRAY")
    frame = simplejpeg.encode_jpeg(rng.integers(0, 256, (16, 32, 3), dtype=np.uint8))
    words, times = np.arange(20, 40), np.arange(20, dtype=np.float32) / 4
    return Segment(0.0, 5.0, 1, frame, 32, 16, grey, 100.0, words, times, times)


def run_counted(work: Work, pipeline: beam.Pipeline, times: int) -> dict[str, int]:
    """Run a job on a sample; the elements of every stage times its share, which are also kept for the table."""
    names: dict[str, str] = {}
    for transform in pipeline.to_runner_api().components.transforms.values():
        for output in transform.outputs.values():
            # Of a transform and those inside it, the one below the stage's own name is the most telling.
            if names.get(output, "").count("/") != 1:
                names[output] = transform.unique_name
    result = pipeline.run()
    result.wait_until_finish()
    counted: dict[str, int] = {}
    for infos in result._monitoring_infos_by_stage.values():
        for info in infos:
            name = names.get(info.labels.get("PCOLLECTION", ""))
            if name and info.urn == monitoring_infos.ELEMENT_COUNT_URN:
                counted[name] = max(counted.get(name, 0), monitoring_infos.extract_counter_value(info) * times)
    with Path(work.root, "elements.jsonl").open("a") as file:
        # What is there once in a sample is there once in the whole.
        file.writelines(json.dumps(pair) + "\n" for pair in counted.items() if pair[1] > times)
    return counted


def tables_of(shard: int) -> list[VideoTable]:
    """The videos of a full shard, some of them short."""
    rng = np.random.default_rng(shard)
    lengths = rng.integers(1, 2 * VIDEO_SEGMENTS, EXAMPLES * SEGMENTS // VIDEO_SEGMENTS).tolist()
    return [table(f"v{shard:06d}{i:04d}", length) for i, length in enumerate(lengths)]


def table(video: str, length: int) -> VideoTable:
    """A video with so many segments."""
    spans = [(8 + 33_000 * i, 33_000, i) for i in range(length)]
    return VideoTable(VideoText(video, list(range(20)), [], [], "{}"), "config", "extracted", "done", spans=spans)


def packing() -> tuple[Target, Packing]:
    """The generation and the rules of the planned shards."""
    return Target("train", 0, TAG, 100_000), Packing(SEED, "config", SEGMENTS, SHARD_BYTES)


def plan_shards(work: Work) -> str:
    """Plan a sample of the shards, from packed tables as the shuffle brings them."""
    target, rules = packing()
    packed = [[held.pack() for held in tables_of(shard)] for shard in range(PLANNED)]
    examples = left = 0
    for shard, tables in enumerate(packed):
        plan, over = planning.plan_shard(shard, map(VideoTable.unpack, tables), target, rules)
        examples, left = examples + len(plan.groups), left + len(over)
    return f"{examples / PLANNED:.0f} examples a shard, {left / PLANNED:.1f} runs left over"


def plan_rest(work: Work) -> str:
    """Plan what all shards of one job over the whole list leave over: two short runs of each."""
    target, rules = packing()
    rng = np.random.default_rng(0)
    count = 2 * work.options.shards
    lengths = rng.integers(1, SEGMENTS // 2, count).tolist()
    left = ((Run(f"v{i}", 0, n), table(f"v{i}", VIDEO_SEGMENTS)) for i, n in enumerate(lengths))
    plans, remainder = planning.plan_rest([], left, target, rules)
    return f"{count:,} runs, {len(plans):,} shards, {sum(map(len, remainder))} segments wait"


def sum_sidecars(work: Work) -> str:
    """Add up a sample of the sidecars; the size of the sum at half and at the end."""
    found, sizes = Sums(), []
    for number in range(SUMMED):
        content = json.loads(Path(work.data, f"sidecar{number % 20}").read_bytes())
        found.add(Sums.of_shard(f"s{number}", SHARD_BYTES, content))
        if number + 1 in (SUMMED // 2, SUMMED):
            sizes.append(len(found.to_json()))
    return f"{sizes[0] / 1e3:,.0f} kB at half, {sizes[1] / 1e3:,.0f} kB at the end"


def open_data(work: Work) -> str:
    """Open the data set as a reader does."""
    return f"{Source(work.data).counts.size:,} shards"


def show_stats(work: Work) -> str:
    """The statistics from those of the generations."""
    found = stats.summarize(dataset.open_data(work.data))
    return f"{found.shards:,} sums, {sum(sum(c.values()) for c in found.outcomes.values()):,} videos"


def show_status(work: Work) -> str:
    """The report of the job."""
    return f"{status_report.report(work.data, time.time()).finished:,} videos"


def list_store(work: Work) -> str:
    """Count the objects of a job that runs, from a sample of them."""
    return f"{status_report.report(f'{work.root}/running', time.time()).in_store:,} objects"


def write_card(work: Work) -> str:
    """The data card."""
    return f"{Path(card.write(dataset.open_data(work.data))).stat().st_size:,} bytes"


def write_report(work: Work) -> str:
    """The page without its gallery, which `benchmarks.report` measures."""
    path = report.write(dataset.open_data(work.data), f"{work.root}/page", examples=0)
    return f"{Path(path).stat().st_size / 1e6:.1f} MB"


def commit(work: Work) -> str:
    """Add one more generation to the manifest."""
    held = manifest.load(work.data)
    last = dataclasses.replace(held.generations[-1], number=held.next_number())
    written = generations.commit(work.data, last, SEGMENTS, held.config, held.tokenizer)
    manifest.save(work.data, held)
    return f"{len(written.to_json()) / 1e6:.1f} MB of manifest"


def remove_video(work: Work) -> str:
    """Take one video out."""
    gone = removal.remove(work.data, [VICTIM])
    return f"{gone.shards} shard, {gone.examples} example"


def merge(work: Work) -> str:
    """Merge a folder for each generation, open the result and sum it up."""
    folders = dataset.data_folders(f"{work.root}/part-*")
    merging.write(f"{work.root}/merged", folders)
    opened = dataset.open_data(f"{work.root}/merged")
    return f"{len(opened.shards):,} shards of {len(folders)} folders, {stats.summarize(opened).shards:,} sums"


def operations(options: Options) -> list[Operation]:
    """The rows of the table."""
    sample = options.ids / min(STORED, options.ids)
    return [
        Operation("build the job's graph, three times", build_graph, 30, 1),
        Operation("read the list*", read_list, 600, 1, SAMPLE),
        Operation("select videos*", select, 7200, 4, SAMPLE),
        Operation("make a generation of a sample, by its real stages", assemble, 300, 2),
        Operation("plan all shards*", plan_shards, 3600, 1, options.shards / PLANNED),
        Operation("plan what they leave over", plan_rest, 600, 4),
        Operation("sum up all sidecars*", sum_sidecars, 3600, 0.5, options.shards / SUMMED),
        Operation("commit a generation", commit, 30, 1),
        Operation("open for reading", open_data, 30, 1),
        Operation("stats", show_stats, 30, 1),
        Operation("status", show_status, 30, 1),
        Operation("status while all videos are in the store", list_store, 300, 1, sample),
        Operation("card", write_card, 30, 1),
        Operation("report, without gallery", write_report, 30, 1),
        Operation("merge the generations' folders", merge, 60, 1),
        Operation("remove one video", remove_video, 120, 1),
    ]


def measured(operation: Operation, work: Work, results: multiprocessing.Queue) -> None:
    """Run an operation and send its CPU seconds, its memory and what it says; a failure takes forever."""
    begun = time.process_time()
    try:
        said = operation.run(work)
    except Exception as error:
        results.put((math.inf, 0.0, repr(error)))
        raise
    results.put(((time.process_time() - begun) * operation.times, peak_gigabytes(), said))


def peak_gigabytes() -> float:
    """The largest resident memory of this program, without that of the process that started it."""
    (line,) = [row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM")]
    return int(line.split()[1]) / 1e6


def element_table(work: Work) -> Table:
    """The elements of every stage whose number grows with the list, from the samples."""
    table = Table("stage", "elements")
    for row in Path(work.root, "elements.jsonl").read_text().splitlines():
        name, count = json.loads(row)
        if name.count("/") == 1:
            table.add_row(name, f"{count:,}")
    return table


def main() -> int:
    """Simulate, measure, print; 1 if a limit is not kept."""
    options, console = tyro.cli(Options, prog="python -m benchmarks.ops_scale"), Console()
    context, kept = multiprocessing.get_context("spawn"), True
    with tempfile.TemporaryDirectory() as root:
        work = Work(root, options)
        begun = time.perf_counter()
        make(work)
        console.print(f"simulated in {time.perf_counter() - begun:.0f} s")
        table = Table("operation", "CPU s", "limit", "GB", "limit", "result")
        for operation in operations(options):
            results = context.Queue()
            process = context.Process(target=measured, args=(operation, work, results))
            process.start()
            seconds, memory, said = results.get()
            process.join()
            console.print(f"{operation.name}: {seconds:,.1f} s, {memory:.2f} GB")
            within = seconds <= operation.seconds and memory <= operation.gigabytes
            kept = kept and within
            sample = f" (1/{operation.times:g})" if operation.times > 1 else ""
            limits = (f"{operation.seconds:g}", f"{memory:.2f}", f"{operation.gigabytes:g}")
            table.add_row(operation.name + sample, f"{seconds:,.1f}", *limits, said, style="" if within else "red")
        console.print(table)
        console.print(element_table(work))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
