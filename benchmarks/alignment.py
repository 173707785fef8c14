"""What the confidence of forced alignment is worth: right, wrong and no text, in several noises.

    python -m benchmarks.alignment [--videos N]

Sentences of Python's own documentation are spoken by synthetic voices with known word times. A word is right if it
starts within 0.1 s of its true time. The weights of `ingest.speech.forced_alignment.CALIBRATION` are fitted on three
voices and tested on two others with other sentences; the last rows are a person's reading, which nothing was fitted on.
"""

from __future__ import annotations

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import importlib.util
import itertools
import random
import re
import sys
import tempfile
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy.signal import resample_poly

from ingest import captions, media
from ingest.captions import Word
from ingest.speech import forced_alignment
from ingest.speech.forced_alignment import CALIBRATION, SAMPLE_RATE, Evidence
from pipelines.demo import voice

FITTED_VOICES = ("en-us", "en-us+f4", "en-gb-scotland")
TESTED_VOICES = ("en-us+m3", "en-us+m7")
NOISES = (("white", 15), ("pink", 10), ("white", 5), ("music", 5), ("pink", 0), ("white", 0), ("pink", -5))
SENTENCES = 5
RIGHT_SECONDS = 0.1
SURE = 0.95
READING = Path(__file__).parent.parent / "tests" / "fixtures" / "two_cities.en.vtt"


@dataclass(frozen=True)
class Options:
    """Calibrate the confidence of forced alignment and test it."""

    videos: int = 1
    """Videos for each voice."""


@dataclass(frozen=True)
class Placement:
    """A word with evidence: its condition, and whether it and its caption's share of time are right."""

    condition: tuple[str, str]
    evidence: Evidence
    right: bool
    caption_right: bool


@dataclass(frozen=True)
class Recording:
    """Mono sound in [-1, 1] at 16 kHz, its words as spoken, and as captions with shared times give them."""

    waveform: np.ndarray
    spoken: list[Word]
    captioned: list[Word]


def sentences() -> list[str]:
    """Plain sentences of 6 to 18 words, shuffled."""
    prose = (re.sub(r"``?[^`]*``?|\*+|\"[^\"]*\"", "", topics[name]) for name in sorted(topics))
    paragraphs = (part for text in prose for part in text.split("\n\n") if not re.search(r"^   |::|\|", part))
    found = (s for part in paragraphs for s in re.split(r"(?<=[.!?]) ", " ".join(part.split())))
    plain = [s for s in found if re.fullmatch(r"[A-Za-z ,.']+", s) and 6 <= len(s.split()) <= 18]
    random.Random(0).shuffle(plain)
    return plain


def captioned(words: Sequence[Word], rng: np.random.Generator) -> list[Word]:
    """A sentence as a caption whose borders are up to 0.4 s off, its time shared evenly."""
    first, last = (max(t + rng.uniform(-0.4, 0.4), 0.0) for t in (words[0].start, words[-1].end))
    bounds = np.linspace(first, max(last, first + 0.3), len(words) + 1).tolist()
    return [Word(w.text, s, e) for w, (s, e) in zip(words, itertools.pairwise(bounds), strict=True)]


def narrated(texts: Sequence[str], name: str, rng: np.random.Generator) -> Recording:
    """Sentences spoken by a voice, with pauses."""
    parts: list[np.ndarray] = []
    spoken, subtitles, at = [], [], 0.0
    for text in texts:
        parts.append(np.zeros(int(rng.uniform(0.2, 2.0) * SAMPLE_RATE)))
        at += len(parts[-1]) / SAMPLE_RATE
        speech = voice.speak(text, name, int(rng.integers(140, 230)))
        words = [Word(w.text, at + w.start, at + w.end) for w in speech.words]
        parts.append(resample_poly(speech.waveform, SAMPLE_RATE, speech.rate))
        at += len(parts[-1]) / SAMPLE_RATE
        spoken += words
        subtitles += captioned(words, rng)
    waveform = np.concatenate([*parts, np.zeros(SAMPLE_RATE)])
    return Recording(waveform / np.abs(waveform).max(), spoken, subtitles)


