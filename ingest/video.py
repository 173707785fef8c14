"""Process one video: a function from raw files and a config to segments or an outcome.

Cheap steps come first: words, then rules, then windows; only accepted videos are decoded. Independent of Beam, shards
and other videos.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ingest import filters, media, similarity, spectrogram
from ingest.captions import Word
from ingest.config import VideoConfig
from ingest.filters import Facts
from ingest.media import MediaError
from ingest.models import load_models
from ingest.raw import RawVideo
from ingest.result import Result
from ingest.segmentation import Window, segment
from ingest.similarity import Embed
from ingest.speech import word_source as listening
from ingest.text import neutralise
from ingest.transcript import Spoken, Times, TranscriptError
from shards import tokenizer as vocabulary
from shards.outcomes import Outcome
from shards.records.segments import Segment, VideoText
from shards.sizes import SAMPLE_RATE
from shards.storage.randomness import generator
from shards.tokens import FIRST_TEXT_ID

if TYPE_CHECKING:
    from tokenizers import Tokenizer

META_KEYS = (
    "channel_id",
    "view_count",
    "average_rating",
    "_avg_cosine_sim",
    "_num_coco_objects_expectation",
    "upload_date",
    "categories",
    "_ids_fn",
    "license",
)
MAX_DESCRIPTION_TOKENS = 1024
"""Maximum number of stored tokens; readers use no more (docs/spec/shards.md 2)."""

FRAME_MEMORY = 192 << 20
"""Bytes of raw frames held for one pass; a video with more is decoded twice, first for its black bars."""

BAR_FRAMES = 240
"""Frames that a second pass looks at for black bars, evenly spaced; as many as 20 minutes have windows."""


@dataclass(frozen=True)
class _Accepted:
    """A video whose text was accepted: its words, the probed media, and the smaller of both durations."""

    spoken: Spoken
    probe: media.Probe
    duration: float
    scores: dict[str, Any]


def screen(raw: RawVideo, config: VideoConfig) -> Result | None:
    """Return the result of a video rejected by its text and metadata alone, before download; else `None`."""
    unseen = dataclasses.replace(raw, media=None)
    evaluated = _evaluate(unseen, config, media.Probe(_stated_duration(raw), True, True), None)
    return evaluated if isinstance(evaluated, Result) else None


def check_media(raw: RawVideo) -> Result | None:
    """Return the result of a video whose downloaded media cannot be used for now; `None` if they can."""
    try:
        problem = None if media.probe(str(raw.media)).has_picture else "the media have no picture"
    except MediaError as error:
        problem = str(error)
    return Result(Outcome.TRUNCATED, problem, {}, VideoText(raw.id)) if problem else None


def process(raw: RawVideo, config: VideoConfig, embed: Embed | None = similarity.perceptual) -> Result:
    """Extract the segments of one raw video; return them, or the outcome, with all scores.

    `embed` is the embedder of `config`; without it the visual filters are off.
    """
    evaluated = _evaluate(raw, config, *_probe(raw))
    if isinstance(evaluated, Result):
        return evaluated
    if evaluated is None or raw.media is None:
        # Missing media are reported by `_probe` and become a result.
        raise AssertionError("a video without media was accepted")
    models = load_models(config.tokenizer, config.timing_model)
    words = evaluated.spoken.words
    pieces = _encode(models.tokenizer, [w.text for w in words])
    if models.timing and _correctable(evaluated.spoken, config):
        words = models.timing.correct(words, [len(p) for p in pieces])
    seen = min(evaluated.duration, evaluated.probe.picture_end or evaluated.duration)
    windows = segment(words, seen, generator(config.seed, "segment", raw.id).random)
    try:
        _check_streams(evaluated.probe, windows)
        images = _images(raw.media, [(w.start + w.end) / 2 for w in windows])
        scores = evaluated.scores | (_looks(images, embed) if embed else {})
        if broken := filters.broken_rule(scores, config.spoken_language, config.filters):
            return Result(broken, broken.sentence, scores, VideoText(raw.id))
        bound = evaluated.duration + media.STATED_MARGIN_SECONDS
        spectrograms, sound_scores = _spectrograms(raw.media, windows, config.spoken_language, bound)
    except MediaError as error:
        return Result(error.outcome, str(error), evaluated.scores, VideoText(raw.id))
    segments = [
        _segment(window, image, sound, words, pieces)
        for window, image, sound in zip(windows, images, spectrograms, strict=True)
    ]
    text = _video_text(raw, evaluated.spoken, models.tokenizer)
    return Result(Outcome.EXTRACTED, "", scores | sound_scores, text, segments)


def _correctable(spoken: Spoken, config: VideoConfig) -> bool:
    """Return whether the timing model applies: the published one to caption tracks, a custom one to any recogniser."""
    own = config.timing_model != "published"
    return spoken.times is Times.TRACK or (own and spoken.times is Times.RECOGNISED)


def _looks(images: Sequence[tuple[bytes, int, int]], embed: Embed) -> dict[str, Any]:
    """Return the scores of the visual filters for four of the frames."""
    return similarity.score([images[i][0] for i in similarity.spread(len(images))], embed)


def _evaluate(
    raw: RawVideo, config: VideoConfig, probe: media.Probe, problem: MediaError | None
) -> _Accepted | Result | None:
    """Evaluate the text and the metadata, without decoding; an error of the media counts only if the text is accepted.

    Returns `None` if the words are still to be recognised and there are no media yet.
    """
    if config.listening.hears and (ended := _evaluate_metadata(raw, config, probe)):
        return ended
    scores: dict[str, Any] = {}
    try:
        spoken, scores = listening.words_of(raw, config.listening, None if problem else raw.media)
        if spoken is None:
            if problem:
                raise problem
            return None
        scores |= {"caption_track": spoken.code, "caption_kind": spoken.kind.value}
        stated = [d for d in (_stated_duration(raw), probe.duration) if d]
        # Either may be too long: metadata count whole seconds, and streams can end early.
        duration = min(stated, default=None)
        facts = Facts(
            spoken.words,
            duration,
            _string(raw.info.get("title")),
            _string(raw.info.get("description")),
            _strings(raw.info.get("categories")),
            config.spoken_language,
        )
        broken, rule_scores = filters.apply_filters(facts, config.filters)
        scores |= rule_scores
        if problem and broken in (None, Outcome.DURATION_UNKNOWN):
            raise problem
    except (TranscriptError, MediaError) as error:
        return Result(error.outcome, str(error), scores, VideoText(raw.id))
    if broken or duration is None:
        broken = broken or Outcome.DURATION_UNKNOWN
        return Result(broken, broken.sentence, scores, VideoText(raw.id))
    return _Accepted(spoken, probe, duration, scores)


def _evaluate_metadata(raw: RawVideo, config: VideoConfig, probe: media.Probe) -> Result | None:
    """Return the result of a video rejected by metadata alone, before expensive speech recognition; else `None`."""
    scores: dict[str, Any] = {"categories": _strings(raw.info.get("categories"))}
    if stated := [d for d in (_stated_duration(raw), probe.duration) if d]:
        scores["duration"] = min(stated)
    broken = filters.broken_rule(scores, config.spoken_language, config.filters)
    return Result(broken, broken.sentence, scores, VideoText(raw.id)) if broken else None


def _check_streams(probe: media.Probe, windows: list[Window]) -> None:
    for present, outcome in (
        (windows, Outcome.NO_SEGMENTS),
        (probe.has_picture, Outcome.NO_PICTURE),
        (probe.has_sound, Outcome.NO_SOUND),
    ):
        if not present:
            raise MediaError(outcome, outcome.sentence)


def _stated_duration(raw: RawVideo) -> float | None:
    stated = raw.info.get("duration")
    return float(stated) if isinstance(stated, int | float) and 0 < stated < 1e7 else None


def _video_text(raw: RawVideo, spoken: Spoken, tokenizer: Tokenizer) -> VideoText:
    meta = {key: raw.info[key] for key in META_KEYS if key in raw.info}
    if spoken.times is not Times.TRACK:
        meta["_transcript"] = f"{spoken.kind.value}, times {spoken.times.value}"
    title, description = _string(raw.info.get("title")), _string(raw.info.get("description"))
    tags = ", ".join(_strings(raw.info.get("tags")))
    ids = _encode(tokenizer, [title, tags, description])
    return VideoText(raw.id, ids[0], ids[1], ids[2][:MAX_DESCRIPTION_TOKENS], json.dumps(meta, default=str))


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    encoded = vocabulary.encode_words(tokenizer, [neutralise(text) for text in texts])
    if any(i < FIRST_TEXT_ID for ids in encoded for i in ids):
        raise AssertionError("text encoded to a special token although its spelling was neutralised")
    return encoded


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _strings(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _probe(raw: RawVideo) -> tuple[media.Probe, MediaError | None]:
    """Probe the media; return the error instead of raising it, because the text is evaluated first."""
    nothing = media.Probe(None, False, False)
    if raw.media is None:
        return nothing, MediaError(Outcome.MEDIA_MISSING, Outcome.MEDIA_MISSING.sentence)
    try:
        return media.probe(raw.media), None
    except MediaError as error:
        return nothing, error


def _images(path: str, times: Sequence[float]) -> list[tuple[bytes, int, int]]:
    """Return the frame at each time without the video's black bars, as JPEG bytes, width and height."""
    stream = _all_frames(path, times)
    first = next(stream)
    if first.nbytes * len(times) <= FRAME_MEMORY:
        frames = [first, *stream]
        box = media.black_bars(frames)
        return [media.encode_frame(frame, box) for frame in frames]
    stream.close()
    content = media.Content()
    picked = np.unique(np.linspace(0, len(times) - 1, min(BAR_FRAMES, len(times))).round().astype(int))
    for frame in _all_frames(path, [times[i] for i in picked]):
        content.add(frame)
    return [media.encode_frame(frame, content.box()) for frame in _all_frames(path, times)]


