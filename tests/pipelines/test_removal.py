"""Videos that are taken out leave no trace, the others stay as they were, and nobody takes them up again."""

import json
import shutil
from pathlib import Path

import pytest

from pipelines.preprocessing import status_report
from shards.dataset import ledger, manifest, removal, sidecar
from shards.dataset import location as dataset
from shards.dataset.ledger import Ledger
from shards.inspection import stats
from shards.records import tfrecord
from shards.records.pretraining import parse_example
from shards.storage import filesystem
from shards.storage.errors import StorageError, UsageError


@pytest.fixture(scope="module")
def made(tmp_path_factory, run, corpus, quick):
    out = tmp_path_factory.mktemp("made") / "data"
    ran = run.preprocess("--videos", corpus / "train", "--out", out, *quick)
    assert ran.status == 0, ran.err
    return out


@pytest.fixture
def data(made, tmp_path):
    return shutil.copytree(made, tmp_path / "data")


def examples(data):
    """The bytes of every example, and the videos in it."""
    found = {}
    for path in dataset.open_data(str(data)).shards:
        with filesystem.open_read(path) as file:
            for _, payload in tfrecord.scan(file, path):
                found[payload] = {placed.text.video_id for placed in parse_example(payload).segments}
    return found


def a_video(data):
    return sorted(next(iter(examples(data).values())))[0]


def test_a_video_is_gone_and_the_other_examples_are_the_same(data, run):
    before, victim = examples(data), a_video(data)
    untouched = {shard.name: (data / shard.name).stat().st_mtime_ns for shard in manifest.load(str(data)).shards()}
    (data.parent / "ids.txt").write_text(f"{victim}\nnever-seen1\n")
    ran = run("shards", "remove", data, "--ids", data.parent / "ids.txt")
    assert ran.status == 0, ran.err
    assert ran.out.startswith("1 of 2 videos were in the shards")
    assert examples(data) == {payload: videos for payload, videos in before.items() if victim not in videos}
    assert not any(victim.encode() in p.read_bytes() for p in data.iterdir() if p.suffix in (".tfrecord", ".index"))
    kept = {name for name in untouched if (data / name).exists()}
    assert all((data / name).stat().st_mtime_ns == untouched[name] for name in kept)
    assert run("shards", "verify", data).status == 0
    assert run("shards", "stats", data).status == 0
    entries = Ledger(str(data)).entries()
    assert entries[victim].outcome == "withdrawn"
    assert victim not in json.dumps([g.remainder for g in manifest.load(str(data)).generations])
    assert {"withdrawn": 2} in stats.summarize(dataset.open_data(str(data))).outcomes.values()
    assert stats.summarize(dataset.open_data(str(data))).outcomes["done"]["extracted"] == 5


def test_nobody_takes_it_up_again(data, run, corpus, quick):
    victim = a_video(data)
    removal.remove(str(data), [victim])
    after = examples(data)
    ran = run.preprocess("--videos", corpus / "train", "--out", data, *quick)
    assert ran.status == 0, ran.err
    assert examples(data) == after
    again = removal.remove(str(data), [victim])
    assert (again.videos, again.shards) == (0, 0)


@pytest.mark.parametrize("moment", ["written", "committed"])
def test_an_interrupted_removal_is_finished_by_the_next(data, monkeypatch, moment):
    victim = a_video(data)
    whole = shutil.copytree(data, data.parent / "whole")
    removal.remove(str(whole), [victim])
    name = {"written": (manifest, "save"), "committed": (removal, "_sweep")}[moment]
    real, calls = getattr(*name), []

    def stop(*arguments):
        calls.append(arguments)
        if moment == "committed" and len(calls) == 1:
            return real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(*name, stop)
        with pytest.raises(KeyboardInterrupt):
            removal.remove(str(data), [victim])
    assert examples(data), "what is there can be read"
    removal.remove(str(data), [victim])
    assert examples(data) == examples(whole)
    shards = [p.name for p in data.glob("*.tfrecord")]
    assert sorted(shards) == sorted(s.name for s in manifest.load(str(data)).shards())


def test_a_removal_waits_for_no_other_job(data):
    held = filesystem.exclusive(str(data / ".lock"))
    with held, pytest.raises(StorageError, match="another job"):
        removal.remove(str(data), ["x"])


def test_a_sidecar_that_says_nothing_is_named(data):
    victim = a_video(data)
    sidecars = {path.stem.removesuffix(".stats"): path for path in data.glob("*of*.stats.json")}
    with_victim = {
        stem
        for stem, path in sidecars.items()
        if victim in {r[0] for g in json.loads(path.read_text())["runs"] for r in g}
    }
    kept = {stem: path.read_text() for stem, path in sidecars.items()}
    for stem in with_victim:
        sidecars[stem].write_text("{}")
    with pytest.raises(sidecar.SidecarError, match="is missing or damaged"):
        removal.remove(str(data), [victim])
    for stem, path in sidecars.items():
        path.write_text(kept[stem] if stem in with_victim else "{}")
    with pytest.raises(manifest.ManifestError, match="is damaged"):
        # The others are not asked for the video; it is their statistics that are summed again.
        removal.remove(str(data), [victim])