def noise(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Samples of white or pink noise, or of notes that are struck three times a second; of power 1."""
    sound = rng.standard_normal(count)
    if kind == "pink":
        spectrum = np.fft.rfft(sound)
        sound = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), count)
    if kind == "music":
        struck, time = SAMPLE_RATE // 3, np.arange(SAMPLE_RATE // 3) / SAMPLE_RATE
        notes = rng.choice([220, 262, 294, 330, 392, 440], count // struck + 1)
        harmonics = np.arange(1, 5)[:, None]
        played = [
            (np.sin(2 * np.pi * note * harmonics * time) / harmonics).sum(0) * np.exp(-3 * time) for note in notes
        ]
        sound = np.concatenate(played)[:count]
    return sound / np.sqrt(np.mean(sound**2))


def conditions(recording: Recording, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """The recording without noise and with each, at so many dB of speech over noise."""
    power = np.sqrt(np.mean(recording.waveform[np.abs(recording.waveform) > 1e-3] ** 2))
    yield "no noise", recording.waveform
    for kind, decibels in NOISES:
        added = noise(kind, len(recording.waveform), rng) * power * 10 ** (-decibels / 20)
        yield f"{kind} noise, {decibels} dB", recording.waveform + added


def placements(label: str, name: str, waveform: np.ndarray, text: list[Word], truth: list[Word]) -> list[Placement]:
    """Align a text with a sound; `truth` are the times of its words, or of none if it is not spoken."""
    found = []
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        with wave.open(file.name, "wb") as written:
            written.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
            loudest = max(np.abs(waveform).max(), 1e-9)
            written.writeframes((waveform / loudest * 30_000).astype(np.int16).tobytes())
        placed = [
            word
            for before, after in forced_alignment.place(file.name, text)
            for word in zip(before, after.words, after.evidence, strict=True)
        ]
    for i, (before, word, evidence) in enumerate(placed):
        if evidence is not None:
            right = [bool(truth) and abs(w.start - truth[i].start) <= RIGHT_SECONDS for w in (word, before)]
            found.append(Placement((label, name), evidence, *right))
    return found


def measured(recording: Recording, other: list[str], rng: np.random.Generator) -> list[Placement]:
    """Right text, another text and no speech, in every noise."""
    words = itertools.cycle(other)
    wrong = [Word(next(words), w.start, w.end) for w in recording.captioned]
    found = []
    for name, waveform in conditions(recording, rng):
        found += placements("right text", name, waveform, recording.captioned, recording.spoken)
        found += placements("another text", name, waveform, wrong, [])
    silence = np.zeros(len(recording.waveform))
    found += placements("no speech", "silence", silence, recording.captioned, [])
    for kind in ("white", "pink", "music"):
        sound = noise(kind, len(silence), rng)
        found += placements("no speech", f"{kind} noise", sound, recording.captioned, [])
    return found


def corpus(voices: Sequence[str], texts: Iterator[str], videos: int, seed: int) -> list[Placement]:
    """The placements of some videos of each voice."""
    found = []
    for number, name in enumerate(name for name in voices for _ in range(videos)):
        rng = np.random.default_rng((seed, number))
        recording = narrated(list(itertools.islice(texts, SENTENCES)), name, rng)
        found += measured(recording, " ".join(itertools.islice(texts, 2 * SENTENCES)).split(), rng)
    return found


def reading(other: list[str]) -> list[Placement]:
    """The placements of a person's reading; its true times are those of its alignment without noise."""
    spec = importlib.util.find_spec("moonshine_voice")
    if spec is None:
        return []
    path = str(Path(spec.origin).parent / "assets" / "two_cities.wav")
    with media.sound(path, SAMPLE_RATE) as track:
        waveform = track.read(0, track.length) / 32768
    words, rng = captions.read(READING.read_text(), "vtt").words, np.random.default_rng(0)
    subtitles = [w for i in range(0, len(words), 8) for w in captioned(words[i : i + 8], rng)]
    truth = [word for _, placed in forced_alignment.place(path, subtitles) for word in placed.words]
    return measured(Recording(waveform, truth, subtitles), other, rng)


def fitted(placed: list[Placement]) -> np.ndarray:
    """The weights of a logistic regression of `right` on the evidence, by Newton's method."""
    x = np.array([(1.0, p.evidence.fit, p.evidence.gain) for p in placed])
    y = np.array([p.right for p in placed], float)
    weights = np.zeros(3)
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ weights))
        weights += np.linalg.solve((x.T * (p * (1 - p))) @ x + 1e-6 * np.eye(3), x.T @ (y - p))
    return weights


def report(title: str, placed: list[Placement]) -> Table:
    """Each condition, then precision and recall of `right` above the threshold."""
    table = Table("text", "sound", "words", "right", "caption's share right", "confidence", f"over {SURE}", title=title)
    for label, name in dict.fromkeys(p.condition for p in placed):
        rows = [p for p in placed if p.condition == (label, name)]
        sure = [p.evidence.confidence > SURE for p in rows]
        shares = ([p.right for p in rows], [p.caption_right for p in rows])
        confidence = np.mean([p.evidence.confidence for p in rows])
        percent = [f"{np.mean(share):.0%}" for share in (*shares, sure)]
        table.add_row(label, name, str(len(rows)), *percent[:2], f"{confidence:.2f}", percent[2])
    sure = [p for p in placed if p.evidence.confidence > SURE]
    right = sum(p.right for p in sure)
    table.add_row(
        "all", f"precision {right / len(sure):.1%}, recall {right / sum(p.right for p in placed):.1%}", str(len(placed))
    )
    return table


def calibration(placed: list[Placement]) -> Table:
    """How often words of each confidence are right."""
    table = Table("confidence", "words", "right", title="calibration on the tested voices")
    for low, high in itertools.pairwise((0.0, 0.1, 0.3, 0.5, 0.7, 0.9, SURE, 1.01)):
        inside = [p.right for p in placed if low <= p.evidence.confidence < high]
        table.add_row(f"{low:g} to {min(high, 1):g}", str(len(inside)), f"{np.mean(inside):.0%}" if inside else "")
    return table


def main() -> int:
    """Fit, test, print."""
    options = tyro.cli(Options, description=__doc__)
    console = Console(width=120)
    texts = iter(sentences())
    tested = corpus(TESTED_VOICES, texts, options.videos, 1)
    console.print(report("voices that were not fitted on", tested), calibration(tested))
    if read := reading(" ".join(itertools.islice(texts, 2 * SENTENCES)).split()):
        console.print(report("a person's reading", read))
    weights = fitted(corpus(FITTED_VOICES, texts, options.videos, 0))
    console.print(f"weights fitted now {np.round(weights, 3).tolist()}, in use {list(CALIBRATION)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
