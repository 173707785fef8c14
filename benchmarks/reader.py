"""How many examples the reader makes per CPU-second, beside a straightforward TensorFlow graph of the same arrays.

    python -m benchmarks.reader SHARD [--batches 30] [--rounds 3] [--workers 1 2]

All read the same shard again and again in batches of 8 with random zoom, all eight resize methods and bfloat16 images:
one reader with threads, one reader with worker processes, two readers side by side in processes of their own, which
show what a second core of this machine can give at all, and the obvious `tf.io`, `tf.image` and `tf.ragged` graph with
AUTOTUNE everywhere. CPU is that of all processes; the coordinator is the process that takes the batches. Rows are
measured in turns and their medians count, of the quiet rounds where there are any: those in which other processes used
less than a tenth of a core. The CPU time of each stage follows, and the distance to the cost of decoding the JPEG
pictures alone, which no reader can avoid.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from shards.arrays import audio, images
from shards.reader import PretrainingReader, ReaderConfig, StreamOptions
from shards.reading.pretraining import PretrainingParser
from shards.reading.vocabulary import published
from shards.records import tfrecord
from shards.records.pretraining import Example, parse_example
from shards.storage.randomness import generator

BATCH = 8
_QUIET = 0.1
CONFIG = ReaderConfig(random_text_spans=38, matching_audio_rate=0.5, image_dtype="bfloat16", audio_dtype="bfloat16")


@dataclass(frozen=True)
class Cost:
    """Milliseconds of CPU per example, of all processes and of the one that takes the batches; examples a second.

    `others` is how many cores other processes used.
    """

    cpu: float
    coordinator: float
    rate: float
    others: float


def measure(batches: Iterator, count: int, warm: int = 6) -> Cost:
    """The cost of `count` batches after `warm` others."""
    for _ in range(warm):
        next(batches)
    before = time.perf_counter(), time.process_time(), _cpu_of_children(), _cpu_of_all()
    for _ in range(count):
        next(batches)
    after = time.perf_counter(), time.process_time(), _cpu_of_children(), _cpu_of_all()
    wall, cpu, children, everyone = (b - a for a, b in zip(before, after, strict=True))
    examples, both = count * BATCH, cpu + children
    return Cost(both / examples * 1e3, cpu / examples * 1e3, examples / wall, (everyone - both) / wall)


def _cpu_of_children() -> float:
    times = [child.cpu_times() for child in psutil.Process().children()]
    return sum(one.user + one.system for one in times)


def _cpu_of_all() -> float:
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq + times.steal


def quiet(costs: list[Cost]) -> list[Cost]:
    """The rounds in which other processes left the cores alone."""
    return [cost for cost in costs if cost.others < _QUIET]


def median(costs: list[Cost]) -> Cost:
    """The median of every figure, over the quiet rounds if there are any."""
    fields = (field.name for field in dataclasses.fields(Cost))
    return Cost(*(statistics.median(getattr(cost, name) for cost in quiet(costs) or costs) for name in fields))


def ours(shard: str, batches: int, threads: int = 1, workers: int = 0) -> Cost:
    """The cost of our reader with so many threads, or worker processes."""
    config = dataclasses.replace(CONFIG, stream=StreamOptions(threads=threads, workers=workers))
    reader = PretrainingReader(shard, config, BATCH, seed=0)
    if _start is not None:
        next(reader)
        _start.wait()
    cost = measure(reader, batches)
    reader.close()
    return cost


_start = None
"""In a process that is measured beside others: the barrier at which they wait for each other."""


def _wait_at(barrier) -> None:
    global _start
    _start = barrier


def side_by_side(shard: str, batches: int, processes: int) -> Cost:
    """The cost of readers of one thread, each in a process of its own, at the same time: their rates together."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with ProcessPoolExecutor(processes, context, _wait_at, (barrier,)) as pool:
        jobs = [pool.submit(ours, shard, batches) for _ in range(processes)]
        costs = [job.result() for job in jobs]
    cpu, rate = statistics.mean(cost.cpu for cost in costs), sum(cost.rate for cost in costs)
    others = statistics.mean(cost.others for cost in costs) - cpu * rate / 1e3 * (processes - 1) / processes
    return Cost(cpu, cpu, rate, others)


