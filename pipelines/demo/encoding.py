"""Encode frames and audio as an mp4 file with H.264 and AAC, with reproducible bytes for the same ffmpeg.

The frames are piped into ffmpeg one at a time, so only the audio and one frame are in memory.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import wave
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ingest.ffmpeg import ffmpeg_path

_KEY_FRAME_SECONDS = 2
_FINISH_SECONDS = 120  # how long ffmpeg may take after the last frame


class EncodingError(RuntimeError):
    """ffmpeg could not write the file; the message includes its error output."""


def encode(path: Path, frames: Iterable[np.ndarray], fps: int, waveform: np.ndarray, rate: int) -> None:
    """Write `path` from frames `uint8 [height, width, 3]` (even sizes) and mono sound `float32 [n]` in [-1, 1].

    Raises `EncodingError`.
    """
    import ffmpeg

    iterator = iter(frames)
    first = next(iterator)
    height, width, _ = first.shape
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "sound.wav"
        _write_wave(sound, waveform, rate)
        picture = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=fps)
        settings = {
            "vcodec": "libx264",
            "preset": "veryfast",
            "crf": 27,
            "g": _KEY_FRAME_SECONDS * fps,
            "pix_fmt": "yuv420p",
            "acodec": "aac",
            "audio_bitrate": "64k",
            "aac_coder": "fast",  # the default one takes as long as encoding the video
            "threads": 1,
            "movflags": "+faststart",
            "map_metadata": -1,
            "fflags": "+bitexact",
            "flags:v": "+bitexact",
            "flags:a": "+bitexact",
        }
        output = ffmpeg.output(picture, ffmpeg.input(str(sound)), str(path), **settings)
        quiet = output.global_args("-hide_banner", "-loglevel", "error")
        process = quiet.run_async(cmd=ffmpeg_path(), pipe_stdin=True, pipe_stderr=True, overwrite_output=True)
        try:
            # A broken pipe means that ffmpeg has exited; its message is read below.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(first.tobytes())
                for frame in iterator:
                    process.stdin.write(frame.tobytes())
            _, message = process.communicate(timeout=_FINISH_SECONDS)
        except subprocess.TimeoutExpired:
            raise EncodingError(f"ffmpeg did not finish {path.name} in {_FINISH_SECONDS} s; run it again") from None
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            reason = message.decode(errors="replace").strip()[-500:]
            raise EncodingError(f"ffmpeg could not write {path.name}: {reason}")


def _write_wave(path: Path, waveform: np.ndarray, rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes())
