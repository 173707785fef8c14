"""Parse caption tracks into words with times.

`parse_vtt` is the strict parser: equal to the published one, including the tracks that it rejects. `read` is the
tolerant parser of WebVTT, SRT and json3 files from any source; both return the same words for an ordinary automatic
YouTube track.
"""

from ingest.captions.published import clean, parse_vtt, seconds
from ingest.captions.tolerant import MAX_CAPTION_CHARACTERS, read
from ingest.captions.words import LATEST_SECONDS, MAX_WORDS, CaptionError, Transcript, Word

__all__ = [
    "LATEST_SECONDS",
    "MAX_CAPTION_CHARACTERS",
    "MAX_WORDS",
    "CaptionError",
    "Transcript",
    "Word",
    "clean",
    "parse_vtt",
    "read",
    "seconds",
]
