"""Right frames and right sound, container by container, on generated media whose answers are known.

    python -m benchmarks.media_truth

Each file shows numbered frames and has clicks at known times (`tests/numbered_media.py`). The table counts frames that
are the one which decoding everything gives, frames that `ffmpeg -ss` gives, and the worst error of the numbers (in
pictures, of ten a second) and of the clicks (in milliseconds).
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from ingest import media
from tests import numbered_media
from tests.numbered_media import FILMS, RATE, Film


@dataclass(frozen=True)
class Options:
    """Print the table as Markdown."""

    only: str = ""
    """Files whose name has this in it."""


@dataclass(frozen=True)
class Score:
    """How one file was read: right frames of all, those of ffmpeg, and the worst errors."""

    frames: int
    right: int
    like_ffmpeg: int
    picture_error: float
    click_error: float
    clicks: int
    duration: float | None


def expected(film: Film, time: float) -> float:
    """The number that the ten pictures a second show at a time."""
    return film.first + max(time - film.late, 0.0) * RATE


def score(film: Film, path: Path) -> Score:
    """Read frames one by one and in a row, and the sound."""
    times = [time for time in film.times if time < film.end + film.late - 0.2]
    alone = [numbered_media.number(next(media.frames(str(path), [time]))) for time in times]
    in_a_row = [numbered_media.number(frame) for frame in media.frames(str(path), times)]
    truth = numbered_media.decoded_truth(path, times)
    ffmpeg = [numbered_media.sought_truth(path, time) for time in times]
    shown = [*zip(alone, times, strict=True), *zip(in_a_row, times, strict=True)]
    errors = [math.inf if n is None else abs(n - expected(film, time)) for n, time in shown]
    _, waveform = media.read(str(path), [])
    clicks = numbered_media.click_times(waveform)
    same_count = len(clicks) == len(film.clicks)
    off = max((abs(a - b) for a, b in zip(clicks, film.clicks, strict=True)), default=0.0) if same_count else math.inf
    return Score(
        len(times),
        sum(a == b == c for a, b, c in zip(alone, in_a_row, truth, strict=True)),
        sum(a == b for a, b in zip(alone, ffmpeg, strict=True)),
        max(errors),
        1000 * off,
        len(clicks),
        media.probe(str(path)).duration,
    )


def main() -> None:
    """Print a row for each file."""
    options = tyro.cli(Options, description=__doc__)
    print("| file | right frames | as `ffmpeg -ss` | worst number | clicks | worst click, ms | duration, s |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder)
        numbered_media.write_sources(sources)
        for film in FILMS:
            if options.only in film.name:
                path = sources / film.name
                film.build(sources, path)
                s = score(film, path)
                print(
                    f"| {film.name} | {s.right}/{s.frames} | {s.like_ffmpeg}/{s.frames} | {s.picture_error:.1f} "
                    f"| {s.clicks} | {s.click_error:.0f} | {s.duration and round(s.duration, 2)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
