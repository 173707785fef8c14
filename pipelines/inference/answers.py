"""Answers about one video: asked of a model, and printed as a table or as JSON."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.table import Table

from model import inference
from model.inference import Answers, VideoInputs
from pipelines.inference.clips import inputs, read_clip
from pipelines.inference.options import Ask
from pipelines.inference.rows import alike_note
from pipelines.inference.weights import input_errors, load_weights
from shards.inspection.plain_table import PlainTable

_BAR = 30


def ask(asked: Ask, options: list[str]) -> int:
    """Answer and print; returns the exit status."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    found = read_clip(asked.video, asked.part)
    for remark in found.remarks:
        console.print(f"note: {remark}")
    model = load_weights(asked.checkpoint, asked.grid)
    video = inputs(found, model.config.grid)
    with input_errors(), spoken_warnings(console):
        if note := alike_note(model, options):
            console.print(f"note: {note}")
        answers = inference.answer_all(model, video, asked.prompt, options, asked.use)
        if asked.timeline:
            from pipelines.inference.timeline import draw

            timeline = inference.answer_all(model, video, asked.prompt[:1], options, asked.use, stride=1)[0][0]
            draw(asked.timeline, asked.prompt[0], options, window_times(video, timeline), timeline.over_time())
    if asked.json:
        document = [
            as_json(asked.video, prompt, options, video, masks)
            for prompt, masks in zip(asked.prompt, answers, strict=True)
        ]
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
        return 0
    for prompt, masks in zip(asked.prompt, answers, strict=True):
        for number, answer in enumerate(masks):
            title = prompt if len(masks) == 1 else f"{prompt} (mask {number + 1})"
            Console(highlight=False).print(table(title, answer, asked.top))
    return 0


def window_times(video: VideoInputs, answers: Answers) -> np.ndarray:
    """Start and end in seconds of every window: `float64 [windows, 2]`."""
    return np.array([(video.times[w[0], 0], video.times[w[-1], 1]) for w in answers.windows])


def as_json(video_name: str, prompt: str, options: list[str], video: VideoInputs, masks: list[Answers]) -> dict:
    """The answers at each mask of a prompt as JSON-able values, with their windows."""
    return {
        "video": video_name,
        "prompt": prompt,
        "answers": [
            {
                "options": [
                    {"option": option, "probability": round(float(p), 6)}
                    for option, p in zip(answer.options, answer.probabilities, strict=True)
                ],
                "windows": [
                    {"start": start, "end": end, "probabilities": dict(zip(options, row, strict=True))}
                    for (start, end), row in zip(
                        window_times(video, answer).tolist(), answer.over_time().round(6).tolist(), strict=True
                    )
                ],
            }
            for answer in masks
        ],
    }


def table(title: str, answer: Answers, top: int) -> Table:
    """The best options with their probabilities."""
    rows = PlainTable("", "option", "probability", "", title=title, title_justify="left")
    for rank, (option, p) in enumerate(zip(answer.options[:top], answer.probabilities[:top], strict=True), 1):
        rows.add_row(str(rank), option, f"{100 * p:.1f} %", "█" * round(_BAR * float(p)))
    return rows


@contextlib.contextmanager
def spoken_warnings(console: Console) -> Iterator[None]:
    """Print what the model warns of, such as an option that is cut, as notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for said in caught:
        if issubclass(said.category, UserWarning):
            console.print(f"note: {said.message}")
