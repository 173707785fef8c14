"""Synthesise speech with the exact time of every word, by eSpeak NG through ctypes, from a wheel.

The library keeps random state between utterances, so each utterance gets a freshly loaded engine (in under a
millisecond) and depends only on its arguments. eSpeak NG is not thread-safe.
"""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Without voices with breath (such as f2 and f3): eSpeak NG 1.52 synthesises them from uninitialised memory, so that
# each run sounds slightly different.
VOICES = ("en-us", "en-us+f4", "en-us+m3", "en-us+m7", "en-gb-scotland")
NORMAL_RATE = 175  # words per minute
FASTEST_RATE = 320

_AUDIBLE = 0.01  # full scale = 1
_RETURN_SOUND = 2  # AUDIO_OUTPUT_SYNCHRONOUS: sound goes to the callback, in this thread
_NO_EXIT = 0x8000
_POSITION_CHARACTER = 1
_UTF8 = 1
_PARAMETER_RATE = 1
_EVENT_END_OF_LIST, _EVENT_WORD, _EVENT_END_OF_CLAUSE = 0, 1, 5


class VoiceError(RuntimeError):
    """Speech could not be synthesised; the message says why and what to do."""


@dataclass(frozen=True)
class SpokenWord:
    """One word as written, with its time in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """Mono audio, `float32 [n]` in [-1, 1] at `rate` samples per second, and its words with times from its start."""

    waveform: np.ndarray
    rate: int
    words: tuple[SpokenWord, ...]


class _Identifier(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identifier),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def speak(text: str, voice: str = VOICES[0], rate: int = NORMAL_RATE) -> Speech:
    """Synthesise one utterance; `rate` is in words per minute.

    Raises `VoiceError` if the wheel is missing, the voice is unknown or the text has no words.
    """
    if not text.split():
        raise VoiceError(f"there is nothing to say in {text!r}; give at least one word")
    pieces: list[np.ndarray] = []
    events: list[tuple[int, int, int]] = []

    @_CALLBACK
    def collect(samples, count, event):
        if samples and count:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        for one in _until_end(event):
            events.append((one.type, one.text_position - 1, one.sample))
        return 0

    with _engine() as (library, sample_rate):
        library.espeak_SetSynthCallback(collect)
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise VoiceError(f"eSpeak NG has no voice {voice!r}; use one of {', '.join(VOICES)}")
        library.espeak_SetParameter(_PARAMETER_RATE, rate, 0)
        data = text.encode() + b"\0"
        library.espeak_Synth(data, len(data), 0, _POSITION_CHARACTER, 0, _UTF8, None, None)
        library.espeak_Synchronize()
    waveform = np.concatenate(pieces).astype(np.float32) / 32768
    starts = {position: sample / sample_rate for kind, position, sample in reversed(events) if kind == _EVENT_WORD}
    clause_ends = [
        _end_of_sound(waveform[:sample]) / sample_rate for kind, _, sample in events if kind == _EVENT_END_OF_CLAUSE
    ]
    words = word_times(text, starts, clause_ends, _end_of_sound(waveform) / sample_rate)
    return Speech(waveform[: round(words[-1].end * sample_rate)], sample_rate, words)


def word_times(text: str, starts: dict[int, float], clause_ends: list[float], end: float) -> tuple[SpokenWord, ...]:
    """Return the written words with their times.

    `starts` maps character positions of word events to seconds. eSpeak NG speaks some words as one ("of the") and some
    as two ("isn't"): words without an event share the time until the next event by their letters, and events inside a
    word are ignored. A word ends where the next one starts or where its clause ends.
    """
    words = text.split()
    first_letters = np.cumsum([0] + [len(word) + 1 for word in words])
    groups: list[tuple[float, list[str]]] = []
    for word, first, after in zip(words, first_letters, first_letters[1:], strict=False):
        events = [start for position, start in starts.items() if first <= position < after]
        if events or not groups:
            groups.append((min(events, default=0.0), [word]))
        else:
            groups[-1][1].append(word)
    placed = []
    for index, (start, members) in enumerate(groups):
        limit = groups[index + 1][0] if index + 1 < len(groups) else end
        limit = min([limit, *(stop for stop in clause_ends if stop > start)])
        edges = start + (limit - start) * np.cumsum([0] + [len(m) for m in members]) / sum(map(len, members))
        placed += [
            SpokenWord(member, round(float(a), 3), round(float(b), 3))
            for member, a, b in zip(members, edges, edges[1:], strict=False)
        ]
    return tuple(placed)


def _end_of_sound(waveform: np.ndarray) -> int:
    """Return the index after the last audible sample: eSpeak NG counts the pause after a clause as part of it."""
    return int(np.flatnonzero(np.abs(waveform) > _AUDIBLE)[-1]) + 1


def _until_end(event) -> Iterator[_Event]:
    """Yield the events of one callback, without the terminator."""
    index = 0
    while event[index].type != _EVENT_END_OF_LIST:
        yield event[index]
        index += 1


@contextlib.contextmanager
def _engine() -> Iterator[tuple[ctypes.CDLL, int]]:
    """Load and initialise a fresh copy of the library; yields it and its sample rate."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise VoiceError("the package espeakng-loader is missing; run `make setup` or install the extra [demo]")
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        rate = library.espeak_Initialize(_RETURN_SOUND, 0, espeakng_loader.get_data_path().encode(), _NO_EXIT)
        if rate <= 0:
            raise VoiceError("eSpeak NG did not start; reinstall espeakng-loader")
        yield library, rate
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)
