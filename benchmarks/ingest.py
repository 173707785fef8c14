"""Seconds of video per CPU-second: our way from a video to its segments, beside the published way.

    python -m benchmarks.ingest [--videos FOLDER] [--runs N]

The published way starts one ffmpeg for every frame, one for the sound, calls librosa for every spectrogram and Pillow
for the JPEGs. Both run in the same process tree on the same windows, in turn, with one BLAS thread; the figures are CPU
time of the process and its children, medians over the runs. The last tables show our stages one by one, what decoding
alone costs, and a 720p video where everything is decoded instead of sought.
"""

from __future__ import annotations

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import resource
import statistics
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import librosa
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from ingest import media, spectrogram, video
from ingest.ffmpeg import ffmpeg_path
from ingest.filters import FilterConfig
from ingest.models import check_config
from ingest.raw import RawVideo, from_folder, list_folder
from ingest.segmentation import Window, segment
from ingest.transcript import spoken_words
from shards import tokenizer
from shards.storage.fetch import FetchError
from shards.storage.randomness import generator

ROOT = Path(__file__).parent.parent
RATE = 22_050


@dataclass(frozen=True)
class Options:
    """The published way and ours on the same videos."""

    videos: str = str(ROOT / "tests" / "golden" / "data" / "videos")
    """A folder of videos with captions."""
    runs: int = 3
    """Runs of each way; the median counts."""


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of `work`, in this process and in those it starts."""

    def used() -> float:
        return sum(
            u.ru_utime + u.ru_stime
            for u in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
        )

    before = used()
    work()
    return used() - before


def published_way(path: str, windows: list[Window]) -> None:
    """One process per frame, one for the sound, librosa and Pillow for every segment."""
    frames = published_frames(path, windows)
    published_spectrograms(published_sound(path), windows)
    box = media.black_bars(frames)
    for frame in frames:
        media.encode_frame(frame, box)


def published_frames(path: str, windows: list[Window], *limit: str) -> list[np.ndarray]:
    """A frame per window, each from an ffmpeg of its own that is ended when its first frame has been read.

    That is what the published reader does. The process decodes on until it is ended, which `-frames:v 1` would spare.
    """
    with av.open(path) as container:
        width, height = container.streams.video[0].width, container.streams.video[0].height
    frames = []
    for window in windows:
        command = [ffmpeg_path(), "-nostdin", "-ss", f"{(window.start + window.end) / 2:.3f}", "-i", path]
        command += ["-threads", "4", "-r", "1", "-q:v", "2", *limit, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            raw = process.stdout.read(width * height * 3)
            process.stdout.close()
            process.terminate()
        frames.append(np.frombuffer(raw, np.uint8).reshape(height, width, 3))
    return frames


def published_sound(path: str) -> np.ndarray:
    """The whole track through an ffmpeg and a wav file."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"{folder}/sound.wav"
        command = [ffmpeg_path(), "-nostdin", "-i", path, "-ac", "1", "-ar", str(RATE), "-c:a", "pcm_s16le", target]
        subprocess.run(command, capture_output=True, check=True)
        with wave.open(target) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)
    return samples / max(np.abs(samples).max(), 1)


def published_spectrograms(samples: np.ndarray, windows: list[Window]) -> None:
    """librosa's mel spectrogram of every window, as a JPEG."""
    for window in windows:
        first, length = int(RATE * window.start), spectrogram.SAMPLES * window.speed
        piece = np.pad(samples[first : first + length], (0, max(0, first + length - len(samples))))
        mel = librosa.feature.melspectrogram(
            y=piece,
            sr=RATE,
            n_fft=1536 * window.speed,
            hop_length=588 * window.speed,
            window=np.hanning,
            pad_mode="reflect",
            power=2.0,
            n_mels=64,
            fmin=20.0,
            fmax=11_025.0,
        )
        spectrogram.encode(np.log(mel + 0.1) - np.log(0.1))


def windows_of(raw: RawVideo, config: video.VideoConfig) -> list[Window]:
    """The windows that a video is cut into."""
    words = spoken_words(raw, config.language, aligned=False, strict=False, repair=False).words
    return segment(words, media.probe(raw.media).duration, generator(config.seed, "segment", raw.id).random)


def usable_config() -> video.VideoConfig:
    """The published models where they are at hand, else a small vocabulary; what is measured does not depend on it."""
    rules = FilterConfig(min_words_per_30s=None)
    try:
        config = video.VideoConfig(filters=rules)
        check_config(config)
    except FetchError:
        path = Path(tempfile.mkdtemp()) / "tokenizer.json"
        path.write_text(tokenizer.train_tokenizer(["a video of speech"], tokenizer.SMALLEST_VOCABULARY).to_str())
        config = video.VideoConfig(
            tokenizer=str(path), timing_model="none", filters=FilterConfig(min_words_per_30s=None)
        )
    return config


def median_cpu(work: Callable[[], object], runs: int) -> float:
    """Median CPU seconds over some runs."""
    return statistics.median(cpu_seconds(work) for _ in range(runs))


