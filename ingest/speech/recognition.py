"""Speech recognition with a Whisper model: words with times from the sound of a video.

Decoding is greedy and single-threaded, so it is deterministic. Words have no punctuation around them, as in caption
tracks.
"""

from __future__ import annotations

import functools
import importlib.util
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ingest import media
from ingest.captions import Word
from shards.outcomes import Outcome
from shards.storage.errors import UserError

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

SAMPLE_RATE = 16_000
_FULL_SCALE = 32768.0


class RecognitionError(UserError):
    """The recogniser is not installed or its model cannot be loaded; the message says which."""


@dataclass(frozen=True)
class Recognised:
    """Recognised words, the language and its probability, and the mean probability of the words."""

    words: list[Word]
    language: str
    language_probability: float
    confidence: float


@functools.lru_cache(maxsize=1)
def load(model: str) -> WhisperModel:
    """Load the model in a folder, or download the one of this name. Raises `RecognitionError`."""
    if importlib.util.find_spec("faster_whisper") is None:
        raise RecognitionError("speech recognition needs the package faster-whisper; install the extra [asr]")
    from faster_whisper import WhisperModel

    try:
        return WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=1)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise RecognitionError(
            f"--asr-model {model!r} cannot be loaded: {reason}; give a folder with a model"
        ) from None


def recognise(path: str, model: str, language: str) -> Recognised:
    """Recognise the words of a media file, on its track in `language`; none if the speech is in another language.

    Raises `MediaError`.
    """
    with media.sound(path, SAMPLE_RATE, language) as track:
        waveform = track.read(0, track.length).astype(np.float32) / _FULL_SCALE
    if not waveform.size:
        raise media.MediaError(Outcome.NO_SOUND, Outcome.NO_SOUND.sentence)
    # Without voice activity detection, Whisper hallucinates words in music and silence, and skips others.
    segments, info = load(model).transcribe(
        waveform, word_timestamps=True, temperature=0.0, condition_on_previous_text=False, vad_filter=True
    )
    detected = info.language, round(float(info.language_probability), 4)
    if info.language != language:
        return Recognised([], *detected, 0.0)
    recognised = [word for segment in segments for word in segment.words or ()]
    words = [Word(w.word.strip().strip(string.punctuation), float(w.start), float(w.end)) for w in recognised]
    confidence = float(np.mean([w.probability for w in recognised])) if recognised else 0.0
    return Recognised([word for word in words if word.text], *detected, round(confidence, 4))
