"""The outcomes of items: a closed list of reasons, each with its kind and one sentence.

Every item of a job ends with exactly one outcome. `REJECTED` items break a rule of the configuration; `FAILED_FINAL`
items cannot be obtained; `FAILED_RETRYABLE` items failed with a retryable error (`--retry-failed`).
"""

from __future__ import annotations

import enum


class Kind(enum.Enum):
    """Whether an item succeeded, and if not, whether a retry can help."""

    DONE = "done"
    REJECTED = "rejected"
    FAILED_RETRYABLE = "failed-retryable"
    FAILED_FINAL = "failed-final"


class Outcome(enum.Enum):
    """The reason why an item ended. The value is the name in the ledger."""

    EXTRACTED = "extracted"

    NO_CAPTIONS = "no-captions"
    CAPTIONS_UNREADABLE = "captions-unreadable"
    NO_WORD_TIMES = "no-word-times"
    NO_WORDS = "no-words"
    TOO_LONG = "too-long"
    DURATION_UNKNOWN = "duration-unknown"
    CATEGORY = "category"
    SPARSE_SPEECH = "sparse-speech"
    OTHER_LANGUAGE = "other-language"
    BAD_WORDS = "bad-words"
    UNEVEN_WORDS = "uneven-words"
    MEDIA_MISSING = "media-missing"
    MEDIA_UNREADABLE = "media-unreadable"
    NO_PICTURE = "no-picture"
    NO_SOUND = "no-sound"
    NO_SEGMENTS = "no-segments"
    FRAME_MISSING = "frame-missing"
    TOO_ALIKE = "too-alike"
    TOO_EMPTY = "too-empty"
    BAD_ID = "bad-id"
    PLAYLIST = "playlist"
    DUPLICATE_NAME = "duplicate-name"
    TOO_LARGE = "too-large"

    TIMED_OUT = "timed-out"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out-of-memory"
    NETWORK = "network"
    SERVER = "server"
    TRUNCATED = "truncated"
    RATE_LIMITED = "rate-limited"
    BOT_CHECK = "bot-check"
    CAPTIONS_REFUSED = "captions-refused"
    NO_FORMATS_OFFERED = "no-formats-offered"
    NOT_YET = "not-yet"
    LIVE = "live"
    FORBIDDEN = "forbidden"
    DOWNLOAD = "download"
    INPUT_UNREADABLE = "input-unreadable"
    INPUT_CHANGED = "input-changed"

    PRIVATE = "private"
    REMOVED = "removed"
    AGE_RESTRICTED = "age-restricted"
    GEO_BLOCKED = "geo-blocked"
    MEMBERS_ONLY = "members-only"
    NOT_FOUND = "not-found"
    DRM = "drm"
    PAYMENT = "payment"
    COPYRIGHT = "copyright"
    NO_FORMAT = "no-format"
    SKIPPED = "skipped"
    BLOCKED = "blocked"
    WITHDRAWN = "withdrawn"

    @property
    def kind(self) -> Kind:
        """The kind of the outcome."""
        return _KINDS[self]

    @property
    def sentence(self) -> str:
        """One sentence with what happened and, if there is one, the remedy."""
        return _SENTENCES[self]


