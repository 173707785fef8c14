"""How jobs follow each other on one data folder: stages, slices, retries, other jobs, and what interrupted ones left."""

import json
import shutil
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from data_folders import content

from pipelines.preprocessing import graph
from pipelines.preprocessing.job_config import commit_config
from pipelines.preprocessing.options import parse
from shards.dataset import location as dataset
from shards.dataset import manifest, removal
from shards.dataset.ledger import Ledger
from shards.dataset.manifest import Generation
from shards.dataset.video_store import VideoStore
from shards.inspection import stats
from shards.inspection.verify import verify
from shards.storage import filesystem


@pytest.fixture
def videos(corpus, tmp_path):
    return shutil.copytree(corpus / "train", tmp_path / "videos")


def names(folder):
    return sorted(path.stem for path in Path(folder).glob("*.mp4"))


def build(options):
    """The graph of a job on a new pipeline of this process, as it is when the folder is as it is now."""
    filesystem.make_folder(options.out)
    pipeline = beam.Pipeline(runner=FnApiRunner())
    graph.build(pipeline, options, commit_config(options))
    return pipeline


def segments_in_shards(out):
    """Every segment of the shards as (video, number), as the sidecars name them."""
    found = []
    for shard in manifest.load(str(out)).shards():
        path = Path(out) / shard.name.replace(".tfrecord", ".stats.json")
        for group in json.loads(path.read_text())["runs"]:
            found += [(video, number) for video, first, stop in group for number in range(first, stop)]
    return found


def test_stages_one_after_the_other_make_what_one_job_makes(run, corpus, quick, undisturbed, tmp_path):
    out = tmp_path / "out"
    for stage in ("extract", "assemble"):
        assert not (out / "manifest.json").exists()
        ran = run.preprocess("--videos", corpus / "train", "--out", out, "--stage", stage, *quick)
        assert ran.status == 0, ran.err
    assert content(out) == content(undisturbed)
    assert not list(VideoStore(str(out)).paths())


def test_a_restarted_job_repeats_nothing_that_is_committed(run, corpus, quick, undisturbed, tmp_path):
    out = tmp_path / "out"
    extract = ["--videos", corpus / "train", "--out", out, "--stage", "extract", *quick]
    assert run.preprocess(*extract).status == 0
    made = {path: Path(path).stat().st_mtime_ns for path in VideoStore(str(out)).paths()}
    assert len(made) == 6
    assert run.preprocess(*extract).status == 0
    assert {path: Path(path).stat().st_mtime_ns for path in made} == made
    ran = run.preprocess("--videos", corpus / "train", "--out", out, *quick)
    assert ran.status == 0, ran.err
    assert content(out) == content(undisturbed)


def test_a_damaged_object_is_made_again(run, corpus, quick, undisturbed, tmp_path):
    out = tmp_path / "out"
    job = ["--videos", corpus / "train", "--out", out, *quick]
    assert run.preprocess(*job, "--stage", "extract").status == 0
    path = Path(next(VideoStore(str(out)).paths()))
    path.write_bytes(path.read_bytes()[:-100])
    ran = run.preprocess(*job)
    assert ran.status == 0, ran.err
    assert content(out) == content(undisturbed)


def test_slices_are_generations_that_lose_nothing(run, videos, quick, tmp_path):
    out = tmp_path / "out"
    for number in (1, 2, 3):
        ran = run.preprocess("--videos", videos, "--out", out, "--slice", f"{number}/3", *quick)
        assert ran.status == 0, ran.err
    generations = manifest.load(str(out)).generations
    assert sum(generation.videos for generation in generations) == 6
    waiting = [(video, n) for video, first, stop in generations[-1].remainder for n in range(first, stop)]
    assert len(waiting) < 4
    entries = Ledger(str(out)).entries()
    assert sorted(entries) == names(videos)
    expected = [(video, n) for video, entry in entries.items() for n in range(entry.segments)]
    assert sorted(segments_in_shards(out) + waiting) == sorted(expected)
    assert sorted(Path(p).stem for p in VideoStore(str(out)).paths()) == sorted({video for video, _ in waiting})
    ran = run.preprocess("--videos", videos, "--out", out, *quick)
    assert ran.status == 0, ran.err
    assert manifest.load(str(out)).generations == generations


