"""Whether cost and memory stay in bounds: a very long video, and ten times as many videos.

    python -m benchmarks.ingest_scale [--hours 3] [--videos 50] [--times 10] [--only overhead]

The first table is the whole job on one long 1080p video with the duration rule off: the most memory that worker and
decoder held together at any moment, and the most disk. The second is the time of the whole job per video, for some
videos and for the same ones many times over under other names; the start of Beam is measured apart, on one video. The
third is what Beam, the ledger, the per-video store and the shards cost beside the work on videos of one minute, by one
worker (several are forks that this process does not wait for): all CPU time of the job but its start, and that of the
decoder according to the ledger.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import tyro
from rich.console import Console
from rich.table import Table

from ingest.ffmpeg import ffmpeg_path
from shards.dataset.ledger import Ledger
from shards.tokenizer import train_tokenizer

ROOT = Path(__file__).parent.parent
WORKER, DECODER = "pipelines.runner.local_workers", "pipelines.extraction.child"


@dataclass(frozen=True)
class Options:
    """How large the two cases are."""

    hours: float = 3.0
    """Length of the long video."""
    videos: int = 50
    """Videos of the small job."""
    times: int = 10
    """How many times as many the large one has."""
    only: Literal["long", "linearity", "overhead"] | None = None
    """Print only this table."""


def run_ffmpeg(*arguments: str) -> None:
    """Run ffmpeg quietly."""
    subprocess.run([ffmpeg_path(), "-nostdin", "-y", "-loglevel", "error", *arguments], check=True)


def captions(seconds: int) -> str:
    """Two words in every second, as an ASR track."""

    def stamp(at: float) -> str:
        return f"{int(at) // 3600:02d}:{int(at) // 60 % 60:02d}:{at % 60:06.3f}"

    cues = (
        f"{stamp(s)} --> {stamp(s + 0.99)} align:start position:0%\n \nword<{stamp(s + 0.5)}><c> other</c>\n"
        for s in range(1, seconds - 1)
    )
    return "WEBVTT\n\n" + "\n".join(cues)


def make_long(folder: Path, hours: float) -> None:
    """A 1080p video with sound: one minute, many times over."""
    minute = folder.parent / "minute.mp4"
    source = ["-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=30:duration=60", "-f", "lavfi"]
    encode = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "35", "-pix_fmt", "yuv420p", "-g", "150"]
    run_ffmpeg(*source, "-i", "sine=frequency=440:duration=60", *encode, "-c:a", "aac", "-shortest", str(minute))
    count = round(hours * 60)
    listing = folder.parent / "list.txt"
    listing.write_text(f"file '{minute}'\n" * count)
    run_ffmpeg("-f", "concat", "-safe", "0", "-i", str(listing), "-c", "copy", str(folder / "long.mp4"))
    minute.unlink()
    (folder / "long.en.vtt").write_text(captions(count * 60))


def make_many(folder: Path, originals: Path, times: int) -> None:
    """Every video of `originals` under so many names."""
    folder.mkdir()
    for path in sorted(originals.iterdir()):
        for copy in range(times):
            os.link(path, folder / f"{copy:03d}{path.name}")


def make_originals(folder: Path, count: int, seconds: int = 30) -> None:
    """So many videos with 360p pictures, sound and captions, all alike."""
    folder.mkdir()
    first = folder / "video000.mp4"
    source = ["-f", "lavfi", "-i", f"testsrc2=size=640x360:rate=25:duration={seconds}", "-f", "lavfi"]
    encode = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-shortest"]
    run_ffmpeg(*source, "-i", f"sine=frequency=440:duration={seconds}", *encode, str(first))
    for index in range(1, count):
        os.link(first, folder / f"video{index:03d}.mp4")
    for index in range(count):
        (folder / f"video{index:03d}.en.vtt").write_text(captions(seconds))


class Watch:
    """Looks at the memory of workers and their decoders, and at the size of folders, ten times a second."""

    def __init__(self, pid: int, *folders: str):
        self.pid, self.folders = pid, folders
        self.memory = self.worker = self.decoder = self.disk = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            worker, decoder = self._resident(WORKER), self._resident(DECODER)
            self.worker, self.decoder = max(self.worker, worker), max(self.decoder, decoder)
            self.memory = max(self.memory, worker + decoder)
            self.disk = max(self.disk, sum(map(_folder_bytes, self.folders)))

    def _resident(self, module: str) -> int:
        total = 0
        try:
            for child in psutil.Process(self.pid).children(recursive=True):
                if module in child.cmdline():
                    total += child.memory_info().rss
        except psutil.Error:
            return total
        return total

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()
        self._thread.join()


def _folder_bytes(folder: str) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(place, name).stat().st_size
            except OSError:
                continue
    return total


def job(videos: Path, out: Path, tokenizer: Path, *arguments: str) -> tuple[Watch, float, float]:
    """Run the whole job; what was seen of its memory, its wall time and its CPU time."""
    scratch = out.parent / f"{out.name}-tmp"
    scratch.mkdir()
    command = [sys.executable, "-m", "pipelines.preprocess", "--videos", str(videos), "--out", str(out)]
    command += ["--tokenizer", str(tokenizer), "--timing-model", "none", "--max-seconds", "None"]
    command += ["--min-words-per-30s", "None", "--min-language-probability", "None", "--min-good-words", "None"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    environment = os.environ | {"TMPDIR": str(scratch)}
    with subprocess.Popen([*command, *arguments], cwd=ROOT, env=environment, stderr=subprocess.PIPE) as process:
        watch = Watch(process.pid, str(out), str(scratch))
        _, said = process.communicate()
    watch.end()
    if process.returncode:
        raise SystemExit(said.decode()[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return watch, time.perf_counter() - started, cpu


def long_video(root: Path, hours: float, tokenizer: Path) -> Table:
    """Memory and disk of one long video."""
    videos = root / "long"
    videos.mkdir()
    make_long(videos, hours)
    size = (videos / "long.mp4").stat().st_size
    watch, seconds, _ = job(videos, root / "long-out", tokenizer, "--direct_num_workers=1", "--decode-seconds=3600")
    table = Table("", "peak MB", title=f"{hours:g} h of 1080p ({size / 1e6:,.0f} MB), {seconds:.0f} s")
    table.add_row("worker and decoder together", f"{watch.memory / 1e6:,.0f}")
    table.add_row("worker", f"{watch.worker / 1e6:,.0f}")
    table.add_row("decoder", f"{watch.decoder / 1e6:,.0f}")
    table.add_row("disk: output and temporary files", f"{watch.disk / 1e6:,.0f}")
    return table


def linearity(root: Path, count: int, times: int, tokenizer: Path) -> Table:
    """Time per video of a small and of a large job."""
    originals, many, one = root / "small", root / "many", root / "one"
    make_originals(originals, count)
    make_many(many, originals, times)
    make_originals(one, 1)
    arguments = ("--segments-per-example=4",)
    _, start, start_cpu = job(one, root / "one-out", tokenizer, *arguments)
    table = Table("videos", "wall s", "CPU s", "ms per video", "CPU ms per video", title="the whole job, start apart")
    table.add_row("1 (start)", f"{start:.1f}", f"{start_cpu:.1f}", "", "")
    for number, videos in ((count, originals), (count * times, many)):
        _, seconds, cpu = job(videos, root / f"{videos.name}-out", tokenizer, *arguments)
        each, cpu_each = (seconds - start) / (number - 1), (cpu - start_cpu) / (number - 1)
        table.add_row(str(number), f"{seconds:.1f}", f"{cpu:.1f}", f"{1e3 * each:.0f}", f"{1e3 * cpu_each:.0f}")
    return table


def overhead(root: Path, count: int, tokenizer: Path) -> Table:
    """What surrounds the work on videos of one minute, as a share of it."""
    some, one = root / "minutes", root / "minute"
    make_originals(some, count, 60)
    make_originals(one, 1, 60)
    arguments = ("--segments-per-example=4", "--direct_num_workers=1")
    spent = []
    for videos in (one, some):
        out = root / f"{videos.name}-out"
        _, _, cpu = job(videos, out, tokenizer, *arguments)
        spent.append((cpu, sum(entry.cpu_seconds for entry in Ledger(str(out)).entries().values())))
    total, work = (1e3 * (after - before) / (count - 1) for before, after in zip(*spent, strict=True))
    table = Table("videos of 60 s", "CPU ms per video", "of that decoding", "overhead", "limit", title="one worker")
    table.add_row(str(count), f"{total:.0f}", f"{work:.0f}", f"{(total - work) / work:.1%}", "10 %")
    return table


def main() -> int:
    """Print the tables."""
    options = tyro.cli(Options)
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tokenizer = root / "tokenizer.json"
        tokenizer.write_text(train_tokenizer(["word other"], 266).to_str())
        if options.only in (None, "long"):
            console.print(long_video(root, options.hours, tokenizer))
        if options.only in (None, "linearity"):
            console.print(linearity(root, options.videos, options.times, tokenizer))
        if options.only in (None, "overhead"):
            console.print(overhead(root, options.videos, tokenizer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
