"""The main job, run as a user runs it: a real Beam runner, real worker processes, real media."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ingest.config import EXTRACTION_VERSION
from pipelines import preprocess
from pipelines.demo.__main__ import SEGMENTS_PER_EXAMPLE
from shards.command_line import run_command
from shards.dataset import location as dataset
from shards.dataset import manifest
from shards.dataset.ledger import Ledger
from shards.inspection.stats import summarize
from shards.records import tfrecord
from shards.records.pretraining import parse_example
from shards.storage import filesystem


def bytes_of(folder, *endings):
    """Content by name of the files of a data folder that must not depend on anything but their input."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name.endswith(endings)}


DETERMINISTIC = (
    "CARD.md",
    ".tfrecord",
    ".index",
    ".stats.json",
    "manifest.json",
    "config.json",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory, run, corpus, settings):
    """The corpus' training videos as shards, made by two worker processes."""
    out = tmp_path_factory.mktemp("data") / "out"
    ran = run.preprocess("--videos", corpus / "train", "--out", out, *settings, "--direct_num_workers=2")
    assert ran.status == 0, ran.err
    return out


def test_videos_become_verified_shards(data, run):
    held = manifest.load(str(data))
    assert held.segments_per_example == 4
    assert len(held.shards()) > 1
    summary = summarize(dataset.open_data(str(data)))
    assert summary.videos == 6
    assert summary.counts["segments"] == 4 * summary.counts["examples"] >= 40
    ran = run("shards", "verify", data)
    assert ran.status == 0, ran.out
    assert "no errors" in ran.out
    entries = Ledger(str(data)).entries()
    assert len(entries) == 6
    assert {e.outcome for e in entries.values()} == {"extracted"}
    assert all(e.scores["language"] == "en" for e in entries.values())


def test_words_and_times_are_those_spoken(data, corpus):
    """What a segment says is what the corpus' truth says was spoken in its stretch of time."""
    from shards.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(data / "tokenizer.json")
    checked = 0
    for path in dataset.open_data(str(data)).shards:
        with filesystem.open_read(path) as file:
            for _, payload in tfrecord.scan(file, path):
                for placed in parse_example(payload).segments:
                    truth = json.loads((corpus / "train" / f"{placed.text.video_id}.truth.json").read_text())
                    said = tokenizer.decode(placed.segment.tokens.tolist()).split()
                    heard = [
                        text.strip(".,").lower()
                        for text, start, end in truth["words"]
                        if placed.segment.start <= (start + end) / 2 < placed.segment.end
                    ]
                    common = len(set(said) & set(heard))
                    assert common >= len(set(heard)) - 2, (said, heard)
                    checked += 1
    assert checked >= 40


def test_one_worker_gives_the_same_bytes_as_two(data, tmp_path, run, corpus, settings):
    ran = run.preprocess("--videos", corpus / "train", "--out", tmp_path / "out", *settings, "--direct_num_workers=1")
    assert ran.status == 0, ran.err
    ours, theirs = bytes_of(tmp_path / "out", *DETERMINISTIC), bytes_of(data, *DETERMINISTIC)
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == theirs[name] for name in ours)


def test_more_videos_add_a_generation(tmp_path, run, corpus, quick):
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    names = sorted({p.name.split(".")[0] for p in (corpus / "train").iterdir()})

    def copy(some):
        for name in some:
            for path in (corpus / "train").glob(f"{name}.*"):
                shutil.copy(path, folder / path.name)

    copy(names[:2])
    assert run.preprocess("--videos", folder, "--out", out, *quick).status == 0
    first = bytes_of(out, ".tfrecord")
    copy(names[2:4])
    ran = run.preprocess("--videos", folder, "--out", out, *quick)
    assert ran.status == 0, ran.err
    assert "2 finished before, 2 finished now" in ran.err
    held = manifest.load(str(out))
    assert [g.videos for g in held.generations] == [2, 2]
    assert all((out / name).read_bytes() == content for name, content in first.items())
    total = summarize(dataset.open_data(str(out))).counts["segments"]
    waiting = held.generations[1].remainder
    committed = sum(e.segments for e in Ledger(str(out)).entries().values())
    assert total + sum(stop - first for _, first, stop in waiting) == committed
    assert {p.stem for p in (out / "videos").rglob("*.video")} == {run[0] for run in waiting}

    ran = run.preprocess("--videos", folder, "--out", out, *quick)
    assert ran.status == 0
    assert "4 finished before, 0 finished now" in ran.err
    assert manifest.load(str(out)) == held
    assert run("shards", "verify", out).status == 0


