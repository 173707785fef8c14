"""Select the caption track of a video, then parse, clean and align its words.

Only automatic tracks have word times, so the original ASR track is preferred. A machine translation of a foreign ASR
track, or the ASR track of a dub, does not match the sound; it is detected, recorded and used only as a fallback.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ingest import captions
from ingest.alignment import align
from ingest.captions import CaptionError, Transcript, Word
from ingest.language_codes import UNKNOWN, base_language
from ingest.raw import CAPTION_FORMS, CaptionTrack, RawVideo
from shards.outcomes import Outcome

_UPLOADED_SUFFIX = "-manual"
_ORIGINAL_SUFFIX = "-orig"

SOUND_LANGUAGE = "_sound_language"
"""Key of the metadata: the language of the audio track that was downloaded."""

ORIGINAL_TRACKS = "_original_tracks"
"""Key of the metadata: the codes of all ASR tracks that YouTube marks as original, fetched or not."""


class TrackKind(enum.Enum):
    """Where the words of a track come from, best first."""

    ASR_ORIGINAL = "asr-original"
    ASR_TRANSLATED = "asr-translated"
    UPLOADED = "uploaded"
    RECOGNISED = "recognised"


class Times(enum.Enum):
    """Where the times of words come from."""

    TRACK = "track"
    RECOGNISED = "recognised"
    ALIGNED = "aligned"


@dataclass(frozen=True)
class Spoken:
    """The words of a video, the track that they come from, and the source of their times."""

    words: list[Word]
    code: str
    kind: TrackKind
    times: Times = Times.TRACK


class TranscriptError(ValueError):
    """A video has no usable transcript; `outcome` is the reason."""

    def __init__(self, outcome: Outcome, detail: str):
        super().__init__(detail)
        self.outcome = outcome


def sound_language(raw: RawVideo) -> str | None:
    """Return the language of the downloaded audio track, or the one in the metadata; `None` if unknown."""
    stated = raw.info.get(SOUND_LANGUAGE) or raw.info.get("language")
    return stated if isinstance(stated, str) and stated.strip() else None


def kind_of(track: CaptionTrack, raw: RawVideo) -> TrackKind:
    """Return what kind a track is.

    An ASR track is what was heard only if it is in the language of the sound: a video with dubs has an original track
    for each of them. Where the sound's language is not known, one language alone must have an original track.
    """
    if track.code.endswith(_UPLOADED_SUFFIX):
        return TrackKind.UPLOADED
    language, spoken = base_language(track.code), sound_language(raw)
    originals = {base_language(t.code) for t in raw.captions if t.code.endswith(_ORIGINAL_SUFFIX)}
    originals |= {base_language(code) for code in _strings(raw.info.get(ORIGINAL_TRACKS))}
    if language == UNKNOWN:
        return TrackKind.ASR_ORIGINAL
    if spoken is not None and base_language(spoken) != language:
        return TrackKind.ASR_TRANSLATED
    if spoken is None and len(originals) > 1:
        return TrackKind.ASR_TRANSLATED
    return TrackKind.ASR_TRANSLATED if originals and language not in originals else TrackKind.ASR_ORIGINAL


def ranked_tracks(raw: RawVideo, language: str) -> list[tuple[TrackKind, CaptionTrack]]:
    """Return the tracks in `language`, best first: by kind, marked original, plain code, regional code, format.

    Tracks of a language that is not stated come last of their kind.
    """
    order = list(TrackKind)
    base = base_language(language)
    listed = [(kind_of(t, raw), t) for t in raw.captions if base_language(t.code) in (base, UNKNOWN)]

    def rank(item: tuple[TrackKind, CaptionTrack]) -> tuple:
        kind, track = item
        plain = track.code.removesuffix(_UPLOADED_SUFFIX)
        unstated = base_language(plain) != base
        spelling = (unstated, not plain.endswith(_ORIGINAL_SUFFIX), plain not in (language, base), len(plain), plain)
        return order.index(kind), spelling, CAPTION_FORMS.index(track.form)

    return sorted(listed, key=rank)


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def spoken_words(raw: RawVideo, language: str, *, aligned: bool, strict: bool, repair: bool) -> Spoken:
    """Return the cleaned words of the best track with word times.

    With `aligned`, the words of an uploaded track take the place of what was recognised, at the recognised times.
    `strict` reads as the published parser does, `repair` stores words with their mojibake repaired. Raises
    `TranscriptError` (no-captions, captions-unreadable, no-word-times or no-words).
    """
    tracks = ranked_tracks(raw, language)
    if not tracks:
        raise TranscriptError(Outcome.NO_CAPTIONS, f"no caption track in {language!r}")
    problem = TranscriptError(Outcome.NO_WORD_TIMES, f"no track in {language!r} has word times")
    chosen: Spoken | None = None
    for kind, track in tracks:
        if kind is TrackKind.UPLOADED:
            continue
        try:
            read = _read(track, strict)
        except CaptionError as error:
            problem = TranscriptError(Outcome.CAPTIONS_UNREADABLE, f"track {track.code!r}: {error}")
            continue
        if read.timed:
            chosen = Spoken(_repaired(captions.clean(read.words), repair), track.code, kind)
            break
    if chosen is None:
        raise problem
    if not chosen.words:
        raise TranscriptError(Outcome.NO_WORDS, f"track {chosen.code!r} holds no words")
    return with_uploaded_text(chosen, raw, language, repair) if aligned else chosen


def uploaded_words(raw: RawVideo, language: str, repair: bool) -> Spoken | None:
    """Return the words of the best uploaded track, each at its share of its caption's time.

    `None` without such a track.
    """
    for kind, track in ranked_tracks(raw, language):
        if kind is TrackKind.UPLOADED:
            try:
                # Not cleaned: written text has punctuation, for which cleaning drops the word.
                words = _repaired(captions.read(track.text, track.form).words, repair)
            except CaptionError:
                continue
            if words:
                return Spoken(words, track.code, kind)
    return None


def _read(track: CaptionTrack, strict: bool) -> Transcript:
    if strict and track.form == "vtt":
        words = captions.parse_vtt(track.text)
        return Transcript(words or [], timed=words is not None)
    return captions.read(track.text, track.form)


def _repaired(words: list[Word], repair: bool) -> list[Word]:
    """Return the words with their mojibake repaired if `repair`, without those of which nothing remains."""
    if not repair:
        return words
    import ftfy

    repaired = [Word(ftfy.fix_text(w.text), w.start, w.end) for w in words]
    return [word for word in repaired if word.text]


def with_uploaded_text(spoken: Spoken, raw: RawVideo, language: str, repair: bool) -> Spoken:
    """Return the words of the best uploaded track with the times of `spoken`, or `spoken` without such a track."""
    uploaded = uploaded_words(raw, language, repair)
    if uploaded is None:
        return spoken
    texts = align([w.text for w in spoken.words], [w.text for w in uploaded.words])
    words = [
        Word(text, word.start, word.end)
        for word, slot in zip(spoken.words, texts, strict=True)
        for text in ([slot] if slot else [])
    ]
    return Spoken(words, uploaded.code, uploaded.kind, spoken.times) if words else spoken
