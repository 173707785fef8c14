"""Which of a file's tracks are used: no cover pictures, no commentary, the spoken language before others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import av
from av.stream import Disposition

from ingest.language_codes import stated_language
from ingest.media.containers import MediaError
from shards.outcomes import Outcome

MAX_PIXELS = 1 << 26
"""Pixels of a picture, 8192 by 8192: twice those of 8K video. Larger ones are rejected before they are allocated."""

_NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_BESIDE_THE_PICTURE = (
    Disposition.comment
    | Disposition.hearing_impaired
    | Disposition.visual_impaired
    | Disposition.descriptions
    | Disposition.clean_effects
    | Disposition.non_diegetic
    | Disposition.karaoke
)
"""Tracks for some listeners: commentary, audio description, music and effects without speech."""

_Stream = TypeVar("_Stream", bound=av.stream.Stream)


def picture_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The video stream that is shown: of those that are no cover or thumbnails the default one, else the first.

    Raises `MediaError` if its pictures have more than `MAX_PIXELS`.
    """
    videos = [s for s in container.streams.video if s.codec_context and not s.disposition & _NO_VIDEO]
    stream = _default(videos)
    if stream is not None and (pixels := stream.width * stream.height) > MAX_PIXELS:
        raise MediaError(
            Outcome.MEDIA_UNREADABLE,
            f"its pictures of {stream.width} by {stream.height} have {pixels} pixels; at most {MAX_PIXELS} are decoded",
        )
    return stream


def sound_stream(container: av.container.InputContainer, language: str | None = None) -> av.AudioStream | None:
    """The audio stream that is heard: one in `language` if tagged so, else the default one, else the first.

    Commentary and tracks for some listeners count only if there are no others.
    """
    tracks = [s for s in container.streams.audio if s.codec_context]
    tracks = [s for s in tracks if not s.disposition & _BESIDE_THE_PICTURE] or tracks
    if (wanted := stated_language(language)) is not None:
        tracks = [s for s in tracks if stated_language(s.language) == wanted] or tracks
    return _default(tracks)


def _default(streams: Sequence[_Stream]) -> _Stream | None:
    marked = [s for s in streams if s.disposition & Disposition.default]
    return next(iter([*marked, *streams]), None)
