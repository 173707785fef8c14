"""Media whose right answers are known: frames that carry their number, and clicks at known times.

A frame shows its number as ten vertical bars, bit b being bar b from the left; the sound has clicks of 1 kHz and 50 ms.
"""

from __future__ import annotations

import io
import subprocess
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from ingest.ffmpeg import ffmpeg_path

RATE = 10
"""Pictures a second."""

SECONDS = 12
CLICKS = (2.0, 5.0, 9.0)
WIDTH, HEIGHT = 160, 96
SOUND_RATE = 48_000
CLICK_SECONDS = 0.05
WINDOW = 22_050

H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25")
H264_B = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-pix_fmt", "yuv420p", "-g", "40", "-threads", "1")
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "4", "-bf", "2", "-g", "12", "-r", "25")
AAC = ("-c:a", "aac")


def ffmpeg(*arguments: object, data: bytes | None = None) -> bytes:
    """Run ffmpeg and return what it wrote to its standard output."""
    command = [ffmpeg_path(), "-nostdin", "-y", "-v", "error", *map(str, arguments)]
    if data is not None:
        command.remove("-nostdin")
    return subprocess.run(command, check=True, input=data, stdout=subprocess.PIPE, timeout=120).stdout


def picture(number: int) -> np.ndarray:
    """The grey picture of a number, `uint8 [h, w]`."""
    bars = [200 if number >> bit & 1 else 40 for bit in range(10)]
    return np.tile(np.repeat(np.array(bars, np.uint8), WIDTH // 10), (HEIGHT, 1))


def number(frame: np.ndarray | None) -> int | None:
    """The number that a frame shows."""
    if frame is None:
        return None
    height, width = frame.shape[:2]
    row = frame[height // 4 : 3 * height // 4].reshape(height // 2, width, -1).mean(axis=(0, 2))
    return sum(int(row[int((bit + 0.5) * width / 10)] > 120) << bit for bit in range(10))


def click_times(waveform: np.ndarray, rate: int = WINDOW) -> list[float]:
    """When clicks start, in seconds."""
    loud = np.flatnonzero(np.abs(waveform) > 0.3 * max(np.abs(waveform).max(initial=0), 1000))
    return [float(loud[i]) / rate for i in range(len(loud)) if i == 0 or loud[i] - loud[i - 1] > rate // 4]


def write_sources(folder: Path, seconds: int = SECONDS, clicks: Sequence[float] = CLICKS) -> None:
    """Write `pictures.mkv` (lossless) and `clicks.wav`."""
    raw = b"".join(picture(n).tobytes() for n in range(RATE * seconds))
    size = ("-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{WIDTH}x{HEIGHT}", "-r", RATE)
    ffmpeg(*size, "-i", "-", "-c:v", "ffv1", folder / "pictures.mkv", data=raw)
    samples = np.zeros(SOUND_RATE * seconds, np.int16)
    tone = 12_000 * np.sin(2 * np.pi * 1000 * np.arange(int(SOUND_RATE * CLICK_SECONDS)) / SOUND_RATE)
    for click in clicks:
        first = int(click * SOUND_RATE)
        samples[first : first + len(tone)] = tone
    with wave.open(str(folder / "clicks.wav"), "wb") as file:
        file.setparams((1, 2, SOUND_RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())


@dataclass(frozen=True)
class Film:
    """One generated file: how it is made, and what is right for it.

    `clicks` are seconds from the start of the container. `first` is the number shown at time zero if the first picture
    is there; `sought` says that `ffmpeg -ss` itself is exact in this container.
    """

    name: str
    build: Callable[[Path, Path], object]
    clicks: Sequence[float] = CLICKS
    first: int = 0
    end: float = SECONDS
    sought: bool = True
    late: float = 0.0
    times: Sequence[float] = field(default=(0.0, 0.3, 2.0, 2.5, 4.96, 7.55, 7.6, 9.99, 11.2))


def encoded(*arguments: object, before: Sequence[object] = ()) -> Callable[[Path, Path], object]:
    """Encode both sources, with ffmpeg's options before the inputs and behind them."""

    def build(sources: Path, target: Path) -> None:
        inputs = ("-i", sources / "pictures.mkv", "-i", sources / "clicks.wav", "-map", "0:v", "-map", "1:a")
        ffmpeg(*before, *inputs, *arguments, target)

    return build


def shifted(stream: str, seconds: float, *arguments: object) -> Callable[[Path, Path], object]:
    """Encode the sources, the picture (`v`) or the sound (`a`) so much later."""

    def build(sources: Path, target: Path) -> None:
        late = ("-itsoffset", seconds)
        picture = (*(late if stream == "v" else ()), "-i", sources / "pictures.mkv")
        sound = (*(late if stream == "a" else ()), "-i", sources / "clicks.wav")
        ffmpeg(*picture, *sound, "-map", "0:v", "-map", "1:a", *arguments, target)

    return build


def cut(start: float) -> Callable[[Path, Path], object]:
    """Copy an MP4 from `start` on, which leaves an edit list that hides what comes before it."""

    def build(sources: Path, target: Path) -> None:
        whole = target.with_suffix(".whole.mp4")
        encoded(*H264_B, *AAC)(sources, whole)
        ffmpeg("-ss", start, "-i", whole, "-c", "copy", target)

    return build


def joined(second: Sequence[object], first: Sequence[object] = ()) -> Callable[[Path, Path], object]:
    """Join two transport streams byte by byte, as a recorder does: seconds 0 to 6, and the rest, with more options."""

    def build(sources: Path, target: Path) -> None:
        halves = []
        for i, (start, more) in enumerate(((0, first), (6, second))):
            half = target.with_suffix(f".{i}.ts")
            inputs = [
                x for name in ("pictures.mkv", "clicks.wav") for x in ("-ss", start, "-t", 6, "-i", sources / name)
            ]
            ffmpeg(*inputs, "-map", "0:v", "-map", "1:a", *H264, "-c:a", "ac3", "-muxdelay", 0, *more, half)
            halves.append(half.read_bytes())
        target.write_bytes(b"".join(halves))

    return build


def streamed(*arguments: object) -> Callable[[Path, Path], object]:
    """Write to a pipe, as a browser does, so that nothing can be stated afterwards."""

    def build(sources: Path, target: Path) -> None:
        inputs = ("-i", sources / "pictures.mkv", "-i", sources / "clicks.wav", "-map", "0:v", "-map", "1:a")
        target.write_bytes(ffmpeg(*inputs, *arguments, "-"))

    return build


VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "30")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "30")
LOST = ("-bsf:a", "noise=drop=between(pts*tb\\,5.5\\,7.5)")
"""Packets of sound missing between two clicks."""

FILMS = (
    Film("h264-aac.mp4", encoded(*H264, *AAC)),
    Film("h264-b-frames-aac.mp4", encoded(*H264_B, *AAC)),
    Film("h264-pcm.mov", encoded(*H264, "-c:a", "pcm_s16le")),
    Film("fragmented.mp4", encoded(*H264, *AAC, "-movflags", "frag_keyframe+empty_moov")),
    Film("mpeg4-mp3.mp4", encoded("-c:v", "mpeg4", "-bf", 2, "-g", 30, "-c:a", "libmp3lame")),
    Film("h264-aac.mkv", encoded(*H264_B, *AAC)),
    Film("mpeg4-ac3.mkv", encoded("-c:v", "mpeg4", "-g", 30, "-c:a", "ac3")),
    Film("mpeg2-pcm.mkv", encoded(*MPEG2, "-c:a", "pcm_s16le")),
    Film("vp8-vorbis.webm", encoded(*VP8, "-c:a", "vorbis", "-ac", 2, "-strict", -2)),
    Film("vp9-opus.webm", encoded(*VP9, "-c:a", "libopus")),
    Film("without-duration.webm", streamed(*VP8, "-c:a", "libopus", "-f", "webm", "-live", 1)),
    Film("h264-aac.ts", encoded(*H264, "-g", 50, *AAC), sought=False),
    Film("mpeg2-mp2.ts", encoded(*MPEG2, "-c:a", "mp2"), sought=False),
    Film("mpeg2-mp2.mpg", encoded(*MPEG2, "-c:a", "mp2"), sought=False),
    Film("mpeg4-mp3.avi", encoded("-c:v", "mpeg4", "-g", 30, "-c:a", "libmp3lame")),
    Film("mjpeg-pcm.avi", encoded("-c:v", "mjpeg", "-c:a", "pcm_s16le")),
    Film("h264-mp3.flv", encoded(*H264, "-c:a", "libmp3lame", "-ar", 44_100)),
    Film("h264-aac.flv", encoded(*H264, *AAC)),
    Film("starts-at-100.mp4", encoded(*H264, *AAC, "-output_ts_offset", 100)),
    Film("starts-at-100.mkv", encoded(*H264, *AAC, "-output_ts_offset", 100)),
    Film(
        "starts-before-zero.mp4",
        encoded(*H264_B, *AAC, "-avoid_negative_ts", "disabled", "-output_ts_offset", -0.5),
        clicks=[c - 0.5 for c in CLICKS],
        first=5,
        end=SECONDS - 0.5,
    ),
    Film("sound-late.mp4", shifted("a", 2, *H264, *AAC), clicks=[c + 2 for c in CLICKS]),
    Film("sound-late.mkv", shifted("a", 2, *H264, "-c:a", "libopus"), clicks=[c + 2 for c in CLICKS]),
    Film("sound-late.ts", shifted("a", 2, *H264, *AAC), clicks=[c + 2 for c in CLICKS], sought=False),
    Film("picture-late.mkv", shifted("v", 1.5, *H264, *AAC), late=1.5),
    Film("picture-late.mp4", shifted("v", 1.5, *H264, *AAC), late=1.5),
    Film("sound-gap.mp4", encoded(*H264, *AAC, *LOST)),
    Film("sound-gap.mkv", encoded(*H264, "-c:a", "libopus", *LOST)),
    Film("sound-gap.ts", encoded(*H264, *AAC, *LOST), sought=False),
    Film("edit-list.mp4", cut(1.3), clicks=[c - 1.3 for c in CLICKS], first=13, end=SECONDS - 1.3),
    Film("clock-restarts.ts", joined(("-output_ts_offset", 20_000)), sought=False),
    Film("clock-restarts-earlier.ts", joined((), ("-output_ts_offset", 20_000)), sought=False),
    Film("clock-wraps.ts", encoded(*H264, "-c:a", "ac3", "-output_ts_offset", 95_437), sought=False),
    Film(
        "layout-changes.ts",
        joined(("-output_ts_offset", 6, "-ac", 2), ("-ac", 6)),
        sought=False,
    ),
    Film(
        "overlap.ts",
        joined(("-output_ts_offset", 5.2)),
        clicks=[2.0, 5.0, 8.2],
        sought=False,
        times=(0.0, 2.5, 4.96),
    ),
    Film(
        "drifts.mkv",
        encoded(*H264, *AAC, "-bsf:a", "setts=pts=PTS*1.01:dts=DTS*1.01:duration=DURATION"),
        clicks=[c * 1.01 for c in CLICKS],
    ),
    Film("rate-changes.ts", joined(("-output_ts_offset", 6, "-ar", 44_100)), sought=False),
)


def decoded_truth(path: Path, times: Sequence[float]) -> list[int | None]:
    """The number shown by the first frame not before each time, ffmpeg decoding everything in one go."""
    everything = ("-map", "0:v:0", "-fps_mode", "passthrough", "-c:v", "ffv1", "-f", "matroska")
    whole = ffmpeg("-i", path, *everything, "-avoid_negative_ts", "disabled", "-")
    with av.open(io.BytesIO(whole)) as container:
        shown = [(f.time, number(f.to_ndarray(format="gray"))) for f in container.decode(video=0)]
    # Matroska rounds to milliseconds.
    return [next((n for at, n in shown if at >= time - 0.0006), None) for time in times]


def sought_truth(path: Path, time: float) -> int | None:
    """The number of the frame that `ffmpeg -ss` shows first."""
    raw = ffmpeg("-ss", f"{time:.3f}", "-i", path, "-frames:v", 1, "-f", "rawvideo", "-pix_fmt", "gray", "-")
    return number(np.frombuffer(raw, np.uint8).reshape(HEIGHT, WIDTH)) if raw else None
