"""Split a clip into segments of 4.67 seconds around the moment of a question.

A segment has a frame, sound and subtitles; the 188 columns for five seconds of pretraining become 180 here, so that
three times 60 fill a segment without gaps (docs/spec/finetune_data.md 3.2 to 3.4).
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass

import ftfy
import numpy as np
from jaxtyping import Float32, Shaped
from unidecode import unidecode

from ingest.captions import plain_text
from ingest.questions.preparation import Rate
from ingest.spectrogram import WINDOW, grey_jpeg, log_mel_frames, quantise
from shards.records.choices import ROWS
from shards.records.question_config import MOST_SEGMENTS
from shards.sizes import SAMPLE_RATE

FRAMES_PER_SECOND = 3
SEGMENT_SECONDS = 4.6666667

_HOPS = {"true": (SAMPLE_RATE, 573), "published": (22_620, 588)}
_ARROW = re.compile(r"^\s*(\S+)\s+-->\s+(\S+)")
_TIME = re.compile(r"(?:(\d{1,6}):)?(\d{1,6}):(\d{1,6})[,.](\d{1,20})")


@dataclass(frozen=True)
class Subtitle:
    """A line of speech with its start and end in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Span:
    """Start and end of a segment in seconds of the clip; the start may be negative."""

    start: float
    end: float

    @property
    def middle(self) -> float:
        """The time of its frame."""
        return (self.start + self.end) / 2


def time_grid(start: float, end: float, low: float, high: float, most: int = MOST_SEGMENTS) -> list[Span]:
    """Return at most `most` segments around the middle of `start` to `end` that overlap `low` to `high`, in order."""
    middle = _third((start + end) / 2)
    first, last = middle - SEGMENT_SECONDS / 2, middle + SEGMENT_SECONDS / 2
    spans = [Span(first, last)]
    for i in range(1, most):
        for shift in (-i * SEGMENT_SECONDS, i * SEGMENT_SECONDS):
            span = Span(_third(first + shift), _third(last + shift))
            if len(spans) < most and span.end >= low and span.start <= high:
                spans.append(span)
    return sorted(spans, key=lambda span: span.start)


def _third(seconds: float) -> float:
    return round(FRAMES_PER_SECOND * seconds) / FRAMES_PER_SECOND


def sample_rate(rate: Rate) -> int:
    """Return the required sample rate of the sound."""
    return _HOPS[rate][0]


def spectrograms(
    samples: Shaped[np.ndarray, "samples"], spans: Sequence[Span], rate: Rate
) -> tuple[list[bytes], float]:
    """Return the sound of every segment as a grey JPEG of 180 x 65, and their common magic number.

    `samples` is the clip's sound at `sample_rate(rate)`, mono, of any scale; it is scaled to a peak of 1, and segments
    are padded with silence.
    """
    waveform = samples.astype(np.float32)
    waveform /= max(float(np.abs(waveform).max(initial=0)), 1.0)
    values = np.stack([_columns(_slice(waveform, span, rate), rate) for span in spans])
    magic = 255.0 / max(float(np.percentile(values, 99)), 1.0)
    return [grey_jpeg(quantise(value, magic)) for value in values], magic


def _columns(piece: Float32[np.ndarray, "samples"], rate: Rate) -> Float32[np.ndarray, "180 65"]:
    """Return the log-mel bands by time, then the playback speed."""
    log_mel = log_mel_frames(piece, WINDOW, _HOPS[rate][1]).T
    if len(log_mel) != ROWS:
        raise ValueError(f"{len(piece)} samples give {len(log_mel)} columns instead of {ROWS}")
    return np.concatenate([log_mel, np.ones((ROWS, 1), np.float32)], axis=1)


def _slice(waveform: Float32[np.ndarray, "samples"], span: Span, rate: Rate) -> Float32[np.ndarray, "segment_samples"]:
    """Return the samples of a segment, padded with silence outside the clip."""
    if rate == "published":
        first, stop = int(sample_rate(rate) * span.start), int(sample_rate(rate) * span.end)
        # The released preparation adds one more sample of silence before the start.
        before = 1 - first if first < 0 else 0
    else:
        first = round(sample_rate(rate) * span.start)
        stop = first + round(sample_rate(rate) * SEGMENT_SECONDS)
        before = max(-first, 0)
    piece = waveform[max(first, 0) : max(stop, 0)]
    missing = max(stop, 0) - max(first, 0) - len(piece)
    return np.pad(piece, (before, missing))


def share_out(subtitles: Sequence[Subtitle], spans: Sequence[Span]) -> list[str]:
    """Return the text of every segment: a line belongs to the segment that contains its middle."""
    bounds = [*(span.start for span in spans), spans[-1].end]
    lines: list[list[str]] = [[] for _ in spans]
    for subtitle in subtitles:
        place = bisect.bisect_left(bounds, (subtitle.start + subtitle.end) / 2)
        if 1 <= place <= len(spans):
            lines[place - 1].append(subtitle.text)
    return [plain(" ".join(texts)) for texts in lines]


def plain(text: str) -> str:
    """Return text without markup, with mojibake repaired, as ASCII on one line."""
    return unidecode(ftfy.fix_text(plain_text.plain(text))).replace("\n", " ")


def parse_srt(text: str) -> list[Subtitle]:
    """Return the subtitles of an SRT file; blocks without valid times are skipped."""
    subtitles = []
    for block in re.split(r"\n\s*\n", text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip("\n").split("\n")
        timing = next(((i, match) for i, line in enumerate(lines[:2]) if (match := _ARROW.match(line))), None)
        if timing is None:
            continue
        number, match = timing
        start, end = map(_seconds, match.groups())
        if start is not None and end is not None:
            subtitles.append(Subtitle(start, end, "\n".join(lines[number + 1 :])))
    return subtitles


def _seconds(text: str) -> float | None:
    match = _TIME.fullmatch(text)
    if not match:
        return None
    hours, minutes, seconds, fraction = match.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")
