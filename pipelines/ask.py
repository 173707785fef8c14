"""Ask a video: `python -m pipelines.ask clip.mp4 --prompt "in this video I'll be <|MASK|>" --options "a,b,c"`.

As a library it is three lines: load weights, `read` a video, `answer`. The command prints the options with their
probabilities, as a table or as JSON, and can draw how they change over the video.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from ingest import clip, raw
from ingest.clip import Clip, ClipError
from ingest.ids import video_id
from ingest.raw import RawError, RawVideo
from model import inference
from model.inference import Answers, Use, VideoInputs
from model.published import DEFAULT_GRID
from pipelines.weights import input_errors, load_weights
from shards.errors import UsageError, run_command

_BAR = 30


@dataclass(frozen=True)
class Part:
    """Which part of a video is asked about, and what is said in it."""

    start: float = 0.0
    """Seconds into the video."""
    end: float | None = None
    """The video's end if not given."""
    captions: str | None = None
    """A .vtt, .srt or .json3 file; without one, captions beside the video are taken."""


@dataclass(frozen=True)
class Ask:
    """Ask a video which option fills the <|MASK|> of a prompt."""

    video: Annotated[str, tyro.conf.Positional]
    """A video file, or an id or address of YouTube."""
    prompt: tuple[str, ...]
    """One or more sentences with one or more <|MASK|>."""
    options: str = ""
    """Answers to choose from, with commas between them."""
    options_file: str | None = None
    """A file with one answer a line."""
    checkpoint: str = "base"
    """base, large, a file, a folder of a run's export, or a gs:// or https:// address."""
    grid: tuple[int, int] | None = None
    """Rows and columns of 16-pixel patches; the checkpoint's own, or 18 32, if not given."""
    part: Annotated[Part, tyro.conf.arg(name="")] = Part()
    use: Use = "auto"
    """What to use beside the frames: sound, else captions, else nothing; or only what is named."""
    timeline: str | None = None
    """Draw the probabilities over time into this PNG."""
    json: bool = False
    """Print JSON."""
    top: int = 10
    """Rows of the table."""


def read(
    video: str,
    grid: tuple[int, int] = DEFAULT_GRID,
    start: float = 0.0,
    end: float | None = None,
    captions: str | None = None,
) -> VideoInputs:
    """A video as the arrays that a model with this grid answers from; see `Part` for the other arguments.

    Raises `ClipError` if it cannot be read or downloaded.
    """
    return inputs(read_clip(video, Part(start, end, captions)), grid)


def inputs(found: Clip, grid: tuple[int, int]) -> VideoInputs:
    """A clip as arrays for a model with this grid."""
    return VideoInputs(found.patches(grid), found.audio_clips(), found.texts, found.times)


def read_clip(video: str, part: Part) -> Clip:
    """The segments of a file, or of a video on YouTube. Raises `ClipError`."""
    with tempfile.TemporaryDirectory(prefix="reservoir-ask-") as folder:
        held = _fetched(video, folder)
        words = clip.file_words(part.captions) if part.captions else clip.track_words(held)
        return clip.read_clip(held.media, part.start, part.end, words)


def _fetched(video: str, folder: str) -> RawVideo:
    """The raw video of a file, or what yt-dlp downloads into `folder`."""
    if Path(video).is_file():
        try:
            return raw.from_folder(video)
        except (OSError, RawError) as error:
            raise ClipError(f"{video!r} cannot be read: {error}") from None
    found = video_id(video)
    if found is None:
        raise ClipError(f"{video!r} is neither a file nor an id or address of YouTube")
    # Downloading and drawing take a second each to import, and most questions need neither.
    from ingest.config import DownloadConfig
    from ingest.download import Downloader

    downloaded = Downloader(folder, DownloadConfig(), "en")(found)
    if not isinstance(downloaded, RawVideo):
        raise ClipError(f"{found} cannot be downloaded: {downloaded.outcome.value}: {downloaded.detail}")
    return downloaded


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    asked = tyro.cli(Ask, args=argv, prog="python -m pipelines.ask")
    options = listed_options(asked.options, asked.options_file)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    found = read_clip(asked.video, asked.part)
    for remark in found.remarks:
        console.print(f"note: {remark}")
    model = load_weights(asked.checkpoint, asked.grid)
    video = inputs(found, model.config.grid)
    with input_errors(), spoken_warnings(console):
        answers = inference.answer_all(model, video, asked.prompt, options, asked.use)
        if asked.timeline:
            from pipelines.timeline import draw

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


def listed_options(options: str, options_file: str | None) -> list[str]:
    """The answers of a command line and of a file. Raises `UsageError` if there are none."""
    listed = [option.strip() for option in options.split(",") if option.strip()]
    if options_file:
        try:
            listed += [line.strip() for line in Path(options_file).read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--options-file {options_file!r} cannot be read: {error}") from None
    if not listed:
        raise UsageError('there are no options; give --options "a,b,c" or --options-file')
    return listed


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
    rows = Table("", "option", "probability", "", title=title, title_justify="left")
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


if __name__ == "__main__":
    sys.exit(run_command(main))
