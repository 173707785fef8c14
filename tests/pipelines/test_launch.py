"""The end of a job that nobody waits for: a plan that holds for everybody, and a commit that may be repeated."""

import json
import shutil

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.assembly import packing_of
from pipelines.folder import manifest_of, settle_config
from pipelines.launch import CommitGeneration, PlanGeneration, assembled
from pipelines.options import parse
from pipelines.wave_job import cut
from shards import generations, pinned, removal
from shards.dataset import open_data
from shards.errors import UsageError, UserError
from shards.inspection.verify import verify
from shards.ledger import Ledger

ENDINGS = (".tfrecord", ".index", ".stats.json", ".videos", "manifest.json", "remainder.json")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory, run, corpus, quick):
    """A data folder in which every video's segments are committed and none is packed."""
    out = tmp_path_factory.mktemp("extracted") / "out"
    ran = run.preprocess("--videos", corpus / "train", "--out", out, "--stage", "extract", *quick)
    assert ran.status == 0, ran.err
    return out


@pytest.fixture
def data(extracted, tmp_path):
    return str(shutil.copytree(extracted, tmp_path / "data"))


@pytest.fixture
def options(data, quick):
    return parse(["--stage", "assemble", "--out", data, *quick])[0]


def content(folder, skipped=()):
    files = sorted(path for path in folder.iterdir() if path.name.endswith(ENDINGS) and path.name not in skipped)
    return {path.name: path.read_bytes() for path in files}


def assemble(options):
    """Run the graph of a launched assembly in this process."""
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        ended = pipeline | "Nothing to extract" >> beam.Create([])
        assembled(pipeline, ended, options, settle_config(options))
    return manifest_of(options.out)


def pin_some(options, count):
    """Begin a generation of the first so many videos and leave it; its plan."""
    packing = packing_of(options, settle_config(options))
    held = manifest_of(options.out)
    known = generations.packed_videos(options.out, held)
    new = sorted(name for name, e in Ledger(options.out).entries().items() if e.kind == "done" and name not in known)
    plan = pinned.next_plan(options.out, held, options.split, new[:count], packing)
    pinned.pin(options.out, plan, packing)
    return plan


def test_a_launched_assembly_makes_what_the_command_makes(extracted, data, options, tmp_path, run, quick):
    ours = shutil.copytree(extracted, tmp_path / "ours")
    ran = run.preprocess("--stage", "assemble", "--out", ours, *quick)
    assert ran.status == 0, ran.err
    held = assemble(options)
    assert [g.number for g in held.generations] == [0]
    theirs = content(tmp_path / "data")
    assert theirs == content(ours)
    assert (tmp_path / "data" / "CARD.md").read_text() == (ours / "CARD.md").read_text()
    segments = sorted(path.name for path in (tmp_path / "data" / "segments").rglob("*.segments"))
    assert segments == sorted(path.name for path in (ours / "segments").rglob("*.segments"))
    # Launched once more there is nothing to plan, and a commit that is repeated finds itself done.
    assert assemble(options) == held
    assert content(tmp_path / "data") == theirs


def test_whoever_comes_next_finishes_the_pinned_generation_first(data, options, run, quick, tmp_path):
    plan = pin_some(options, 2)
    again = list(PlanGeneration(options, settle_config(options)).process(None, 0))
    assert again == [plan], "the plan that was begun holds, though more videos are committed"
    ran = run.preprocess("--stage", "assemble", "--out", data, *quick)
    assert ran.status == 0, ran.err
    held = manifest_of(data)
    assert [(g.number, g.videos) for g in held.generations] == [(0, 2), (1, len(Ledger(data).entries()) - 2)]
    before = content(tmp_path / "data")
    # The launched job reaches its last step after that, and finds no place for its generation.
    assert list(CommitGeneration(options, settle_config(options)).process(plan, [])) == []
    assert content(tmp_path / "data") == before
    assert not [finding for report in verify(open_data(data), 1) for finding in report.findings]


def test_other_settings_on_a_begun_generation_are_refused(options, quick):
    pin_some(options, 2)
    for more, said in (
        (["--shard-bytes", "100000"], "is being written with shard_bytes 200000, not 100000"),
        (["--split", "val"], "is being written with split 'train', not 'val'"),
    ):
        other = parse(["--stage", "assemble", "--out", options.out, *quick, *more])[0]
        with pytest.raises(UsageError, match=said):
            list(PlanGeneration(other, settle_config(other)).process(None, 0))
    waves = parse(["--ids", "list", "--wave", "2", "--out", options.out, *quick])[0]
    with pytest.raises(UsageError, match="was launched and is not committed"):
        cut(waves)


def test_a_generation_that_lost_a_video_is_given_up_with_its_number(data, options):
    pin_some(options, 2)
    assert [g.number for g in assemble(options).generations] == [0]
    plan = pin_some(options, 2)
    assert plan.number == 1
    victim = plan.videos[0]
    removal.remove(data, [victim])
    with pytest.raises(UserError, match="taken out while generation 1"):
        list(CommitGeneration(options, settle_config(options)).process(plan, []))
    held = assemble(options)
    assert [g.number for g in held.generations] == [0, 2]
    packed = generations.packed_videos(data, held)
    assert victim not in packed
    assert packed == Ledger(data).entries().keys() - {victim}
    with pytest.raises(UserError, match="taken out while generation 1"):
        list(CommitGeneration(options, settle_config(options)).process(plan, []))


def test_a_lost_shard_is_not_committed(data, options, tmp_path):
    plan = pin_some(options, 4)
    assert plan.shards
    with pytest.raises(UserError, match="was not written"):
        list(CommitGeneration(options, settle_config(options)).process(plan, []))
    assert manifest_of(data) is None
    (tmp_path / "data" / "planned.json").write_text(json.dumps({"number": 0}))
    with pytest.raises(UserError, match="is damaged"):
        assemble(options)
