"""Open media files and demux their packets on one continuous time line."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.stream import Stream

from ingest.ffmpeg import ProgramMissingError, ffmpeg_path
from shards.outcomes import Outcome

MAX_JUMP_SECONDS = 10
"""A larger jump of decoding times, forwards or backwards, is a clock restart in formats that allow one.

The threshold is that of ffmpeg (`-dts_delta_threshold`). Smaller jumps are gaps and overlaps.
"""

CORRUPT_PACKETS = 200
"""Maximum number of consecutive packets that fail before a stream counts as undecodable."""

FORMATS = (
    *("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "flv", "ogg", "asf", "mxf", "rm", "nut"),
    *("gxf", "dv", "ivf", "obu", "av1", "h264", "hevc", "h263", "vvc", "m4v", "mpegvideo", "mjpeg", "yuv4mpegpipe"),
    *("wtv", "gif", "wav", "w64", "mp3", "flac", "aac", "ac3", "eac3", "aiff", "au", "caf", "amr", "tta", "wv", "ape"),
)
"""Supported containers, by libavformat's names. Playlists, lists and patterns of files are not supported."""

_WHITELISTS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
"""A file can never cause another file or a URL to be opened."""

_REMUX_SECONDS = 120
_TIMES_BREAK = 0x0200
"""libavformat's AVFMT_TS_DISCONT: formats in which the clock may restart."""


class MediaError(ValueError):
    """A media file cannot be used; `outcome` is the reason."""

    def __init__(self, outcome: Outcome, detail: str):
        super().__init__(detail)
        self.outcome = outcome


@contextlib.contextmanager
def open_media(path: str) -> Iterator[InputContainer]:
    """Open a container of one of `FORMATS` for reading; the format is detected by content, not by name.

    A file that PyAV rejects is remuxed by ffmpeg and opened again. Raises `MediaError` (media-missing or
    media-unreadable) with the cause.
    """
    if not Path(path).is_file():
        raise MediaError(Outcome.MEDIA_MISSING, f"there is no media file {path!r}")
    with contextlib.ExitStack() as stack:
        try:
            container = av.open(_address(path), options=_WHITELISTS)
        except (av.error.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="reservoir-remux-"))
            try:
                container = av.open(_remux(path, folder), options=_WHITELISTS)
            except (subprocess.SubprocessError, ProgramMissingError, av.error.FFmpegError):
                raise MediaError(Outcome.MEDIA_UNREADABLE, f"{Path(path).name} cannot be opened: {reason}") from None
        stack.enter_context(container)
        yield container


def _address(path: str) -> str:
    """Return the path as a file URL, in which a name such as `concat:a|b` or `%d.png` has no special meaning."""
    return f"file:{Path(path).absolute()}"


def _remux(path: str, folder: str) -> str:
    """Copy the streams into a Matroska file and return its path."""
    import ffmpeg

    remuxed = str(Path(folder) / "remuxed.mkv")
    source = ffmpeg.input(_address(path), **_WHITELISTS)
    command = source.output(remuxed, c="copy", loglevel="error").compile(cmd=ffmpeg_path())
    quiet = subprocess.DEVNULL
    subprocess.run(command, check=True, timeout=_REMUX_SECONDS, stdin=quiet, stdout=quiet, stderr=quiet)
    return remuxed


def origin(container: InputContainer) -> Fraction:
    """Return the time stamp in seconds that is zero for all streams: the start of the container, as in `ffmpeg -ss`."""
    return Fraction(container.start_time or 0, av.time_base)


def clock_may_restart(container: InputContainer) -> bool:
    """Return whether the format allows time stamps to restart (MPEG-TS, MPEG-PS, Ogg)."""
    return bool(container.format.flags & _TIMES_BREAK)


def demux(container: InputContainer, streams: Sequence[Stream]) -> Iterator[av.Packet]:
    """Yield the packets of some streams from the current position; the last of each are empty and flush its decoder.

    Clock restarts are undone in the packets' time stamps, for all streams by the same shift; such a file must be read
    from its beginning. Damage ends the packets instead of raising.
    """
    if not clock_may_restart(container):
        yield from _until_damage(container.demux(*streams))
        return
    clock, selected = _Clock(), {stream.index for stream in streams}
    timed = [stream for stream in container.streams if stream.type in ("video", "audio")]
    for packet in _until_damage(container.demux(*timed)):
        clock.adjust(packet)
        if packet.stream_index in selected:
            yield packet


def _until_damage(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
    with contextlib.suppress(av.error.InvalidDataError):
        yield from packets


class _Clock:
    """Joins parts with different clocks: after a jump, time continues at the end of the stream's last packet."""

    def __init__(self) -> None:
        self.shift = Fraction(0)
        self.expected: dict[int, Fraction] = {}
        self.latest: Fraction | None = None

    def adjust(self, packet: av.Packet) -> None:
        """Shift the packet's time stamps; update the shift if the packet starts a new clock."""
        if packet.dts is None or packet.time_base is None:
            return
        base = packet.time_base
        time = packet.dts * base + self.shift
        expected = self.expected.get(packet.stream_index, self.latest)
        if expected is not None and abs(time - expected) > MAX_JUMP_SECONDS:
            self.shift -= time - expected
            time = expected
        self.latest = time
        self.expected[packet.stream_index] = time + (packet.duration or 0) * base
        if self.shift:
            ticks = round(self.shift / base)
            packet.dts += ticks
            if packet.pts is not None:
                packet.pts += ticks
