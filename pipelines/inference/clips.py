"""A video file, or a video on YouTube, as the arrays that a model answers from."""

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
    """A video as the arrays that a model with this grid answers from; see `Part` for the other arguments.

    Raises `ClipError` if it cannot be read or downloaded.
    """
    return inputs(read_clip(video, Part(start, end, captions)), grid)


def inputs(found: Clip, grid: tuple[int, int]) -> VideoInputs:
    """A clip as arrays for a model with this grid."""
    return VideoInputs(found.patches(grid), found.audio_clips(), found.texts, found.times)


def read_clip(video: str, part: Part) -> Clip:
    """The segments of a file, or of a video on YouTube. Raises `ClipError`."""
    with tempfile.TemporaryDirectory(prefix="reservoir-ask-") as folder:
        held = _fetched(video, folder)
        words = clip.file_words(part.captions) if part.captions else clip.track_words(held)
        return clip.read_clip(held.media, part.start, part.end, words)


def _fetched(video: str, folder: str) -> RawVideo:
    """The raw video of a file, or what yt-dlp downloads into `folder`."""
    if is_file(video):
        try:
            return raw.from_folder(video)
        except (OSError, RawError) as error:
            raise ClipError(f"{video!r} cannot be read: {error}") from None
    found = video_id(video)
    if found is None:
        raise ClipError(f"{video!r} is neither a file nor an id or address of YouTube")
    # Downloading and drawing take a second each to import, and most questions need neither.
    from ingest.config import DownloadConfig
    from ingest.download.youtube import Downloader

    downloaded = Downloader(folder, DownloadConfig(), "en")(found)
    if not isinstance(downloaded, RawVideo):
        raise ClipError(f"{found} cannot be downloaded: {downloaded.outcome.value}: {downloaded.detail}")
    return downloaded
