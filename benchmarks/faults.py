"""What becomes of a job whose disk, bucket or machine fails, beside the same job left in peace.

    python -m benchmarks.faults [--videos 40] [--every 20]

Every row is a whole job on the same videos under one fault: a bucket that fails a quarter of all requests, a disk whose
every flush takes up to 0.3 s, kills of the job and all its processes every so many seconds with a restart after each,
on the local runner and on a portable one, an emulator that is ended and started again in the middle, and four writers
that commit generations to one manifest at once. A video is lost if a committed segment of it is in no shard and does
not wait for the next; twice if a segment is in two places. The last columns compare every byte of shards, indexes,
sidecars and manifest with those of the quiet job. The tests of faults run the same scenarios on a few videos.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.ingest_scale import make_originals
from shards import filesystem, generations, manifest, object_store
from shards.generations import GenerationPlan, Packing
from shards.ledger import Ledger
from shards.manifest import stats_path
from shards.tokenizer import train_tokenizer
from tests.faults.portable import end, service
from tests.gcs.emulator import Emulator, Storm

ROOT = Path(__file__).parent.parent
SLOW_DISK = ROOT / "tests" / "fixtures" / "slow_disk"
COMPARED = (".tfrecord", ".index", ".stats.json", ".videos", "manifest.json", "remainder.json", "config.json")
WRITERS = 4


@dataclass(frozen=True)
class Options:
    """How large the disturbed job is."""

    videos: int = 40
    """Videos of 30 s."""
    every: float = 20.0
    """Seconds between two kills."""


@dataclass(frozen=True)
class Work:
    """The job: its videos and its vocabulary."""

    videos: Path
    tokenizer: Path

    def command(self, out: str | Path, *more: str) -> list[str]:
        """The whole job over the videos."""
        return [
            *(sys.executable, "-m", "pipelines.preprocess", "--videos", str(self.videos), "--out", str(out)),
            *("--tokenizer", str(self.tokenizer), "--timing-model", "none", "--segments-per-example", "4"),
            *("--shard-bytes", "500000", "--min-words-per-30s", "None", "--min-language-probability", "None"),
            *("--min-good-words", "None", *more),
        ]


@dataclass(frozen=True)
class Audit:
    """What a data set holds: videos, those with a segment in no place and in two, and the compared bytes by name."""

    videos: int
    lost: int
    twice: int
    content: dict[str, bytes]


def make_work(root: Path, videos: int) -> Work:
    """So many videos, all alike but for their names."""
    make_originals(root / "videos", videos)
    tokenizer = root / "tokenizer.json"
    tokenizer.write_text(train_tokenizer(["word other"], 266).to_str())
    return Work(root / "videos", tokenizer)


def audit(out: str) -> Audit:
    """Look every committed segment up in the shards and in what waits."""
    held = manifest.load(out)
    places: Counter[tuple[str, int]] = Counter()
    for shard in held.shards():
        for group in json.loads(filesystem.read_bytes(stats_path(filesystem.join(out, shard.name))))["runs"]:
            places.update((video, i) for video, first, stop in group for i in range(first, stop))
    for split in held.splits():
        for run in generations.read_remainder(out, held, split):
            places.update((run.video_id, i) for i in range(run.first, run.stop))
    entries = Ledger(out).entries().values()
    lost = {e.id for e in entries if any(not places[e.id, i] for i in range(e.segments))}
    twice = {video for (video, _), count in places.items() if count > 1}
    paths = [path for path in filesystem.list_files(out) if path.endswith(COMPARED)]
    content = {path.rpartition("/")[2]: filesystem.read_bytes(path) for path in paths}
    return Audit(len(entries), len(lost), len(twice), content)


def finish(arguments: list[str], environment: dict[str, str] | None = None) -> None:
    """Run a job to its end. Raises `SystemExit` with what it said if it fails."""
    ended = subprocess.run(
        arguments, cwd=ROOT, env=os.environ | (environment or {}), capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(ended.stderr[-2000:])


def run_quietly(work: Work, out: str) -> str:
    """The job without a fault."""
    finish(work.command(out))
    return "none"


def run_on_slow_disk(work: Work, out: str) -> str:
    """The job on a disk whose flushes wait."""
    finish(work.command(out), {"PYTHONPATH": str(SLOW_DISK)})
    return "every flush up to 0.3 s"


def run_through_kills(work: Work, out: str, every: float, portable: bool = False) -> str:
    """The job killed with all its processes, again and again, and started again each time until it ends by itself.

    Where a machine is too slow to finish a single file between two kills, the next pause is longer.
    """
    kills, files = 0, 0
    while True:
        with contextlib.ExitStack() as stack:
            flags = stack.enter_context(service(Path(f"{out}.log"))) if portable else []
            job = subprocess.Popen(
                work.command(out, *flags), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            try:
                _, said = job.communicate(timeout=every)
            except subprocess.TimeoutExpired:
                kills += 1
                end(job)
                before, files = files, sum(len(names) for _, _, names in os.walk(out))
                every *= 1.0 if files > before else 1.5
                continue
        if job.returncode:
            raise SystemExit(said[-2000:])
        return f"{kills} kills"


def run_through_storm(work: Work, out: str) -> str:
    """The job in a bucket that fails a quarter of all requests."""
    storm = Storm(int(os.environ["STORAGE_EMULATOR_HOST"].rpartition(":")[2]), 0.25)
    try:
        finish(work.command(out), {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{storm.port}"})
    finally:
        storm.end()
    return f"{storm.failed} of {storm.failed + storm.passed} requests"


def run_through_restart(work: Work, out: str, emulator: Emulator) -> str:
    """The job in a bucket whose service goes away for five seconds as soon as something is committed."""
    job = subprocess.Popen(work.command(out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while job.poll() is None and not filesystem.list_files(filesystem.join(out, "ledger")):
        time.sleep(0.2)
    emulator.stop()
    time.sleep(5)
    emulator.start()
    _, said = job.communicate()
    if job.returncode:
        raise SystemExit(said[-2000:])
    return "5 s without the service"


@contextlib.contextmanager
def bucket(emulator: Emulator, name: str) -> Iterator[str]:
    """A new bucket that this process and those it starts find in the emulator."""
    httpx.post(f"{emulator.address}/storage/v1/b?project=p", json={"name": name}).raise_for_status()
    before = {key: os.environ.get(key) for key in ("STORAGE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT", "NO_GCE_CHECK")}
    os.environ |= {"STORAGE_EMULATOR_HOST": emulator.address, "GOOGLE_CLOUD_PROJECT": "p", "NO_GCE_CHECK": "true"}
    object_store._client.cache_clear()
    yield f"gs://{name}"
    object_store._client.cache_clear()
    for key, value in before.items():
        os.environ.pop(key) if value is None else os.environ.update({key: value})


def commit_some(out: str, numbers: list[int]) -> None:
    """Commit generations without shards, as jobs in waves commit theirs."""
    for number in numbers:
        plan = GenerationPlan(number, "train", [f"video{number}"], [], [], [])
        with filesystem.exclusive(filesystem.join(out, ".lock"), patience=300):
            held = manifest.load(out) if filesystem.exists(filesystem.join(out, manifest.NAME)) else None
            generations.commit_generation(out, held, plan, [], Packing(0, "config", 4, 1), "tokenizer")


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


def scenarios(work: Work, options: Options, root: Path) -> Iterator[tuple[str, str, Callable[[], str]]]:
    """Name, data folder and job of every row but the race; buckets are there while the row is worked on."""
    yield "slow disk", str(root / "slow"), lambda: run_on_slow_disk(work, str(root / "slow"))
    for name, portable in (("local runner", False), ("portable pool", True)):
        out = str(root / f"killed-{portable}")
        fault = f"killed every {options.every:g} s, {name}"
        yield fault, out, lambda out=out, portable=portable: run_through_kills(work, out, options.every, portable)
    with contextlib.closing(_Ended(Emulator())) as held, bucket(held.emulator, "storm") as place:
        yield "storm of 429 and 5xx", f"{place}/data", lambda: run_through_storm(work, f"{place}/data")
    with contextlib.closing(_Ended(Emulator(root / "objects"))) as held, bucket(held.emulator, "restart") as place:
        out = f"{place}/data"
        yield "emulator restarted", out, lambda: run_through_restart(work, out, held.emulator)


@dataclass(frozen=True)
class _Ended:
    """An emulator that ends with a block."""

    emulator: Emulator

    def close(self) -> None:
        """End it."""
        self.emulator.stop()


def main() -> int:
    """Print the table; 1 if anything was lost, there twice, or different."""
    options, console = tyro.cli(Options, prog="python -m benchmarks.faults"), Console()
    table = Table("fault", "what happened", "videos", "lost", "twice", "byte-equal", "s")
    sound = True
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        work = make_work(root, options.videos)
        begun = time.perf_counter()
        run_quietly(work, str(root / "quiet"))
        quiet = audit(str(root / "quiet"))
        table.add_row("none", "", str(quiet.videos), str(quiet.lost), str(quiet.twice), "", _since(begun))
        for fault, out, run in scenarios(work, options, root):
            begun = time.perf_counter()
            happened, seconds = run(), _since(begun)
            found = audit(out)
            equal = found.content == quiet.content
            sound = sound and equal and not (found.lost or found.twice)
            said = "yes" if equal else "no"
            table.add_row(fault, happened, str(found.videos), str(found.lost), str(found.twice), said, seconds)
            console.print(f"{fault}: {happened}, byte-equal: {said}, {seconds} s")
        with contextlib.closing(_Ended(Emulator())) as held, bucket(held.emulator, "race") as place:
            begun = time.perf_counter()
            lost, twice = race_for_manifest(f"{place}/data", 10)
            sound = sound and not (lost or twice)
            happened = f"{10 * WRITERS} generations"
            table.add_row("four writers of one manifest", happened, "", str(lost), str(twice), "", _since(begun))
    console.print(table)
    return 0 if sound else 1


def _since(begun: float) -> str:
    return f"{time.perf_counter() - begun:.0f}"


if __name__ == "__main__":
    sys.exit(main())