def test_a_block_list_keeps_videos_out(tmp_path, run, corpus, quick):
    names = sorted(p.stem for p in (corpus / "train").glob("*.mp4"))
    (tmp_path / "blocked.txt").write_text(names[0] + "\n")
    out = tmp_path / "data"
    ran = run.preprocess("--videos", corpus / "train", "--out", out, "--blocklist", tmp_path / "blocked.txt", *quick)
    assert ran.status == 0, ran.err
    entries = Ledger(str(out)).entries()
    assert entries[names[0]].outcome == "blocked"
    assert set().union(*examples(out).values()) <= set(names[1:])


def test_the_status_of_a_job(data, run):
    found = status_report.report(str(data), now=(data / "manifest.json").stat().st_mtime + 10)
    assert (found.finished, found.in_store) == (6, 0)
    assert found.hours > 0
    assert found.reasons[0].outcome == "extracted"
    assert found.examples == len(examples(data))
    ran = run("pipelines.status", data)
    assert ran.status == 0, ran.err
    assert "videos with an outcome in a generation" in ran.out
    assert json.loads(run("pipelines.status", data, "--json").out)["finished"] == 6


def test_where_no_job_worked(tmp_path):
    with pytest.raises(UsageError, match="has no manifest and no job"):
        status_report.report(str(tmp_path), now=0.0)


def contents(data):
    return {path.name: path.read_bytes() for path in data.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("nosuch.txt", "'nosuch.txt' is neither a file nor the id or address of a video; nothing was removed"),
        ("x" * 300, "is neither a file nor"),
        ("https://example.org/list.txt", "nothing was removed"),
        ("", "'' is neither a file nor"),
    ],
)
def test_a_list_that_is_not_there_removes_nothing(data, run, given, sentence):
    before = contents(data)
    ran = run("shards", "remove", data, "--ids", given)
    assert (ran.status, sentence in ran.err) == (2, True), ran.err
    assert contents(data) == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{victim}\nno video\nhttps://example.org/x\n", "2 of 3 entries of"),
        ("", "is empty"),
        ("name,size\na b,3\nc d,4\n", "has no column 'video_id'"),
    ],
)
def test_a_list_with_an_invalid_entry_removes_nothing(data, run, content, sentence):
    (data.parent / "ids.txt").write_text(content.format(victim=a_video(data)))
    before = contents(data)
    ran = run("shards", "remove", data, "--ids", data.parent / "ids.txt")
    assert (ran.status, sentence in ran.err) == (2, True), ran.err
    assert contents(data) == before


@pytest.mark.parametrize("form", ["table", "address", "id"])
def test_a_removal_reads_the_lists_that_preprocess_reads(data, run, form):
    victim = a_video(data)
    given = victim if form == "id" else f"https://youtu.be/{victim}?t=3"
    if form == "table":
        given = data.parent / "ids.csv"
        given.write_text(f'title,video_id\n"a, b",{victim}\nother,never-seen1\n')
    ran = run("shards", "remove", data, "--ids", given)
    assert ran.status == 0, ran.err
    assert not any(victim in videos for videos in examples(data).values())
    assert ("1 in no shard: 'never-seen1'; jobs of this folder will skip them" in ran.out) == (form == "table")


def test_videos_with_names_of_their_own_can_be_removed(run, corpus, quick, tmp_path):
    shutil.copytree(corpus / "train", tmp_path / "videos")
    first = min((tmp_path / "videos").glob("*.mp4"))
    for path in list((tmp_path / "videos").glob(f"{first.stem}.*")):
        path.rename(path.with_name(path.name.replace(first.stem, "my own clip")))
    out = tmp_path / "data"
    ran = run.preprocess("--videos", tmp_path / "videos", "--out", out, *quick)
    assert ran.status == 0, ran.err
    ran = run("shards", "remove", out, "--ids", "my own clip")
    assert ran.status == 0, ran.err
    assert ran.out.startswith("1 of 1 videos were in the shards")
    assert not any("my own clip" in videos for videos in examples(out).values())


@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_a_damaged_list_of_removals_is_an_error(data, run, corpus, quick, kept):
    """Half of the list gone would let the job take up a video again that was withdrawn."""
    for number in range(3):
        assert run("shards", "remove", data, "--ids", f"gOldVidX_0{number}").status == 0
    path = Path(ledger.removals_path(str(data)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    job = run.preprocess("--videos", corpus / "train", "--out", data, *quick)
    removal_of_another = run("shards", "remove", data, "--ids", "gOldVidX_09")
    for ended in (job, removal_of_another):
        assert ended.status == 1
        assert "is damaged: line" in ended.err


def test_a_damaged_part_of_a_ledger_is_one_sentence(data, run, corpus, quick):
    part = next((data / "ledger").glob("*.jsonl"))
    part.write_bytes(part.read_bytes()[:-20])
    before = (data / "manifest.json").read_bytes()
    ended = run.preprocess("--videos", corpus / "train", "--out", data, *quick)
    assert ended.status == 1
    assert "is damaged: line" in ended.err
    assert "Traceback" not in ended.err
    assert (data / "manifest.json").read_bytes() == before
