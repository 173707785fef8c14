"""Files that vanish, change or are cut while the job runs, and a data folder that is removed under it."""

import shutil
import signal
from pathlib import Path

import pytest

from shards.dataset.ledger import Ledger
from shards.dataset.video_store import VideoStore

pytestmark = pytest.mark.faults


@pytest.fixture
def videos(corpus, tmp_path):
    return shutil.copytree(corpus / "train", tmp_path / "videos")


def outcomes(folder):
    return {name: entry.outcome for name, entry in Ledger(str(folder)).entries().items()}


def remove_media(video):
    video.unlink()


def cut_media(video):
    video.write_bytes(video.read_bytes()[:2000])


def replace_media(video):
    video.write_bytes(b"another film")


def remove_captions(video):
    video.with_suffix(".en.vtt").unlink()


def empty_captions(video):
    video.with_suffix(".en.vtt").write_bytes(b"")


@pytest.mark.parametrize("fault", [remove_media, cut_media, replace_media, remove_captions, empty_captions])
def test_a_file_that_changes_during_the_job_is_retryable(start, finish, undisturbed, videos, tmp_path, faults, fault):
    out, kept = tmp_path / "out", tmp_path / "kept"
    shutil.copytree(videos, kept)
    job = start(out, videos=videos)
    job.wait_until(lambda: list(out.glob("videos/*/*.video")))
    job.pause()
    done = {Path(path).name.removesuffix(".video") for path in VideoStore(str(out)).paths()}
    waiting = sorted(path for path in videos.glob("*.mp4") if path.stem not in done)
    assert waiting
    for video in waiting:
        fault(video)
    job.send_signal(signal.SIGCONT)
    ran = job.wait()
    ended = outcomes(out)
    assert ran.status == 0, ran.err
    changed = {video.stem for video in waiting if ended[video.stem] != "extracted"}
    assert changed, "every video was read before its file changed"
    assert {ended[name] for name in changed} <= {"input-changed", "input-unreadable"}
    assert {Ledger(str(out)).entries()[name].kind for name in changed} == {"failed-retryable"}
    faults.record(f"while the job runs: {fault.__name__}", "failed-retryable", str(sorted(set(ended.values()))))
    for path in kept.iterdir():
        shutil.copy2(path, videos)
    finish(out, "--retry-failed", videos=videos)
    assert set(outcomes(out).values()) == {"extracted"}


def test_a_data_folder_that_is_removed_ends_the_job(start, tmp_path, faults):
    out = tmp_path / "out"
    job = start(out)
    job.wait_until(lambda: list(out.glob("videos/*/*.video")))
    job.pause()
    shutil.rmtree(out)
    job.send_signal(signal.SIGCONT)
    ran = job.wait()
    assert ran.status == 1, ran.err
    assert f"the data folder {str(out)!r} was removed or emptied while the job ran" in ran.err
    assert "Traceback" not in ran.err
    assert not (out / "manifest.json").exists()
    faults.record("data folder removed under the job", "exit 1", ran.err.strip().splitlines()[-1])
