"""Decode frames and sound of a media file: the public interface of this package.

Time zero of video and sound is the start of the container. Frames are decoded one by one and sound is written to a
temporary file, so that memory does not grow with the length of a video.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from ingest.media.containers import MediaError, open_media
from ingest.media.extent import Probe, probe
from ingest.media.frames import frames
from ingest.media.pictures import Content, black_bars, encode_frame, target_size
from ingest.media.sound import MAX_SOUND_SECONDS, STATED_MARGIN_SECONDS, Sound, sound

__all__ = [
    "MAX_SOUND_SECONDS",
    "STATED_MARGIN_SECONDS",
    "Content",
    "MediaError",
    "Probe",
    "Sound",
    "black_bars",
    "encode_frame",
    "frames",
    "open_media",
    "probe",
    "read",
    "sound",
    "target_size",
]


def read(
    path: str, times: Sequence[float], sample_rate: int = 22_050
) -> tuple[list[UInt8[np.ndarray, "h w 3"] | None], Float32[np.ndarray, "samples"]]:
    """Read the frames at `times`, in seconds, and the sound of a small file.

    A frame is `None` for a time past the last one. Sound is mono in int16 units, and empty if there is none. Raises
    `MediaError` if the file cannot be opened or has no video stream.
    """
    order = sorted(range(len(times)), key=lambda i: times[i])
    sorted_frames = dict(zip(order, frames(path, [times[i] for i in order]), strict=True))
    with sound(path, sample_rate) as track:
        waveform = track.read(0, track.length).astype(np.float32)
    return [sorted_frames[i] for i in range(len(times))], waveform
