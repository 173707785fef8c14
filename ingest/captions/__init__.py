"""Read caption tracks into words with times.

`parse_vtt` is the strict reading: the published parser exactly, including what it refuses. `read` is the tolerant
reading of WebVTT, SRT and json3 as people have them; on an ordinary automatic YouTube track both give the same words.
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
