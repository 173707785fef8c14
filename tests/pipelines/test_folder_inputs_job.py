"""The job over a folder as people have it: odd names, two files of one name, files that are changed between runs."""

import json
import os
import shutil
from pathlib import Path

import pytest
from data_folders import content

from shards.dataset.ledger import Ledger


@pytest.fixture
def videos(corpus, tmp_path):
    """Two videos of the corpus."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in names(corpus / "train")[:2]:
        for path in (corpus / "train").glob(f"{name}.*"):
            shutil.copy(path, folder)
    return folder


def names(folder):
    return sorted(path.stem for path in Path(folder).glob("*.mp4"))


@pytest.fixture
def job(run, videos, quick, tmp_path):
    def start(*more):
        ran = run.preprocess("--videos", videos, "--out", tmp_path / "out", *quick, *more)
        assert ran.status == 0, ran.err
        return ran

    return start


def outcomes(tmp_path):
    return {name: entry.outcome for name, entry in Ledger(str(tmp_path / "out")).entries().items()}


def test_each_file_has_an_outcome_and_none_ends_the_job(job, videos, tmp_path):
    first, second = names(videos)
    for suffix in (b".mp4", b".en.vtt"):
        odd = os.fsdecode(bytes(videos) + b"/caf\xe9" + suffix)
        shutil.copy(videos / f"{first}{suffix.decode()}", odd)
    shutil.copy(videos / f"{first}.mp4", videos / f"{first}.mkv")
    shutil.copy(videos / f"{first}.mp4", videos / "styled.mp4")
    (videos / "styled.en.ass").write_text("[Script Info]")
    shutil.copy(videos / f"{second}.mp4", videos / "PLAIN.MP4")
    shutil.copy(videos / f"{second}.en.vtt", videos / "PLAIN.VTT")
    with (videos / f"{second}.info.json").open("wb") as file:
        file.truncate(1 << 31)
    (videos / f"._{first}.mp4").write_bytes(b"Mac OS X")
    ran = job()
    assert outcomes(tmp_path) == {
        first: "extracted",
        f"{first}.mkv": "duplicate-name",
        second: "too-large",
        "PLAIN": "extracted",
        "caf\\xe9": "bad-id",
        "styled": "no-captions",
    }
    assert "note: 1 hidden files" in ran.err
    entries = Ledger(str(tmp_path / "out")).entries()
    assert f"{first}.mp4" in entries[f"{first}.mkv"].detail
    assert "'styled.en.ass' is not vtt, srt or json3" in entries["styled"].detail
    assert "rename the file" in entries["caf\\xe9"].detail
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert sum(count for _, _, count in report["outcomes"]) == 6


@pytest.mark.parametrize("stage", ["all", "extract"])
def test_a_rejected_video_with_a_changed_file_is_retried(job, videos, tmp_path, stage):
    first, second = names(videos)
    captions = videos / f"{first}.en.vtt"
    right = captions.read_bytes()
    captions.write_bytes(b"nothing")
    job("--stage", stage)
    if stage == "all":
        assert outcomes(tmp_path) == {first: "captions-unreadable", second: "extracted"}
    kept = content(tmp_path / "out")
    job("--stage", stage)
    assert content(tmp_path / "out") == kept, "nothing changed"
    captions.write_bytes(right)
    # What gave segments is not looked at again.
    (videos / f"{second}.en.vtt").write_bytes(b"nothing")
    job()
    assert outcomes(tmp_path) == {first: "extracted", second: "extracted"}
    if stage == "all":
        assert Ledger(str(tmp_path / "out")).entries()[first].earlier == "rejected/captions-unreadable"