def test_bad_videos_end_with_their_reason_and_harm_nobody(data, tmp_path, run, corpus, quick):
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    good = sorted((corpus / "train").glob("*.mp4"))[0].stem
    for path in (corpus / "train").glob(f"{good}.*"):
        shutil.copy(path, folder / path.name)
    track = (folder / f"{good}.en.vtt").read_text()
    (folder / "noCaptions.mp4").write_bytes((folder / f"{good}.mp4").read_bytes())
    (folder / "noVideo.mp4").write_text("<html>this is no video</html>")
    (folder / "noVideo.en.vtt").write_text(track)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "empty.en.vtt").write_text(track)
    (folder / "badTrack.mp4").write_bytes((folder / f"{good}.mp4").read_bytes())
    (folder / "badTrack.en.vtt").write_text("not a caption track")
    (folder / "badInfo.mp4").write_bytes((folder / f"{good}.mp4").read_bytes())
    (folder / "badInfo.en.vtt").write_text(track)
    (folder / "badInfo.info.json").write_text('{"title": null, "tags": null, "categories": 3, "duration": "long"}')
    ran = run.preprocess("--videos", folder, "--out", out, *quick)
    assert ran.status == 0, ran.err
    entries = Ledger(str(out)).entries()
    assert {name: entry.outcome for name, entry in entries.items()} == {
        good: "extracted",
        "noCaptions": "no-captions",
        "noVideo": "media-unreadable",
        "empty": "media-unreadable",
        "badTrack": "captions-unreadable",
        "badInfo": "extracted",
    }
    assert "[asr]" in ran.err
    assert "Traceback" not in ran.err
    assert run("shards", "verify", out).status == 0


def test_nothing_usable_ends_with_status_1(tmp_path, run, quick):
    (tmp_path / "v.mp4").write_text("x")
    ran = run.preprocess("--videos", tmp_path, "--out", tmp_path / "out", *quick)
    assert ran.status == 1
    assert ran.err.splitlines()[-1].startswith("error: no video produced segments")


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--out", "{tmp}/o"], 2, "give exactly one source"),
        (["--out", "{tmp}/o", "--videos", "{tmp}/absent", "{settings}"], 2, "there is no folder"),
        (["--out", "{tmp}/o", "--videos", "{tmp}", "{settings}"], 1, "holds no videos"),
        (["--out", "{tmp}/o", "--videos", "{tmp}", "--no-such-flag=1"], 2, "unknown argument '--no-such-flag=1'"),
        (
            ["--out", "{tmp}/o", "--videos", "{corpus}", "--timing-model", "none", "--tokenizer", "{tmp}/none"],
            2,
            "there is no file",
        ),
        (
            ["--out", "{tmp}/o", "--videos", "{corpus}", "--timing-model", "none", "--tokenizer", __file__],
            1,
            "is not a tokenizer file",
        ),
        (["--out", "{tmp}/o", "--videos", "{corpus}", "--split", "a/b"], 2, "must be letters and digits"),
        (["--out", "{tmp}/o", "--videos", "{corpus}", "--save-cost", "c.json"], 2, "needs --dry-run"),
        (["--out", "{tmp}/o", "--videos", "{corpus}", "--core-hour-price", "-1"], 2, "must not be negative"),
        (["--out", "{tmp}/o", "--videos", "{corpus}", "--slice", "21/20"], 2, "--slice '21/20' must be NUMBER/COUNT"),
        (["--out", "{tmp}/o", "--videos", "{corpus}", "--downloads-per-day", "0"], 2, "must be at least 1"),
        (
            ["--out", "{tmp}/o", "--videos", "{corpus}", "--yt-dlp=--version"],
            2,
            "must not contain --version: it prints",
        ),
        (["--out", "{tmp}/o", "--ids", "{file}", "--cookies", "{tmp}/none"], 2, "--cookies needs one that exists"),
        (
            ["--out", "gs://b/o", "--ids", "gs://b/i", "--cookies", "{file}", "--runner=DataflowRunner"],
            2,
            "is a file of this machine, which the workers cannot read",
        ),
        (["--out", "{tmp}/o", "--videos", "{corpus}", "--shard-bytes", "0"], 2, "--shard-bytes 0 must be at least 1"),
        (["--out", "{file}/o", "--videos", "{corpus}", "{settings}"], 1, "cannot access"),
    ],
)
def test_bad_usage_is_one_sentence(tmp_path, capsys, corpus, settings, arguments, status, sentence):
    blocker = tmp_path / "file"
    blocker.write_text("")
    places = {"tmp": tmp_path, "corpus": corpus / "train", "file": blocker}
    flat = [
        a for argument in arguments for a in (settings if argument == "{settings}" else [argument.format(**places)])
    ]
    assert run_command(lambda: preprocess.main(flat)) == status
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert sentence in last
    assert not (tmp_path / "o").exists()


