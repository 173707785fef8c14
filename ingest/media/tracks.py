"""Select the video and audio tracks of a file: no cover images, no commentary, the requested language first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import av
from av.container import InputContainer
from av.stream import Disposition, Stream

from ingest.language_codes import stated_language
from ingest.media.containers import MediaError
from shards.outcomes import Outcome

MAX_PIXELS = 1 << 26
"""Maximum number of pixels of a frame, 8192 x 8192: twice that of 8K video. Checked before memory is allocated."""

_NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_SUPPLEMENTARY = (
    Disposition.comment
    | Disposition.hearing_impaired
    | Disposition.visual_impaired
    | Disposition.descriptions
    | Disposition.clean_effects
    | Disposition.non_diegetic
    | Disposition.karaoke
)
"""Supplementary tracks: commentary, audio description, music and effects without speech."""

_Stream = TypeVar("_Stream", bound=Stream)


def picture_stream(container: InputContainer) -> av.VideoStream | None:
    """Return the main video stream, not a cover or thumbnails: the default one, else the first; `None` if none.

    Raises `MediaError` if its frames have more than `MAX_PIXELS`.
    """
    videos = [s for s in container.streams.video if s.codec_context and not s.disposition & _NO_VIDEO]
    stream = _default(videos)
    if stream is not None and (pixels := stream.width * stream.height) > MAX_PIXELS:
        raise MediaError(
            Outcome.MEDIA_UNREADABLE,
            f"its frames of {stream.width} by {stream.height} have {pixels} pixels; at most {MAX_PIXELS} are decoded",
        )
    return stream


def sound_stream(container: InputContainer, language: str | None = None) -> av.AudioStream | None:
    """Return the main audio stream: one tagged with `language`, else the default one, else the first.

    Supplementary tracks are used only if there are no others.
    """
    tracks = [s for s in container.streams.audio if s.codec_context]
    tracks = [s for s in tracks if not s.disposition & _SUPPLEMENTARY] or tracks
    if (requested := stated_language(language)) is not None:
        tracks = [s for s in tracks if stated_language(s.language) == requested] or tracks
    return _default(tracks)


def _default(streams: Sequence[_Stream]) -> _Stream | None:
    marked = [s for s in streams if s.disposition & Disposition.default]
    return next(iter([*marked, *streams]), None)