def baseline(shard: str, config: ReaderConfig) -> Iterator:
    """The same arrays from a plain TensorFlow graph, with a fresh random draw for everything that is random."""
    import tensorflow as tf

    segments, rows, targets = config.segments, config.rows, config.targets
    height, width = config.grid[0] * config.patch_size, config.grid[1] * config.patch_size
    features = {}
    for i in range(segments):
        prefix = f"c{i:02d}/"
        for name in ("image/encoded", "spectrogram/encoded"):
            features[prefix + name] = tf.io.FixedLenFeature((), tf.string)
        for name in ("spectrogram/magic_number", "start_time", "end_time"):
            features[prefix + name] = tf.io.FixedLenFeature((), tf.float32)
        features[prefix + "playback_speed"] = tf.io.FixedLenFeature((), tf.int64)
        for name in ("tok_ids", "title", "description", "tags", "random_text"):
            features[prefix + name] = tf.io.VarLenFeature(tf.int64)
        for name in ("tok_start_times", "tok_end_times"):
            features[prefix + name] = tf.io.VarLenFeature(tf.float32)
    methods = ("area", "bicubic", "bilinear", "gaussian", "lanczos3", "lanczos5", "mitchellcubic", "nearest")

    def image(encoded):
        pixels = tf.image.convert_image_dtype(tf.io.decode_jpeg(encoded, channels=3), tf.float32)
        size = tf.shape(pixels)[:2]
        turned = tf.pad(tf.image.rot90(pixels), ((0, 0), (4, 4), (0, 0)), constant_values=0.5)
        pixels = tf.cond(3 * size[0] >= 4 * size[1], lambda: turned, lambda: pixels)
        size = tf.cast(tf.shape(pixels)[:2], tf.float32)
        factor = tf.random.uniform((), config.scale_min, config.scale_max)
        scale = tf.reduce_min(tf.floor(factor * (height, width)) / size)
        scaled = tf.cast(size * scale, tf.int32)
        branches = [lambda m=m: tf.image.resize(pixels, scaled, m, antialias=True) for m in methods]
        pixels = tf.switch_case(tf.random.uniform((), maxval=len(methods), dtype=tf.int32), branches)
        pixels = tf.clip_by_value(pixels, 0, 1)
        room = tf.cast(tf.maximum(scaled - (height, width), 0), tf.float32)
        corner = tf.cast(room * tf.random.uniform((2,)), tf.int32)
        pixels = pixels[corner[0] : corner[0] + height, corner[1] : corner[1] + width]
        pixels = tf.image.pad_to_bounding_box(pixels, 0, 0, height, width)
        patches = tf.reshape(pixels, (config.grid[0], config.patch_size, config.grid[1], config.patch_size, 3))
        return tf.reshape(tf.transpose(patches, (0, 2, 1, 3, 4)), (config.grid[0] * config.grid[1], -1))

    def sound(encoded, magic, speed):
        pixels = tf.transpose(tf.io.decode_jpeg(encoded, channels=1)[..., 0])
        draws = tf.cumsum(tf.random.uniform((config.subsegments + 1,)))
        slack = 188 - config.subsegments * config.audio_frames
        starts = tf.cast(slack * draws[:-1] / draws[-1], tf.int32) + config.audio_frames * tf.range(config.subsegments)
        clips = tf.gather(pixels, starts[:, None] + tf.range(config.audio_frames)[None])
        clips = tf.cast(clips, tf.float32) / magic
        last = tf.fill((config.subsegments, config.audio_frames, 1), tf.cast(speed, tf.float32))
        return tf.concat((clips, last), -1), (tf.cast(starts, tf.float32) + config.audio_frames / 2) * audio.HOP_SECONDS

    def sequence(tokens, kinds, mask, base):
        """Rows of text, masks or sound as one ragged tensor of (id, audio pointer, text pointer)."""
        target = tf.equal(kinds, 1)
        masked = tf.RaggedTensor.from_row_lengths(
            tf.tile(mask, [tf.reduce_sum(tf.cast(target, tf.int32))]), tf.where(target, tf.size(mask), 0)
        )
        heard = tf.where(tf.equal(kinds, 2), config.audio_tokens, 0)
        heard = tf.RaggedTensor.from_row_lengths(tf.fill([tf.reduce_sum(heard)], 5), heard)
        said = tf.ragged.boolean_mask(tokens, tf.ones_like(tokens, tf.bool) & tf.equal(kinds, 0)[:, None])
        merged = tf.concat((said, masked, heard), axis=1)
        row = merged.value_rowids()
        rank = tf.where(target, base + tf.cumsum(tf.cast(target, tf.int32)) - 1, -1)
        flat = tf.stack((merged.values, tf.cast(row, tf.int32), tf.gather(rank, row)), -1)
        parts = []
        for group in range(config.groups):
            part = tf.boolean_mask(flat, tf.equal(row // (rows // config.groups), group))[: config.text_length]
            parts.append(tf.pad(part, ((0, config.text_length - tf.shape(part)[0]), (0, 0))))
        return tf.stack(parts)

    def parse(record):
        held = tf.io.parse_single_example(record, features)
        pictures, clips, words, lengths, times = [], [], [], [], []
        for i in range(segments):
            prefix = f"c{i:02d}/"
            pictures.append(image(held[prefix + "image/encoded"]))
            magic, speed = held[prefix + "spectrogram/magic_number"], held[prefix + "playback_speed"]
            clip, centres = sound(held[prefix + "spectrogram/encoded"], magic, speed)
            clips.append(clip)
            middle = (held[prefix + "tok_start_times"].values + held[prefix + "tok_end_times"].values) / 2
            nearest = tf.argmin(tf.abs(middle[:, None] - centres), axis=1, output_type=tf.int32)
            nearest = tf.scan(tf.maximum, nearest)
            words.append(tf.cast(held[prefix + "tok_ids"].values, tf.int32))
            times.append(middle)
            lengths.append(tf.math.bincount(nearest, minlength=config.subsegments, maxlength=config.subsegments))
        spoken = tf.RaggedTensor.from_row_lengths(tf.concat(words, 0), tf.concat(lengths, 0))
        shuffled = tf.argsort(tf.random.uniform((rows,)))
        chosen = [tf.sort(shuffled[i * targets : (i + 1) * targets]) for i in range(2)]
        is_target = [tf.scatter_nd(c[:, None], tf.ones(targets, tf.int32), (rows,)) > 0 for c in chosen]
        beside = tf.roll(is_target[1], 1, 0) | tf.roll(is_target[1], -1, 0)
        beside &= tf.random.uniform((rows,)) < config.neighbour_text_rate
        kinds = tf.where(is_target[1], 1, tf.where(beside, 0, 2))
        spans = tf.concat([tf.gather(spoken, c) for c in chosen], 0).to_tensor(shape=(2 * targets, config.span_length))
        text = tf.cast(held["c00/random_text"].values[: config.sequence_length], tf.int32)
        pools = []
        for _ in range(segments):
            pools.append(tf.concat(([6], tf.fill([config.subsegments * config.audio_tokens], 5)), 0))
        header = [held["c00/" + name].values for name in ("title", "description", "tags")]
        matching = tf.concat((tf.cast(tf.concat(header, 0), tf.int32), *pools), 0)[: config.sequence_length]
        return {
            "images": tf.cast(tf.concat(pictures, 0), tf.bfloat16),
            "audio_clips": tf.cast(tf.concat(clips, 0), tf.bfloat16),
            "text2audio": sequence(spoken, tf.cast(is_target[0], tf.int32), [3, 4], 0),
            "audio2text": sequence(spoken, kinds, [3], targets),
            "text_spans": spans,
            "random_text": text,
            "audio_text_matching": tf.pad(matching, ((0, config.sequence_length - tf.size(matching)),)),
        }

    dataset = tf.data.TFRecordDataset(shard).repeat().shuffle(64)
    dataset = dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)
    return dataset.as_numpy_iterator()


def stages(payloads: list[bytes]) -> list[tuple[str, float]]:
    """Milliseconds of CPU per example of each stage alone, and of all of them in one thread."""
    examples = [parse_example(payload) for payload in payloads]
    parser = PretrainingParser(CONFIG, published())
    out = {name: np.zeros(shape, dtype) for name, (shape, dtype) in parser.spec().items()}
    still = PretrainingParser(dataclasses.replace(CONFIG, blank_images=True, blank_audio=True), published())
    pictures = [[images.turn(images.decode(p.segment.image)) for p in e.segments] for e in examples]
    patches = out["images"].view("uint16")[: CONFIG.grid[0] * CONFIG.grid[1]]
    target = (CONFIG.grid[0] * CONFIG.patch_size, CONFIG.grid[1] * CONFIG.patch_size)
    rng = generator(0, "benchmark")

    def resize(pixels: list) -> None:
        for image in pixels:
            place = images.place(*image.shape[:2], target, CONFIG.scaling, rng)
            images.write_patches(image, place, CONFIG.grid, CONFIG.patch_size, patches)

    def decode(example: Example) -> None:
        for placed in example.segments:
            images.decode(placed.segment.image)

    def hear(example: Example) -> None:
        for placed in example.segments:
            audio.decode(placed.segment.spectrogram)

    def streams(purpose: str):
        return generator(0, purpose)

    parsing = _per_item(parse_example, payloads)
    return [
        ("checksum", _per_item(tfrecord.masked_crc, payloads)),
        ("protobuf", parsing),
        ("JPEG decode", _per_item(decode, examples)),
        ("spectrogram decode", _per_item(hear, examples)),
        ("resize, crop, patches", _per_item(resize, pictures)),
        ("words, masks, sequences", _per_item(lambda p: still(p, streams, out), payloads) - parsing),
        ("all in one thread", _per_item(lambda p: parser(p, streams, out), payloads)),
    ]


def _per_item(work: Callable, items: list, rounds: int = 6) -> float:
    for item in items:
        work(item)
    begun = time.process_time()
    for _ in range(rounds):
        for item in items:
            work(item)
    return (time.process_time() - begun) / rounds / len(items) * 1e3


def main() -> None:
    """Print the comparison and the stages."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("shard", help="one shard file")
    options.add_argument("--batches", type=int, default=30, help="batches measured of each in a round")
    options.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts")
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of worker processes")
    chosen = options.parse_args()
    console = Console()
    with Path(chosen.shard).open("rb") as file:
        payloads = [payload for _, payload in tfrecord.scan(file, chosen.shard)]
    parts = stages(payloads)
    shard, batches = chosen.shard, chosen.batches
    kinds: dict[str, tuple[int, int, Callable[[], Cost]]] = {
        "one reader, 1 thread": (1, 0, lambda: ours(shard, batches, 1)),
        "one reader, 2 threads": (2, 0, lambda: ours(shard, batches, 2)),
        **{
            f"one reader, {n} worker{'s' * (n > 1)}": (0, n, lambda n=n: ours(shard, batches, workers=n))
            for n in chosen.workers
        },
        "two readers, 1 thread each": (2, 0, lambda: side_by_side(shard, batches, 2)),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in kinds}
    for _ in range(chosen.rounds):
        for name, (_, _, run) in kinds.items():
            costs[name].append(run())
    medians = {name: median(found) for name, found in costs.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    plain = measure(baseline(shard, CONFIG), batches)
    cores = len(os.sched_getaffinity(0))
    columns = ("", "threads", "workers", "CPU ms per example", "of it coordinator", "examples/s", "quiet rounds")
    table = Table(*columns, title=f"batches of {BATCH}, {cores} cores")
    for name, cost in medians.items():
        threads, workers, _ = kinds[name]
        coordinator = f"{cost.coordinator:.2f}" if workers else ""
        rounds = f"{len(quiet(costs[name]))} of {chosen.rounds}"
        table.add_row(name, str(threads), str(workers), f"{cost.cpu:.1f}", coordinator, f"{cost.rate:.1f}", rounds)
    table.add_row("tf graph", "AUTOTUNE", "0", f"{plain.cpu:.1f}", "", f"{plain.rate:.1f}", "")
    console.print(table)
    first = "one reader, 1 thread"
    for name, cost in medians.items():
        base = f"one reader, {chosen.workers[0]} worker" if "worker" in name else first
        base = base if base in costs else first
        if name != base:
            console.print(f"examples/s, {name} / {base}: {cost.rate / medians[base].rate:.2f}")
    console.print(f"CPU per example, tf graph / {first}: {plain.cpu / medians[first].cpu:.2f}")
    for name, cost in medians.items():
        if kinds[name][1]:
            console.print(f"coordinator of {name}: {cost.coordinator * 10:.1f} % of a core per 100 examples/s")
    console.print(f"peak memory with TensorFlow, without workers: {peak:.0f} MB")
    where = Table("stage", "CPU ms per example", title="where the time goes")
    for name, milliseconds in parts:
        where.add_row(name, f"{milliseconds:.2f}")
    console.print(where)
    decode = dict(parts)["JPEG decode"]
    console.print(f"times the cost of the JPEG decode: {medians[first].cpu / decode:.2f}")


if __name__ == "__main__":
    main()
