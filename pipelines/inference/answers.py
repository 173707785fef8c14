"""Answer prompts about one video and print the answers as tables or JSON."""

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
from pipelines.inference.rows import same_tokens_note
from pipelines.inference.weights import input_errors, load_weights
from shards.inspection.plain_table import PlainTable

_BAR = 30


def ask(options: Ask, choices: list[str]) -> int:
    """Answer the prompts, print the answers, and return the exit status."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    clip = read_clip(options.video, options.part)
    for remark in clip.remarks:
        console.print(f"note: {remark}")
    model = load_weights(options.checkpoint, options.grid)
    video = inputs(clip, model.config.grid)
    with input_errors(), printed_warnings(console):
        if note := same_tokens_note(model, choices):
            console.print(f"note: {note}")
        answers = inference.answer_all(model, video, options.prompt, choices, options.use)
        if options.timeline:
            from pipelines.inference.timeline import draw

            timeline = inference.answer_all(model, video, options.prompt[:1], choices, options.use, stride=1)[0][0]
            draw(options.timeline, options.prompt[0], choices, window_times(video, timeline), timeline.over_time())
    if options.json:
        document = [
            as_json(options.video, prompt, choices, video, masks)
            for prompt, masks in zip(options.prompt, answers, strict=True)
        ]
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
        return 0
    for prompt, masks in zip(options.prompt, answers, strict=True):
        for number, answer in enumerate(masks):
            title = prompt if len(masks) == 1 else f"{prompt} (mask {number + 1})"
            Console(highlight=False).print(table(title, answer, options.top))
    return 0


def window_times(video: VideoInputs, answers: Answers) -> np.ndarray:
    """Return start and end of every window in seconds, `float64 [windows, 2]`, of a video with known times."""
    if video.times is None:
        raise ValueError("the times of the video's segments are not known")
    return np.array([(video.times[w[0], 0], video.times[w[-1], 1]) for w in answers.windows])


def as_json(video_name: str, prompt: str, options: list[str], video: VideoInputs, masks: list[Answers]) -> dict:
    """Return the answers at each mask of a prompt, with their windows, as values for JSON."""
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
    """Return a table of the best options with their probabilities."""
    rows = PlainTable("", "option", "probability", "", title=title, title_justify="left")
    for rank, (option, p) in enumerate(zip(answer.options[:top], answer.probabilities[:top], strict=True), 1):
        rows.add_row(str(rank), option, f"{100 * p:.1f} %", "█" * round(_BAR * float(p)))
    return rows


@contextlib.contextmanager
def printed_warnings(console: Console) -> Iterator[None]:
    """Print the warnings of the model, such as for a truncated option, as notes after the block."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            console.print(f"note: {warning.message}")