def test_what_is_left_over_comes_first_in_the_next_generation(run, videos, quick, tmp_path):
    # Five segments an example: eight of a video leave three over.
    flags = [flag if flag != "4" else "5" for flag in quick]
    out, some = tmp_path / "out", names(videos)
    (videos / "away").mkdir()
    for path in [path for name in some[1:] for path in videos.glob(f"{name}.*")]:
        path.rename(videos / "away" / path.name)
    assert run.preprocess("--videos", videos, "--out", out, *flags).status == 0
    (first,) = manifest.load(str(out)).generations
    assert [(run[0], run[2] - run[1]) for run in first.remainder] == [(some[0], 3)]
    assert [Path(path).stem for path in VideoStore(str(out)).paths()] == [some[0]]
    for path in (videos / "away").iterdir():
        path.rename(videos / path.name)
    ran = run.preprocess("--videos", videos, "--out", out, *flags)
    assert ran.status == 0, ran.err
    _, second = manifest.load(str(out)).generations
    assert second.took == [0]
    waiting = [(video, n) for video, start, stop in second.remainder for n in range(start, stop)]
    found = segments_in_shards(out) + waiting
    assert sorted(found) == sorted((video, n) for video in some for n in range(8))
    assert stats.summarize(dataset.open_data(str(out))).waiting == len(waiting) == 48 % 5
    assert not [finding for report in verify(dataset.open_data(str(out))) for finding in report.findings]


def test_a_job_of_other_videos_that_commits_first_harms_no_shard(corpus, quick, tmp_path, run):
    out = tmp_path / "out"
    first, second = (
        parse(["--videos", str(corpus / "train"), "--out", str(out), "--slice", part, *quick])[0]
        for part in ("1/2", "2/2")
    )
    slow = build(second)
    assert build(first).run().wait_until_finish() == "DONE"
    committed = content(out)
    with pytest.raises(Exception, match="another job committed generation 0"):
        slow.run().wait_until_finish()
    assert {name: (out / name).read_bytes() for name in committed} == committed
    # What it extracted is kept, and the same command makes a generation of it.
    assert build(second).run().wait_until_finish() == "DONE"
    assert sum(generation.videos for generation in manifest.load(str(out)).generations) == 6
    assert sorted(Ledger(str(out)).entries()) == names(corpus / "train")
    assert run("shards", "verify", out).status == 0


def test_a_graph_that_runs_again_changes_nothing(corpus, quick, tmp_path):
    options = parse(["--videos", str(corpus / "train"), "--out", str(tmp_path / "out"), *quick])[0]
    twice = build(options)
    assert twice.run().wait_until_finish() == "DONE"
    made = content(tmp_path / "out")
    assert twice.run().wait_until_finish() == "DONE"
    assert content(tmp_path / "out") == made


def test_a_video_that_is_taken_out_while_a_job_runs_stays_out(corpus, quick, tmp_path):
    out = tmp_path / "out"
    options = [
        parse(["--videos", str(corpus / "train"), "--out", str(out), "--slice", part, *quick])[0]
        for part in ("1/2", "2/2")
    ]
    assert build(options[0]).run().wait_until_finish() == "DONE"
    running = build(options[1])
    victim = next(video for video in names(corpus / "train") if video not in Ledger(str(out)).entries())
    removal.remove(str(out), [victim])
    with pytest.raises(Exception, match="videos were removed while the job ran"):
        running.run().wait_until_finish()
    assert build(options[1]).run().wait_until_finish() == "DONE"
    assert victim not in {video for video, _ in segments_in_shards(out)}
    assert Ledger(str(out)).entries()[victim].outcome == "withdrawn"


def test_what_an_interrupted_job_did_not_drop_goes_with_the_next(run, corpus, quick, tmp_path):
    out = tmp_path / "out"
    job = ["--videos", corpus / "train", "--out", out, *quick]
    assert run.preprocess(*job, "--keep-segments").status == 0
    (generation,) = manifest.load(str(out)).generations
    (out / f"g{generation.number:04d}.undropped").write_bytes(b"")
    assert len(list(VideoStore(str(out)).paths())) == 6
    assert run.preprocess(*job).status == 0
    assert not list(VideoStore(str(out)).paths())
    assert not list(out.glob("*.undropped"))


def test_only_the_same_generation_is_committed_again(tmp_path):
    from shards.dataset import generations
    from shards.storage.errors import UserError

    ours = Generation(0, "train", 1, 0, [])
    for _ in range(2):
        assert generations.commit(str(tmp_path), ours, 4, "config", "words").generations == [ours]
    with pytest.raises(UserError, match="another job committed generation 0"):
        generations.commit(str(tmp_path), Generation(0, "val", 1, 0, []), 4, "config", "words")


def test_the_graph_does_not_grow_with_the_list(quick, tmp_path):
    sizes = []
    for count in (10, 10_000):
        ids = tmp_path / "ids.csv"
        ids.write_text("video_id\n" + "".join(f"v{i:010d}\n" for i in range(count)))
        options = parse(["--ids", str(ids), "--out", str(tmp_path / "out"), *quick])[0]
        sizes.append(len(build(options).to_runner_api().SerializeToString()))
    assert abs(sizes[1] - sizes[0]) < 200