def test_bad_usage_ends_the_process_without_a_traceback(tmp_path, run):
    ran = run.preprocess("--out", tmp_path / "o")
    assert ran.status == 2
    assert "give exactly one source" in ran.err
    assert "Traceback" not in ran.err


def test_another_config_is_refused(data, run, corpus, quick):
    before = bytes_of(data, *DETERMINISTIC)
    ran = run.preprocess("--videos", corpus / "train", "--out", data, *quick, "--seed", "7")
    assert ran.status == 2
    assert "belongs to a run with video.seed 0, not 7" in ran.err
    assert bytes_of(data, *DETERMINISTIC) == before


def test_a_folder_of_another_extraction_is_refused(tmp_path, data, run, corpus, quick):
    shutil.copytree(data, tmp_path / "old")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    assert config["video"].pop("extraction_version") == EXTRACTION_VERSION
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    ran = run.preprocess("--videos", corpus / "train", "--out", tmp_path / "old", *quick)
    assert ran.status == 2
    assert f"belongs to a run with video.extraction_version None, not {EXTRACTION_VERSION}" in ran.err


def test_dry_run_writes_nothing_and_says_the_cost(tmp_path, run, corpus, quick):
    out = tmp_path / "out"
    prices = (
        *("--core-hour-price", "36", "--gb-month-price", "0.02", "--class-a-price", "0.05", "--class-b-price", "0.004"),
        *("--shuffle-gb-price", "0.01", "--save-cost", tmp_path / "cost.json"),
    )
    ran = run.preprocess("--videos", corpus / "train", "--out", out, *quick, "--dry-run", *prices)
    assert ran.status == 0, ran.err
    assert "done: extracted" in ran.err
    assert "core-hours" in ran.err
    assert not out.exists()
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert cost["videos"] == cost["sample"]["videos"] == 6
    # 36 an hour is a hundredth a second.
    assert cost["compute_price"] == pytest.approx(cost["sample"]["cpu_seconds"] / 100)
    assert cost["download_hours"] == 0, "the videos are here"
    assert cost["sample"]["examples"] > 6
    assert cost["disk_price"] is None
    assert cost["storage_price_a_month"] == pytest.approx(0.02 * cost["sample"]["segment_bytes"] / 1e9)


def test_a_real_film_with_a_real_voice(tmp_path, run, film, quick):
    # A calm reader: 42 s at 160 words a minute; the rule for density is the published one.
    flags = [flag if flag != "20" else "50" for flag in quick]
    ran = run.preprocess("--videos", film, "--out", tmp_path / "out", *flags)
    assert ran.status == 0, ran.err
    # Which half of the film is the first example depends on the digest of the config.
    shown = [run("shards", "show", tmp_path / "out", "--example", number).out for number in "01"]
    assert sum("best of" in out for out in shown) == 1
    assert run("shards", "verify", tmp_path / "out").status == 0
    entry = Ledger(str(tmp_path / "out")).entries()["twoCities01"]
    assert entry.scores["sound_peak"] > 1000
    (path,) = dataset.open_data(str(tmp_path / "out")).shards[:1]
    with filesystem.open_read(path) as file:
        first = parse_example(next(iter(tfrecord.scan(file, path)))[1])
    assert all(placed.segment.width == 512 and placed.segment.height == 288 for placed in first.segments)
    assert np.diff([placed.segment.start for placed in first.segments]).tolist() == [5.0] * 3


def test_the_readme_s_example_reads_shards(data):
    """The reader of the README as it stands there, on the shards of another corpus."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    assert '"demo/data"' in code
    assert f"segments={SEGMENTS_PER_EXAMPLE}" in code
    names: dict = {}
    exec(code.replace('"demo/data"', repr(str(data))), names)
    assert names["batch"]["images"].shape[0] == 4
    names["reader"].close()
