"""How long a media file lasts, and where its picture ends: what it states, checked against its packets."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
import numpy as np

from ingest.media.containers import demux, open_media, origin
from ingest.media.tracks import picture_stream, sound_stream

HOLD_SECONDS = 1.1
"""A picture shown for longer than this is what is on the screen until the next one.

One picture a second, with rounding of its time stamps, is the slowest rate whose frames are picked as on ordinary
video.
"""

HOLDING_SHARE = 0.25
"""A picture stream of which this share, or more, are such pictures also holds its last one to the end of the file."""

MAX_PACKETS = 4_000_000
"""Packets read to find how long a file is: some 14 hours of 30 pictures and 47 packets of sound a second."""

_STATED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"}
"""Formats that state durations in their header; those of others are guessed by the reading library."""


@dataclass(frozen=True)
class Probe:
    """What a file is: its seconds (`None` if unknown), whether it has picture and sound.

    `picture_end` is the time up to which there is something to see; `None` if that is the duration.
    """

    duration: float | None
    has_picture: bool
    has_sound: bool
    picture_end: float | None = None


@dataclass(frozen=True)
class Extent:
    """What the packets say: the ends of picture and sound in seconds, and whether the last picture holds."""

    picture: float | None
    sound: float | None
    picture_holds: bool = False

    @property
    def end(self) -> float | None:
        """The end of the longer stream."""
        return max((e for e in (self.picture, self.sound) if e is not None), default=None)


def probe(path: str) -> Probe:
    """Find how long a file is and what it has. Raises `MediaError` like `open_media`.

    A stated duration counts unless the index and the packets end before it, a second being nothing; then, and where
    nothing is stated, the packets' own times do.
    """
    with open_media(path) as container:
        picture, sound = picture_stream(container), sound_stream(container)
        if picture is None and (end := _library_end(container)) is not None:
            return Probe(end, False, sound is not None)
        stated = stated_end(container)
        known = Probe(stated, picture is not None, sound is not None)
        if stated is not None and all(_index_agrees(container, s) for s in (picture, sound) if s):
            picture_end = _stream_end(container, picture)
        else:
            extent = None if stated is None else _last_packets(container, picture, sound, stated)
            extent = extent or measure(path)
            if extent.end is None:
                return known
            if stated is None or extent.end < stated - HOLD_SECONDS:
                known = Probe(extent.end, known.has_picture, known.has_sound)
            picture_end = extent.picture
    if picture is None or picture_end is None or picture_end >= known.duration - HOLD_SECONDS:
        return known
    if measure(path).picture_holds:
        return known
    return Probe(known.duration, known.has_picture, known.has_sound, picture_end)


def stated_end(container: av.container.InputContainer) -> float | None:
    """The end that the header states, in seconds from the container's start; `None` where nothing is stated."""
    return _library_end(container) if container.format.name in _STATED else None


def _library_end(container: av.container.InputContainer) -> float | None:
    """The end that the reading library gives, from the header or a guess."""
    ends = [_stream_end(container, s) for s in (picture_stream(container), sound_stream(container)) if s]
    ends = [end for end in ends if end is not None]
    if not ends and container.duration:
        ends = [container.duration / av.time_base]
    return max(ends, default=None)


def _stream_end(container: av.container.InputContainer, stream: av.stream.Stream) -> float | None:
    if not stream.duration:
        return None
    start = Fraction(0) if stream.start_time is None else stream.start_time * stream.time_base - origin(container)
    return float(start + stream.duration * stream.time_base)


def _index_agrees(container: av.container.InputContainer, stream: av.stream.Stream) -> bool:
    """Whether the last entry of the stream's index is where the stream is stated to end."""
    entries, end = stream.index_entries, _stream_end(container, stream)
    if not len(entries) or end is None:
        return False
    last = float(entries[len(entries) - 1].timestamp * stream.time_base - origin(container))
    return abs(end - last) <= HOLD_SECONDS


def _last_packets(
    container: av.container.InputContainer,
    picture: av.VideoStream | None,
    sound: av.AudioStream | None,
    stated: float,
) -> Extent | None:
    """What the packets from the last key frame on say; `None` if the file cannot be sought."""
    stream = picture or sound
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


def _extent(
    container: av.container.InputContainer, picture: av.VideoStream | None, sound: av.AudioStream | None
) -> Extent:
    """The ends and gaps of the packets from where the container is."""
    zero = origin(container)
    streams = [s for s in (picture, sound) if s is not None]
    ends: dict[int, float] = {}
    shown: list[float] = []
    for packet in itertools.islice(demux(container, streams), MAX_PACKETS):
        if packet.pts is None or packet.size == 0:
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
    """Whether pictures shown at these times are mostly on the screen for long: slides, recorded screens, a cover."""
    times = np.sort(np.fromiter(shown, np.float64))
    if len(times) < 2:
        return len(times) == 1
    gaps = np.diff(times)
    return bool(gaps[gaps > HOLD_SECONDS].sum() >= HOLDING_SHARE * (times[-1] - times[0]) > 0)
