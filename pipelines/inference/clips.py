"""Read a video file or a YouTube video as input arrays of a model."""

from __future__ import annotations

import tempfile

from ingest import clip, raw
from ingest.clip import Clip, ClipError
from ingest.ids import video_id
from ingest.raw import RawError, RawVideo
from model.config import DEFAULT_GRID
from model.inference import VideoInputs
from pipelines.inference.options import Part, is_file


def read(
    video: str,
    grid: tuple[int, int] = DEFAULT_GRID,
    start: float = 0.0,
    end: float | None = None,
    captions: str | None = None,
) -> VideoInputs:
    """Return a video as input arrays of a model with this grid; see `Part` for the other arguments.

    Raises `ClipError` if it cannot be read or downloaded.
    """
    return inputs(read_clip(video, Part(start, end, captions)), grid)


def inputs(video_clip: Clip, grid: tuple[int, int]) -> VideoInputs:
    """Return a clip as input arrays of a model with this grid."""
    return VideoInputs(video_clip.patches(grid), video_clip.audio_clips(), video_clip.texts, video_clip.times)


def read_clip(video: str, part: Part) -> Clip:
    """Return the segments of a file or a YouTube video. Raises `ClipError`."""
    with tempfile.TemporaryDirectory(prefix="reservoir-ask-") as folder:
        raw_video = _fetch(video, folder)
        if raw_video.media is None:
            raise ClipError(f"{video!r} has no media")
        words = clip.file_words(part.captions) if part.captions else clip.track_words(raw_video)
        return clip.read_clip(raw_video.media, part.start, part.end, words)


def _fetch(video: str, folder: str) -> RawVideo:
    """Return the raw video of a file, or download a YouTube video into `folder`."""
    if is_file(video):
        try:
            return raw.from_folder(video)
        except (OSError, RawError) as error:
            raise ClipError(f"{video!r} cannot be read: {error}") from None
    name = video_id(video)
    if name is None:
        raise ClipError(f"{video!r} is neither a file nor a YouTube id or address")
    # The downloader takes a second to import, and most questions do not need it.
    from ingest.config import DownloadConfig
    from ingest.download.youtube import Downloader

    downloaded = Downloader(folder, DownloadConfig(), "en")(name)
    if not isinstance(downloaded, RawVideo):
        raise ClipError(f"{name} cannot be downloaded: {downloaded.outcome.value}: {downloaded.detail}")
    return downloaded
