"""Determine the duration of a media file and the end of its video stream, from its header and its packets."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Stream

from ingest.media.containers import demux, open_media, origin
from ingest.media.tracks import picture_stream, sound_stream

HOLD_SECONDS = 1.1
"""A frame shown for longer than this is the frame at all times until the next one.

One frame per second, with rounding of its time stamps, is the lowest rate whose frames are selected as in ordinary
video.
"""

HOLDING_SHARE = 0.25
"""If such frames cover at least this share of a video stream, its last frame is shown to the end of the file, too."""

MAX_PACKETS = 4_000_000
"""Maximum number of packets read to measure a file: about 14 hours of 30 frames and 47 audio packets per second."""

_STATED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"}
"""Formats that state durations in their header; libavformat estimates those of other formats."""


@dataclass(frozen=True)
class Probe:
    """Duration in seconds (`None` if unknown) and streams of a media file.

    `picture_end` is the time until which a frame is shown; `None` if that is the duration.
    """

    duration: float | None
    has_picture: bool
    has_sound: bool
    picture_end: float | None = None


@dataclass(frozen=True)
class Extent:
    """Measured ends of the video and audio streams in seconds, and whether the last frame is shown to the end."""

    picture: float | None
    sound: float | None
    picture_holds: bool = False

    @property
    def end(self) -> float | None:
        """The end of the longer stream."""
        return max((e for e in (self.picture, self.sound) if e is not None), default=None)


def probe(path: str) -> Probe:
    """Determine duration and streams of a file. Raises `MediaError` like `open_media`.

    A stated duration counts unless index and packets end more than about a second before it; then, and if none is
    stated, the times of the packets count.
    """
    with open_media(path) as container:
        picture, sound = picture_stream(container), sound_stream(container)
        if picture is None and (end := _library_end(container)) is not None:
            return Probe(end, False, sound is not None)
        stated = stated_end(container)
        known = Probe(stated, picture is not None, sound is not None)
        if stated is not None and all(_index_agrees(container, s) for s in (picture, sound) if s):
            picture_end = _stream_end(container, picture) if picture else None
        else:
            extent = None if stated is None else _last_packets(container, picture, sound, stated)
            extent = extent or measure(path)
            if extent.end is None:
                return known
            if stated is None or extent.end < stated - HOLD_SECONDS:
                known = Probe(extent.end, known.has_picture, known.has_sound)
            picture_end = extent.picture
    if picture_end is None or known.duration is None or picture_end >= known.duration - HOLD_SECONDS:
        return known
    if measure(path).picture_holds:
        return known
    return Probe(known.duration, known.has_picture, known.has_sound, picture_end)


def stated_end(container: InputContainer) -> float | None:
    """Return the end that the header states, in seconds from the container's start; `None` if it states none."""
    return _library_end(container) if container.format.name in _STATED else None


def _library_end(container: InputContainer) -> float | None:
    """Return the end according to libavformat, from the header or an estimate."""
    ends = [_stream_end(container, s) for s in (picture_stream(container), sound_stream(container)) if s]
    ends = [end for end in ends if end is not None]
    if not ends and container.duration:
        ends = [container.duration / av.time_base]
    return max(ends, default=None)


def _stream_end(container: InputContainer, stream: Stream) -> float | None:
    if not stream.duration or stream.time_base is None:
        return None
    start = Fraction(0) if stream.start_time is None else stream.start_time * stream.time_base - origin(container)
    return float(start + stream.duration * stream.time_base)


def _index_agrees(container: InputContainer, stream: Stream) -> bool:
    """Return whether the last entry of the stream's index is at the stated end of the stream."""
    entries, end = stream.index_entries, _stream_end(container, stream)
    if not len(entries) or end is None or stream.time_base is None:
        return False
    last = float(entries[len(entries) - 1].timestamp * stream.time_base - origin(container))
    return abs(end - last) <= HOLD_SECONDS


def _last_packets(
    container: InputContainer,
    picture: av.VideoStream | None,
    sound: av.AudioStream | None,
    stated: float,
) -> Extent | None:
    """Measure the packets from the last key frame on; `None` if the file does not support seeking."""
    stream = picture or sound
    if stream is None or stream.time_base is None:
        return None
    try:
        target = (Fraction(stated) + origin(container)) / stream.time_base
        container.seek(int(target), stream=stream, backward=True)
    except av.error.FFmpegError:
        return None
    return _extent(container, picture, sound)


def measure(path: str) -> Extent:
    """Read all packets of a file, without decoding any. Raises `MediaError` like `open_media`."""
    with open_media(path) as container:
        return _extent(container, picture_stream(container), sound_stream(container))


def _extent(container: InputContainer, picture: av.VideoStream | None, sound: av.AudioStream | None) -> Extent:
    """Measure the packets from the current position on."""
    zero = origin(container)
    streams = [s for s in (picture, sound) if s is not None]
    ends: dict[int, float] = {}
    shown: list[float] = []
    for packet in itertools.islice(demux(container, streams), MAX_PACKETS):
        if packet.pts is None or packet.time_base is None or packet.size == 0:
            continue
        start = float(packet.pts * packet.time_base - zero)
        length = float((packet.duration or 0) * packet.time_base)
        ends[packet.stream_index] = max(ends.get(packet.stream_index, 0.0), start + length)
        if picture is not None and packet.stream_index == picture.index:
            shown.append(start)
    picture_end = ends.get(picture.index) if picture is not None else None
    sound_end = ends.get(sound.index) if sound is not None else None
    return Extent(picture_end, sound_end, _holds(shown))


def _holds(shown: Iterable[float]) -> bool:
    """Return whether frames shown at these times are mostly long: slides, screen recordings, a cover image."""
    times = np.sort(np.fromiter(shown, np.float64))
    if len(times) < 2:
        return len(times) == 1
    gaps = np.diff(times)
    return bool(gaps[gaps > HOLD_SECONDS].sum() >= HOLDING_SHARE * (times[-1] - times[0]) > 0)
