"""Select the source of the words of a video: its captions or its sound.

Every transcript records the source of its words and of their times, including fallbacks.
"""

from __future__ import annotations

from typing import Any

from ingest.config import Listening
from ingest.language_codes import base_language
from ingest.raw import RawVideo
from ingest.speech import forced_alignment, recognition
from ingest.speech.forced_alignment import ForcedAlignmentError
from ingest.transcript import (
    Spoken,
    Times,
    TrackKind,
    TranscriptError,
    sound_language,
    spoken_words,
    uploaded_words,
    with_uploaded_text,
)
from shards.outcomes import Outcome


def check(listening: Listening) -> None:
    """Load the speech models of the configuration. Raises `RecognitionError` or `AlignerMissingError`."""
    if listening.asr != "never":
        recognition.load(listening.asr_model)
    if listening.transcript == "forced":
        forced_alignment.load()


def words_of(raw: RawVideo, listening: Listening, media: str | None) -> tuple[Spoken | None, dict[str, Any]]:
    """Return the words of a video, and scores of their source.

    Without `media`, the words may be those of captions that are still to be aligned, or `None` if they are still to be
    recognised. Raises `TranscriptError`, and `MediaError` if the sound cannot be read.
    """
    scores: dict[str, Any] = {"sound_language": spoken} if (spoken := sound_language(raw)) else {}
    if listening.transcript == "forced" and (uploaded := uploaded_words(raw, listening.language, listening.repair)):
        if media is None:
            return uploaded, scores
        try:
            placed = forced_alignment.align(media, uploaded.words)
        except ForcedAlignmentError as error:
            scores |= {"alignment": "fell back", "alignment_problem": str(error)}
        else:
            confidence = sum(placed.confidences) / len(placed.confidences)
            scores |= {"alignment": "forced", "alignment_confidence": round(confidence, 4)}
            return Spoken(placed.words, uploaded.code, uploaded.kind, Times.ALIGNED), scores
    aligned = listening.transcript != "asr"
    problem: TranscriptError | None = None
    if listening.asr != "all":
        try:
            spoken = spoken_words(
                raw, listening.language, aligned=aligned, strict=listening.strict, repair=listening.repair
            )
            return spoken, scores
        except TranscriptError as error:
            problem = error
    if listening.asr == "never" and problem is not None:
        raise problem
    if media is None:
        return None, scores
    recognised, recognition_scores = _recognised(listening, media)
    spoken = with_uploaded_text(recognised, raw, listening.language, listening.repair) if aligned else recognised
    return spoken, scores | recognition_scores


def _recognised(listening: Listening, media: str) -> tuple[Spoken, dict[str, Any]]:
    language = base_language(listening.language)
    result = recognition.recognise(media, listening.asr_model, language)
    if result.language != language:
        raise TranscriptError(
            Outcome.OTHER_LANGUAGE, f"the speech is {result.language!r} ({result.language_probability:.2f})"
        )
    if not result.words:
        raise TranscriptError(Outcome.NO_WORDS, "no words were recognised in the sound")
    scores = {"asr_confidence": result.confidence, "asr_language_probability": result.language_probability}
    return Spoken(result.words, f"{language}-recognised", TrackKind.RECOGNISED, Times.RECOGNISED), scores