def _all_frames(path: str, times: Sequence[float]) -> Generator[np.ndarray]:
    for time, frame in zip(times, media.frames(path, times), strict=True):
        if frame is None:
            raise MediaError(Outcome.FRAME_MISSING, f"there is no frame at {time:.3f} s")
        yield frame


def _spectrograms(
    path: str, windows: list[Window], language: str, seconds: float
) -> tuple[list[tuple[bytes, float]], dict[str, Any]]:
    """Each window's spectrogram as JPEG bytes and magic number, the track normalised by its loudest sample.

    The track is the one in `language` where there are several, and at most `seconds` of it count.
    """
    with media.sound(path, SAMPLE_RATE, language, min(seconds, media.MAX_SOUND_SECONDS)) as track:
        if not track.length:
            raise MediaError(Outcome.NO_SOUND, "the audio stream holds no sample")
        peak = max(track.peak(), 1)
        encoded = []
        for window in windows:
            first, length = int(SAMPLE_RATE * window.start), spectrogram.SAMPLES * window.speed
            piece = np.zeros(length, np.float32)
            samples = track.read(first, length)
            piece[: len(samples)] = samples
            piece /= peak
            encoded.append(spectrogram.encode(spectrogram.log_mel(piece, window.speed)))
        scores = {"sound_seconds": round(track.length / SAMPLE_RATE, 2), "sound_peak": peak}
        return encoded, scores | ({"sound_track": track.track} if track.track else {})


def _segment(
    window: Window,
    image: tuple[bytes, int, int],
    sound: tuple[bytes, float],
    words: list[Word],
    pieces: list[list[int]],
) -> Segment:
    starts = [(words[i].start - window.start) / window.speed for i in window.words for _ in pieces[i]]
    ends = [(words[i].end - window.start) / window.speed for i in window.words for _ in pieces[i]]
    return Segment(
        start=window.start,
        end=window.end,
        speed=window.speed,
        image=image[0],
        width=image[1],
        height=image[2],
        spectrogram=sound[0],
        magic=sound[1],
        tokens=np.array([token for i in window.words for token in pieces[i]], np.int32),
        token_starts=np.array(starts, np.float32),
        token_ends=np.array(ends, np.float32),
    )
