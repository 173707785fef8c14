"""What becomes of a job whose disk, bucket or machine fails, beside the same job left in peace.

    python -m benchmarks.faults [--videos 40] [--every 20] [--minutes 40]

Every row is a whole job on the same videos under one fault: a disk whose every flush takes up to 0.3 s, kills of the
job and all its processes every so many seconds with a restart after each, on the local runner and on a portable one, a
bucket that fails a quarter of all requests, an emulator that is ended and started again in the middle, and four writers
that commit generations to one manifest at once. A video is lost if it has no line in the ledger, or if a committed
segment of it is in no shard and does not wait for the next; it is there twice if a segment is in two places. "equal"
compares every byte of shards, indexes, sidecars and manifest with those of the quiet job. A row is printed when it is
known; what does not fit into the minutes is said so. The tests of faults run the same scenarios on a few videos.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import tyro

from benchmarks.ingest_scale import make_originals
from shards.dataset import generations, manifest
from shards.dataset.generations import waiting_runs
from shards.dataset.ledger import Ledger
from shards.dataset.manifest import Generation, stats_path
from shards.dataset.video_store import VideoStore
from shards.storage import filesystem, object_store
from shards.tokenizer import train_tokenizer
from tests.faults.portable import service
from tests.forked import Commands, Job
from tests.gcs.emulator import Emulator, Storm

SLOW_DISK = Path(__file__).parent.parent / "tests" / "faults" / "slow_disk.py"
COMPARED = (".tfrecord", ".index", ".stats.json", "manifest.json", "config.json")
WRITERS, EACH = 4, 10
MOST_KILLS = 15
"""Then a job is left alone, so that its row ends."""

STORM_WORKERS = 6
"""In a storm a worker mostly waits; with as many, 200 videos take minutes and not a quarter of an hour."""

ROW = "{:<40} {:<28} {:>6} {:>5} {:>5} {:>6} {:>6}"


@dataclass(frozen=True)
class Options:
    """How large the disturbed job is."""

    videos: int = 40
    """Videos of 30 s."""
    every: float = 20.0
    """Seconds between two kills."""
    minutes: float = 40.0
    """When to stop, whatever is not known then."""


class FaultError(Exception):
    """A job failed, or did not end in time; the message says which."""


@dataclass(frozen=True)
class Work:
    """The job: how it is started, its videos, its vocabulary, and when (`time.monotonic`) it must have ended."""

    commands: Commands
    videos: Path
    tokenizer: Path
    deadline: float

    @property
    def names(self) -> set[str]:
        """The ids of the videos."""
        return {path.stem for path in self.videos.glob("*.mp4")}

    def start(self, out: str, *more: str, **options: object) -> Job:
        """Start the whole job over the videos; see `Commands.start` for `options`."""
        return self.commands.start(
            "pipelines.preprocess",
            *("--videos", self.videos, "--out", out),
            *("--tokenizer", self.tokenizer, "--timing-model", "none", "--segments-per-example", "4"),
            *("--shard-bytes", "500000", "--min-words-per-30s", "None", "--min-language-probability", "None"),
            *("--min-good-words", "None", *more),
            **options,
        )

    def finish(self, job: Job) -> None:
        """Wait until a job ends by itself. Raises `FaultError` if it fails or does not in time."""
        try:
            ran = job.wait(max(self.deadline - time.monotonic(), 0.0))
        except TimeoutError:
            raise FaultError("did not end in time") from None
        if ran.status:
            raise FaultError(f"failed: {ran.err.strip()[-300:]}")


@dataclass(frozen=True)
class Audit:
    """What a data set holds: videos, those with a segment in no place and in two, and the compared bytes by name."""

    videos: int
    lost: int
    twice: int
    content: dict[str, bytes]


def make_work(commands: Commands, root: Path, videos: int, minutes: float = 10.0) -> Work:
    """So many videos, all alike but for their names, to be done with in so many minutes."""
    make_originals(root / "videos", videos)
    tokenizer = root / "tokenizer.json"
    tokenizer.write_text(train_tokenizer(["word other"], 266).to_str())
    return Work(commands, root / "videos", tokenizer, time.monotonic() + 60 * minutes)


def audit(out: str, expected: Collection[str]) -> Audit:
    """Look every expected video up in the ledger, and its committed segments in the shards and in what waits."""
    held = manifest.load(out)
    places: Counter[tuple[str, int]] = Counter()
    for shard in held.shards():
        for group in json.loads(filesystem.read_bytes(stats_path(filesystem.join(out, shard.name))))["runs"]:
            places.update((video, i) for video, first, stop in group for i in range(first, stop))
    for split in held.splits():
        for run in waiting_runs(held, split):
            places.update((run.video_id, i) for i in range(run.first, run.stop))
    entries = Ledger(out).entries()
    lost = {e.id for e in entries.values() if not e.segments or any(not places[e.id, i] for i in range(e.segments))}
    twice = {video for (video, _), count in places.items() if count > 1}
    paths = [path for path in filesystem.list_files(out) if path.endswith(COMPARED)]
    content = {path.rpartition("/")[2]: filesystem.read_bytes(path) for path in paths}
    return Audit(len(entries), len(lost | (set(expected) - entries.keys())), len(twice), content)


def run_quietly(work: Work, out: str) -> str:
    """The job without a fault."""
    work.finish(work.start(out))
    return ""


def run_on_slow_disk(work: Work, out: str) -> str:
    """The job on a disk whose flushes wait."""
    work.finish(work.start(out, before=SLOW_DISK))
    return "every flush up to 0.3 s"


def run_through_kills(work: Work, out: str, every: float, portable: bool = False) -> str:
    """The job killed with all its processes and started again, until it ends by itself or was killed often enough.

    Where a machine is too slow to finish a single video or shard between two kills, the next pause is longer.
    """
    kills = finished = 0
    while True:
        with service(Path(f"{out}.log")) if portable else contextlib.nullcontext([]) as flags:
            job = work.start(out, *flags)
            if kills == MOST_KILLS or time.monotonic() > work.deadline or _ends_within(job, every):
                work.finish(job)
                return f"{kills} kills"
            for process in job.family():
                process.kill()
            job.kill()
        kills += 1
        before, finished = finished, _finished(out)
        every *= 1.0 if finished > before else 1.5


def _ends_within(job: Job, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while job.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    return job.poll() is not None


def _finished(out: str) -> int:
    """How many videos and shards are finished in a data folder."""
    return sum(1 for _ in VideoStore(out).paths()) + len(filesystem.list_files(out, ".stats.json"))


def run_through_storm(work: Work, out: str) -> str:
    """The job in a bucket that fails a quarter of all requests."""
    storm = Storm(int(os.environ["STORAGE_EMULATOR_HOST"].rpartition(":")[2]), 0.25)
    address = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{storm.port}"}
    try:
        work.finish(work.start(out, f"--direct_num_workers={STORM_WORKERS}", env=address))
    finally:
        storm.end()
    return f"{storm.failed} of {storm.failed + storm.passed} requests"


def run_through_restart(work: Work, out: str, emulator: Emulator) -> str:
    """The job in a bucket whose service goes away for five seconds as soon as something is committed.

    Raises `FaultError` if the job was over by then, and as `Work.finish`.
    """
    job = work.start(out)
    while not any(VideoStore(out).paths()):
        if job.poll() is not None or time.monotonic() > work.deadline:
            work.finish(job)
            raise FaultError("the job was over before the service could go away")
        time.sleep(0.2)
    emulator.stop()
    time.sleep(5)
    emulator.start()
    work.finish(job)
    return "5 s without the service"


@contextlib.contextmanager
def bucket(folder: Path | None = None) -> Iterator[tuple[str, Emulator]]:
    """A bucket that this process and those it starts find, and its emulator, in memory or on a folder."""
    emulator = Emulator(folder)
    before = {key: os.environ.get(key) for key in ("STORAGE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT", "NO_GCE_CHECK")}
    os.environ |= {"STORAGE_EMULATOR_HOST": emulator.address, "GOOGLE_CLOUD_PROJECT": "p", "NO_GCE_CHECK": "true"}
    object_store._client.cache_clear()
    try:
        httpx.post(f"{emulator.address}/storage/v1/b?project=p", json={"name": "bucket"}).raise_for_status()
        yield "gs://bucket", emulator
    finally:
        emulator.stop()
        object_store._client.cache_clear()
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


def commit_some(out: str, numbers: list[int]) -> None:
    """Commit generations without shards."""
    for number in numbers:
        generations.commit(out, Generation(number, "train", 1, 0, []), 4, "config", "tokenizer")


def race_for_manifest(out: str, each: int) -> tuple[int, int]:
    """Four processes commit so many generations each at once; how many were lost, and how many are there twice."""
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=commit_some, args=(out, list(range(first, WRITERS * each, WRITERS))))
        for first in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    counts = Counter(generation.number for generation in manifest.load(out).generations)
    return WRITERS * each - len(counts), sum(count > 1 for count in counts.values())


Row = Callable[[Work, Path], tuple[str, Audit]]
"""One row: what happened, and what the data set holds then. Raises `FaultError`."""


def _on_disk(run: Callable[[Work, str], str], work: Work, root: Path) -> tuple[str, Audit]:
    with tempfile.TemporaryDirectory(dir=root) as folder:
        return run(work, f"{folder}/data"), audit(f"{folder}/data", work.names)


def _in_storm(work: Work, root: Path) -> tuple[str, Audit]:
    del root
    with bucket() as (place, _):
        return run_through_storm(work, f"{place}/data"), audit(f"{place}/data", work.names)


def _with_restart(work: Work, root: Path) -> tuple[str, Audit]:
    with bucket(root / "objects") as (place, emulator):
        return run_through_restart(work, f"{place}/data", emulator), audit(f"{place}/data", work.names)


def _race(work: Work, root: Path) -> tuple[str, Audit]:
    del work, root
    with bucket() as (place, _):
        lost, twice = race_for_manifest(f"{place}/data", EACH)
        return f"{WRITERS * EACH} generations", Audit(0, lost, twice, {})


def rows(every: float) -> list[tuple[str, Row]]:
    """The rows of the table after the quiet job; `every` is in seconds."""
    kills = functools.partial(run_through_kills, every=every)
    portable = functools.partial(kills, portable=True)
    return [
        ("slow disk", functools.partial(_on_disk, run_on_slow_disk)),
        (f"killed every {every:g} s, local runner", functools.partial(_on_disk, kills)),
        (f"killed every {every:g} s, portable pool", functools.partial(_on_disk, portable)),
        ("storm of 429 and 5xx", _in_storm),
        ("object store restarted in the middle", _with_restart),
        ("four writers of one manifest", _race),
    ]


def show(fault: str, row: Row, work: Work, root: Path, quiet: Audit | None) -> Audit | None:
    """Run and print a row; what the data set holds, None if the job did not end well."""
    begun = time.monotonic()
    try:
        happened, found = row(work, root)
    except FaultError as error:
        print(ROW.format(fault, *[""] * 5, f"{time.monotonic() - begun:.0f}"), f" {error}", flush=True)
        return None
    compared = quiet is not None and found.content
    equal = ("yes" if found.content == quiet.content else "no") if compared else ""
    counts = (found.videos or "", found.lost, found.twice, equal, f"{time.monotonic() - begun:.0f}")
    print(ROW.format(fault, happened, *counts), flush=True)
    return found if equal != "no" and not (found.lost or found.twice) else None


def main() -> int:
    """Print the table; 1 if anything was lost, there twice, different or unfinished."""
    options = tyro.cli(Options, prog="python -m benchmarks.faults")
    print(ROW.format("fault", "what happened", "videos", "lost", "twice", "equal", "s"), flush=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Commands()) as commands:
        root = Path(folder)
        work = make_work(commands, root, options.videos, options.minutes)
        quiet = show("none", functools.partial(_on_disk, run_quietly), work, root, None)
        if quiet is None:
            return 1
        found = [show(fault, row, work, root, quiet) for fault, row in rows(options.every)]
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main())
