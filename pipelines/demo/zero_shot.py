"""Answer zero-shot questions about the corpus: convert truth files to prompts, and answers to accuracies."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from model import inference
from model.config import ReserveConfig
from model.pretrained import Pretrained
from model.reserve import PADDING_SEGMENT
from pipelines.demo.options import QuestionOptions
from pipelines.demo.scenes import ATTRIBUTES
from shards.arrays import audio, images
from shards.reader import examples
from shards.reading.pretraining import DecodedSegment
from shards.storage import filesystem
from shards.storage.errors import UsageError
from shards.tokens import AUDIOSPAN, PADDING
from train import weights
from train.metrics.figures import Accuracy, NotFiniteError, accuracy_table, tally

BLANKED = ("nothing", "frames", "sound")
"""The inputs that are blanked in each round of the same questions."""

_TOLERANCE = 1.0
"""Maximum difference in seconds between the times of a segment and of its stretch; see `ingest.segmentation`."""


@dataclass(frozen=True)
class Question:
    """A question about one segment of a window of consecutive segments."""

    video: str
    kind: str
    prompt: str
    options: tuple[str, ...]
    answer: str
    window: int
    segment: int


def run(options: QuestionOptions) -> int:
    """Answer all questions with nothing, frames or sound blanked, print the accuracies, and return the exit status."""
    model = weights.pretrained(options.checkpoint)
    windows = [segments for segments, _ in examples(options.data, options.split)]
    questions = list(itertools.islice(find_questions(windows, options.truth), options.limit))
    if not questions:
        raise UsageError(
            f"no question in {options.truth!r} is about a segment of {options.data!r}; give the corpus of this data set"
        )
    videos = [video_inputs(model.config, segments) for segments in windows]
    results = {}
    for blanked in BLANKED:
        credits = answer(model, [without(video, blanked) for video in videos], questions)
        results[blanked] = accuracies(questions, credits)
    console = Console()
    for blanked, table in results.items():
        console.print(accuracy_table(f"zero-shot questions, {blanked} blanked", table))
    if options.out:
        content = {blanked: {kind: asdict(one) for kind, one in table.items()} for blanked, table in results.items()}
        filesystem.write_bytes(options.out, (json.dumps(content, indent=1) + "\n").encode())
    return 0


def find_questions(windows: Sequence[Sequence[DecodedSegment]], truth: str) -> Iterator[Question]:
    """Yield the questions of all truth files in the folder `truth` that are about a segment of a window."""
    places: dict[str, list[tuple[float, float, int, int]]] = {}
    for number, segments in enumerate(windows):
        for place, segment in enumerate(segments):
            places.setdefault(segment.video_id, []).append((segment.start, segment.end, number, place))
    for path in sorted(Path(truth).glob("*.truth.json")):
        truth_of_video = json.loads(path.read_text())
        video = truth_of_video["id"]
        for item in truth_of_video["questions"]:
            for start, end, number, place in places.get(video, []):
                if max(abs(start - item["start"]), abs(end - item["end"])) <= _TOLERANCE:
                    options = tuple(item["options"])
                    yield Question(video, item["kind"], item["prompt"], options, item["answer"], number, place)


def video_inputs(config: ReserveConfig, segments: Sequence[DecodedSegment]) -> inference.VideoInputs:
    """Return the arrays of consecutive segments, as the reader creates them without augmentation."""
    shape = (len(segments), config.subsegments, config.audio_frames, config.mel_bands + 1)
    patches = np.zeros((len(segments), config.patches, config.patch_values), np.float32)
    clips = np.empty(shape, np.float32)
    # Equal draws result in equal gaps between the clips.
    starts = audio.clip_starts(np.ones(config.subsegments + 1), config.audio_frames)
    rows, columns = config.grid
    size = (rows * config.patch_size, columns * config.patch_size)
    for segment, picture, sounds in zip(segments, patches, clips, strict=True):
        height, width, _ = segment.image.shape
        placement = images.place(height, width, size, None, None)
        images.write_patches(segment.image, placement, config.grid, config.patch_size, picture)
        for start, clip in zip(starts, sounds, strict=True):
            clip[:, :-1] = segment.log_mel[start : start + config.audio_frames]
            clip[:, -1] = segment.speed
    return inference.VideoInputs(patches, clips)


def without(video: inference.VideoInputs, blanked: str) -> inference.VideoInputs:
    """Return the video with black frames, with silence, or unchanged."""
    if blanked == "frames":
        return replace(video, images=np.zeros_like(video.images))
    if blanked == "sound" and video.audio_clips is not None:
        silent = video.audio_clips.copy()
        silent[..., :-1] = 0
        return replace(video, audio_clips=silent)
    return video


def window_with_prompt(
    config: ReserveConfig, window: range, prompt: Sequence[int], prompt_segment: int
) -> inference.WindowInputs:
    """Return the audio of all segments of a window, and a prompt after the first audio span of its segment.

    This is the format of pretraining's audio-to-text sequences, in which the segment of the prompt has audio as well as
    an image. Audio spans of the last segments that do not fit into the model's `text_length` are omitted.
    """
    parts: list[tuple[int, Sequence[int]]] = []
    for row in range(len(window) * config.subsegments):
        segment, place = divmod(row, config.subsegments)
        if segment != prompt_segment or place == 0:
            parts.append((row, [AUDIOSPAN] * config.audio_tokens))
        elif place == 1:
            parts.append((row, prompt))
    length = config.text_length
    while sum(len(ids) for _, ids in parts) > length:
        parts.remove(next(part for part in reversed(parts) if part[0] // config.subsegments != prompt_segment))
    tokens = np.full(length, PADDING, np.int32)
    subsegments = np.full(length, PADDING_SEGMENT, np.int32)
    joined = [(token, row) for row, ids in parts for token in ids]
    tokens[: len(joined)], subsegments[: len(joined)] = zip(*joined, strict=True)
    return inference.WindowInputs(window, tokens, subsegments)


def answer(model: Pretrained, videos: Sequence[inference.VideoInputs], questions: Sequence[Question]) -> np.ndarray:
    """Return the credit of the best option of each question, `float [questions]`: 1/k if k options are equally good.

    Raises `NotFiniteError` for scores that are not finite.
    """
    prompts = {q.prompt: inference.encode_prompt(model, q.prompt) for q in questions}
    labels = {q.options: np.asarray(model.get_label_space(q.options)) for q in questions}
    # The videos are concatenated, so that each is encoded once, however many questions it has.
    clips = [video.audio_clips for video in videos if video.audio_clips is not None]
    together = inference.VideoInputs(np.concatenate([video.images for video in videos]), np.concatenate(clips))
    ends = np.cumsum([len(video.images) for video in videos]).tolist()
    windows = [range(end - len(video.images), end) for end, video in zip(ends, videos, strict=True)]
    inputs = [window_with_prompt(model.config, windows[q.window], prompts[q.prompt], q.segment) for q in questions]
    vectors = inference.mask_vectors(model, inference.encode(model, together, with_sound=True), inputs)
    scores = [labels[q.options] @ vector[0] for q, vector in zip(questions, vectors, strict=True)]
    if not all(np.isfinite(one).all() for one in scores):
        raise NotFiniteError("scores of options are not finite: the weights are damaged or their training diverged")
    return np.array([_credit(one, q.options.index(q.answer)) for one, q in zip(scores, questions, strict=True)])


def _credit(scores: np.ndarray, label: int) -> float:
    best = scores == scores.max()
    return best[label] / best.sum()


def accuracies(questions: Sequence[Question], credits: Iterable[float]) -> Mapping[str, Accuracy]:
    """Return the accuracy of each kind of question and of all.

    Confidence intervals treat the questions of a video as dependent. The majority answer is that of each kind.
    """
    answers = {kind: Counter(q.answer for q in questions if q.kind == kind) for kind in ATTRIBUTES}
    most = {kind: max(counts.values(), default=0) for kind, counts in answers.items()}
    most["all"] = sum(most.values())
    rows = [(q.kind, q.video, hit, 1 / len(q.options)) for q, hit in zip(questions, credits, strict=True)]
    table = {}
    for kind in [*ATTRIBUTES, "all"]:
        by_video: dict[str, np.ndarray] = {}
        for kind_of_question, video, hit, odds in rows:
            if kind in ("all", kind_of_question):
                by_video[video] = by_video.get(video, np.zeros(3)) + (hit, 1, odds)
        if by_video:
            counts = np.array(list(by_video.values()))
            table[kind] = tally(counts, majority=most[kind] / counts[:, 1].sum())
    return table