def compare(raws: list[RawVideo], config: video.VideoConfig, runs: int) -> Table:
    """The two ways, run in turn."""
    length = sum(media.probe(raw.media).duration for raw in raws)
    cut = {raw.id: windows_of(raw, config) for raw in raws}

    def theirs() -> None:
        for raw in raws:
            published_way(raw.media, cut[raw.id])

    def ours() -> None:
        for raw in raws:
            result = video.process(raw, config)
            assert result.segments, result

    theirs(), ours()  # imports, kernels and the page cache
    pairs = [(cpu_seconds(theirs), cpu_seconds(ours)) for _ in range(runs)]
    table = Table("way", "CPU s", "video-s per CPU-s", "ratio", title=f"{len(raws)} videos, {length:.0f} s")
    a, b = statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)
    table.add_row("published way", f"{a:.2f}", f"{length / a:.0f}", "1.0")
    ratio = statistics.median(p[0] / p[1] for p in pairs)
    table.add_row("ours, captions to JPEGs", f"{b:.2f}", f"{length / b:.0f}", f"{ratio:.1f}")
    return table


def stages(raws: list[RawVideo], config: video.VideoConfig, runs: int) -> Table:
    """What each stage of ours costs, and what decoding everything would."""
    length = sum(media.probe(raw.media).duration for raw in raws)
    cut = {raw.id: windows_of(raw, config) for raw in raws}
    times = {raw.id: [(w.start + w.end) / 2 for w in cut[raw.id]] for raw in raws}
    held = {raw.id: list(media.frames(raw.media, times[raw.id])) for raw in raws}
    boxes = {raw.id: media.black_bars(held[raw.id]) for raw in raws}

    def sound(raw: RawVideo) -> None:
        with media.sound(raw.media):
            pass

    def null(raw: RawVideo) -> None:
        command = [ffmpeg_path(), "-nostdin", "-threads", "1", "-i", raw.media, "-f", "null", "-"]
        subprocess.run(command, capture_output=True, check=True)

    named: list[tuple[str, Callable[[RawVideo], object]]] = [
        ("words, rules, windows", lambda raw: (video.screen(raw, config), windows_of(raw, config))),
        ("frames: seek and decode", lambda raw: list(media.frames(raw.media, times[raw.id]))),
        ("frames: crop, resize, JPEG", lambda raw: [media.encode_frame(f, boxes[raw.id]) for f in held[raw.id]]),
        ("sound: decode and resample", sound),
        ("published way's frames", lambda raw: published_frames(raw.media, cut[raw.id])),
        ("published way's frames, -frames:v 1", lambda raw: published_frames(raw.media, cut[raw.id], "-frames:v", "1")),
        ("decode everything (ffmpeg, one thread)", null),
    ]
    table = Table("stage", "CPU s", "video-s per CPU-s", title="stage by stage")
    for name, work in named:
        cost = median_cpu(lambda work=work: [work(raw) for raw in raws], runs)
        table.add_row(name, f"{cost:.3f}", f"{length / cost:,.0f}")
    return table


def high_definition(runs: int) -> Table:
    """Frames of a 720p video by seeking, and by decoding all of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/hd.mp4"
        source = "testsrc2=size=1280x720:rate=30:duration=60"
        command = [ffmpeg_path(), "-nostdin", "-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "medium"]
        subprocess.run([*command, "-g", "60", "-pix_fmt", "yuv420p", path], capture_output=True, check=True)
        times = [2.5 + 5 * i for i in range(11)]

        def everything() -> None:
            command = [ffmpeg_path(), "-nostdin", "-threads", "1", "-i", path, "-f", "null", "-"]
            subprocess.run(command, capture_output=True, check=True)

        seek = median_cpu(lambda: list(media.frames(path, times)), runs)
        full = median_cpu(everything, runs)
    table = Table("way", "CPU s", "video-s per CPU-s", "ratio", title="60 s of 720p, 11 frames")
    table.add_row("decode everything", f"{full:.2f}", f"{60 / full:.0f}", "1.0")
    table.add_row("ours, seek", f"{seek:.2f}", f"{60 / seek:.0f}", f"{full / seek:.1f}")
    return table


def whole_job(folder: str, runs: int) -> Table:
    """The command from start to manifest, with Beam, two workers, commits and imports."""
    length = sum(media.probe(path).duration for path in list_folder(folder))
    count = len(list_folder(folder))

    def job() -> None:
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, "-m", "pipelines.preprocess", "--videos", folder, "--out", f"{out}/data"]
            subprocess.run([*command, "--segments-per-example", "4"], check=True, capture_output=True, cwd=ROOT)

    cost = median_cpu(job, runs)
    table = Table("", "CPU s", "CPU s per video", title=f"the whole job on {count} videos, {length:.0f} s")
    table.add_row("python -m pipelines.preprocess", f"{cost:.1f}", f"{cost / count:.2f}")
    return table


def main() -> int:
    """Print every table."""
    options = tyro.cli(Options)
    console = Console()
    config = usable_config()
    raws = [from_folder(path) for path in list_folder(options.videos)]
    raws = [raw for raw in raws if raw.captions]
    console.print(compare(raws, config, options.runs))
    console.print(stages(raws, config, options.runs))
    console.print(high_definition(options.runs))
    if config.tokenizer == tokenizer.PUBLISHED:
        console.print(whole_job(options.videos, 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