_K, _O = Kind, Outcome
_TABLE = {
    _O.EXTRACTED: (_K.DONE, "The video's segments are committed."),
    _O.NO_CAPTIONS: (
        _K.REJECTED,
        "There is no caption track in the requested language; put NAME.en.vtt next to the video, or recognise the"
        " speech with --asr missing (the extra [asr]).",
    ),
    _O.CAPTIONS_UNREADABLE: (_K.REJECTED, "The caption track is malformed."),
    _O.NO_WORD_TIMES: (
        _K.REJECTED,
        "No caption track has a time for every word; --transcript forced or --asr missing can supply them.",
    ),
    _O.NO_WORDS: (_K.REJECTED, "The caption track contains no words."),
    _O.TOO_LONG: (_K.REJECTED, "The video is longer than the limit."),
    _O.DURATION_UNKNOWN: (_K.REJECTED, "Neither the metadata nor the media file state the duration of the video."),
    _O.CATEGORY: (_K.REJECTED, "The video's category is excluded."),
    _O.SPARSE_SPEECH: (_K.REJECTED, "No 30 seconds of the video contain enough words."),
    _O.OTHER_LANGUAGE: (_K.REJECTED, "The text is not in the requested language with enough certainty."),
    _O.BAD_WORDS: (
        _K.REJECTED,
        "Too many words are upper-case or contain spaces: an uploaded track instead of an ASR track.",
    ),
    _O.UNEVEN_WORDS: (_K.REJECTED, "The word lengths vary too much for a transcript."),
    _O.MEDIA_MISSING: (_K.REJECTED, "There is no media file for this id."),
    _O.MEDIA_UNREADABLE: (_K.REJECTED, "The media file cannot be opened or decoded."),
    _O.NO_PICTURE: (_K.REJECTED, "The media file has no video stream."),
    _O.NO_SOUND: (_K.REJECTED, "The media file has no audio stream, or the stream has no samples."),
    _O.NO_SEGMENTS: (_K.REJECTED, "The speech does not contain a single full window."),
    _O.FRAME_MISSING: (_K.REJECTED, "A window is past the last frame; the stated duration is too long."),
    _O.TOO_ALIKE: (_K.REJECTED, "The frames of the video are too similar."),
    _O.TOO_EMPTY: (_K.REJECTED, "The frames of the video show too few objects."),
    _O.BAD_ID: (_K.REJECTED, "The id is not a valid video id."),
    _O.PLAYLIST: (
        _K.REJECTED,
        "The entry names a playlist or a channel, not one video; list the ids that 'yt-dlp --flat-playlist --print id"
        " ADDRESS' prints.",
    ),
    _O.DUPLICATE_NAME: (
        _K.REJECTED,
        "Another video of the folder has the same name without the suffix, which is the id; rename one of them.",
    ),
    _O.TOO_LARGE: (_K.REJECTED, "A caption or metadata file of the video is larger than the limit."),
    _O.TIMED_OUT: (_K.FAILED_RETRYABLE, "Decoding exceeded the time limit."),
    _O.CRASHED: (_K.FAILED_RETRYABLE, "The decoder process crashed on this video."),
    _O.OUT_OF_MEMORY: (_K.FAILED_RETRYABLE, "Decoding exceeded the memory limit."),
    _O.NETWORK: (_K.FAILED_RETRYABLE, "The connection failed or stalled."),
    _O.SERVER: (_K.FAILED_RETRYABLE, "The server responded with an internal error."),
    _O.TRUNCATED: (_K.FAILED_RETRYABLE, "The download ended before its stated length or is not a media file."),
    _O.RATE_LIMITED: (_K.FAILED_RETRYABLE, "The server limits the request rate."),
    _O.BOT_CHECK: (_K.FAILED_RETRYABLE, "The server requested a bot check; downloading stops."),
    _O.CAPTIONS_REFUSED: (_K.FAILED_RETRYABLE, "The caption track is advertised but could not be fetched."),
    _O.NO_FORMATS_OFFERED: (
        _K.FAILED_RETRYABLE,
        "The server offers no video and audio to this machine; check that yt-dlp is up to date, that a JavaScript"
        " runtime (deno) is installed, and whether a PO token is needed.",
    ),
    _O.NOT_YET: (_K.FAILED_RETRYABLE, "The video has not been published yet, or is still being processed."),
    _O.LIVE: (_K.FAILED_RETRYABLE, "The item is a live stream, which may become a video when it has ended."),
    _O.DOWNLOAD: (_K.FAILED_RETRYABLE, "The download failed with an unknown error."),
    _O.INPUT_UNREADABLE: (_K.FAILED_RETRYABLE, "A file of the video could not be read."),
    _O.INPUT_CHANGED: (_K.FAILED_RETRYABLE, "A file of the video was removed or changed while the job ran."),
    _O.PRIVATE: (_K.FAILED_FINAL, "The video is private."),
    _O.REMOVED: (_K.FAILED_FINAL, "The video has been removed."),
    _O.AGE_RESTRICTED: (_K.FAILED_FINAL, "The video is age-restricted."),
    _O.GEO_BLOCKED: (_K.FAILED_FINAL, "The video is not available in this country."),
    _O.MEMBERS_ONLY: (_K.FAILED_FINAL, "The video is for members only."),
    _O.FORBIDDEN: (_K.FAILED_RETRYABLE, "The server denied access."),
    _O.NOT_FOUND: (_K.FAILED_FINAL, "There is no video with this id."),
    _O.DRM: (_K.FAILED_FINAL, "The video is protected by DRM."),
    _O.PAYMENT: (_K.FAILED_FINAL, "The video must be bought or rented, or requires a paid membership."),
    _O.COPYRIGHT: (_K.FAILED_FINAL, "The video is blocked by a copyright claim."),
    _O.NO_FORMAT: (_K.FAILED_FINAL, "No format matches the requested one."),
    _O.BLOCKED: (_K.FAILED_FINAL, "The id is on the block list."),
    _O.WITHDRAWN: (_K.FAILED_FINAL, "The video was removed from the data set on request."),
    _O.SKIPPED: (_K.FAILED_FINAL, "A download archive or a filter of yt-dlp skips the video."),
}
_KINDS = {outcome: kind for outcome, (kind, _) in _TABLE.items()}
_SENTENCES = {outcome: sentence for outcome, (_, sentence) in _TABLE.items()}
