"""The job over ids: real yt-dlp in real workers, against a server on this machine."""

import json
import os
from pathlib import Path

import pytest
import youtube_server

from shards.dataset.ledger import Ledger

CASES = Path(__file__).parent.parent / "fixtures" / "cases"
IDS = [f"video{i:06d}" for i in range(6)]
YT_DLP = "--retries 0 --retry-sleep 0 --extractor-retries 0 --socket-timeout 5"


@pytest.fixture
def site(corpus):
    with youtube_server.serve(youtube_server.Site.of_folder(corpus / "train")) as served:
        yield served


@pytest.fixture
def job(site, tmp_path, run, quick):
    ids = tmp_path / "ids.csv"
    ids.write_text("title,video_id\n" + "".join(f'"a, title",{i}\n' for i in [*IDS, IDS[0], "not an id"]))
    env = {"RESERVOIR_TEST_YOUTUBE": site.address, "PYTHONPATH": os.pathsep.join([str(youtube_server.PLUGIN)])}

    def start(*more, address="machine"):
        env["RESERVOIR_CACHE"] = str(tmp_path / address)
        return run.preprocess("--ids", ids, "--out", tmp_path / "out", *quick, f"--yt-dlp={YT_DLP}", *more, env=env)

    return start


def outcomes(folder):
    return {name: entry.outcome for name, entry in Ledger(str(folder)).entries().items()}


def tried_ids(folder):
    return {name: outcome for name, outcome in outcomes(folder).items() if name in IDS}


def test_ids_become_shards_and_only_retryable_failures_run_again(site, job, tmp_path):
    site.faults = {IDS[1]: "text:Private video", IDS[2]: "status:500", IDS[3]: "no-captions", IDS[4]: "too-long"}
    ran = job()
    assert ran.status == 0, ran.err
    assert outcomes(tmp_path / "out") == {
        IDS[0]: "extracted",
        IDS[1]: "private",
        IDS[2]: "server",
        IDS[3]: "no-captions",
        IDS[4]: "too-long",
        IDS[5]: "extracted",
        "not an id": "bad-id",
    }
    assert "1 rejected: bad-id" in ran.err
    assert "'not an id'" in ran.err
    assert site.hits[f"media/{IDS[4]}"] == 0, "a rejected video costs no media"
    assert not list((tmp_path / "out").rglob("*.mp4")), "media go when their segments are committed"
    entry = Ledger(str(tmp_path / "out")).entries()[IDS[0]]
    assert entry.scores["caption_kind"] == "asr-original"

    site.faults = {IDS[1]: "text:Private video"}
    site.hits.clear()
    ran = job("--retry-failed")
    assert ran.status == 0, ran.err
    assert outcomes(tmp_path / "out")[IDS[2]] == "extracted"
    assert {path.split("/")[1] for path in site.hits} == {IDS[2]}


def test_raw_is_kept_where_asked_and_used_as_it_is(site, job, tmp_path):
    raw = tmp_path / "raw"
    ran = job("--raw", raw, "--stage", "download", "--limit", "2")
    assert ran.status == 0, ran.err
    assert sorted(p.name for p in raw.rglob("*.mp4")) == [f"{i}.mp4" for i in IDS[:2]]
    site.hits.clear()
    ran = job("--raw", raw, "--limit", "2")
    assert ran.status == 0, ran.err
    assert outcomes(tmp_path / "out") == {IDS[0]: "extracted", IDS[1]: "extracted"}
    assert not site.hits
    assert len(list(raw.rglob("*.mp4"))) == 2


@pytest.mark.parametrize(
    ("fault", "tried"),
    [
        ("text:Sign in to confirm you're not a bot", 1),
        ("info-status:429", 3),
        ("text:The page needs to be reloaded.", 3),
        ("captions-empty", 3),
        ("captions-page", 3),
        ("storyboards", 3),
    ],
)
def test_a_server_that_says_stop_is_obeyed(site, job, tmp_path, fault, tried):
    site.faults = dict.fromkeys(IDS, fault)
    ran = job()
    assert ran.status == 1
    assert "downloading stopped" in ran.err
    assert f"{len(IDS) - tried} videos were not tried" in ran.err
    assert len(tried_ids(tmp_path / "out")) == tried
    site.faults = {}
    ran = job("--retry-failed")
    assert ran.status == 0, ran.err
    assert set(tried_ids(tmp_path / "out").values()) == {"extracted"}


def test_a_days_downloads_are_counted_for_all_workers_together(site, job, tmp_path):
    limits = ("--downloads-per-day", "3", "--direct_num_workers=2", "--direct_running_mode=multi_processing")
    ran = job(*limits)
    assert ran.status == 1
    assert "reached their daily limit of downloads; run the same command again in a day" in ran.err
    assert "3 videos were not tried" in ran.err
    assert sum(path.startswith("info/") for path in site.hits) == 3
    other = job(*limits, address="another")
    assert other.status == 0, other.err
    assert set(tried_ids(tmp_path / "out").values()) == {"extracted"}


def test_a_dry_run_counts_what_downloads_cost(site, job, tmp_path):
    site.faults = {IDS[1]: "text:Private video"}
    ran = job("--dry-run", "--downloads-per-day", "4", "--save-cost", tmp_path / "cost.json")
    assert ran.status == 0, ran.err
    assert "not-tried: daily-limit" in ran.err
    assert "days at 4 downloads per day from 1 / 16 / 256 addresses" in ran.err
    sample = json.loads((tmp_path / "cost.json").read_text())["sample"]
    # Four were tried; the entry that is no id is not counted as a download.
    assert sample["videos"] == 5
    assert sample["download_seconds"] > 0
    assert sample["largest_media_bytes"] == len(site.media)


def test_what_names_no_video_is_named_and_costs_no_request(site, job, tmp_path):
    channel, playlist = "https://www.youtube.com/@somebody", "https://www.youtube.com/playlist?list=PLabcdefghijk"
    (tmp_path / "ids.csv").write_text(
        f'url;title\nhttps://youtu.be/{IDS[0]};"never closed\n{channel};b\n{playlist};c\n'
    )
    ran = job()
    assert ran.status == 0, ran.err
    assert outcomes(tmp_path / "out") == {IDS[0]: "extracted", channel: "playlist", playlist: "playlist"}
    assert "with ';' between columns, by column 'url'" in ran.err
    assert "yt-dlp --flat-playlist --print id" in ran.err
    assert {path.split("/")[1] for path in site.hits} == {IDS[0]}


def test_the_ledger_tells_the_language_of_the_sound(site, job, tmp_path):
    info = json.loads((CASES / "auto-dubbed" / "info.json").read_text())
    site.infos = dict.fromkeys(IDS[:2], site.info | {key: info[key] for key in ("formats", "automatic_captions")})
    site.infos[IDS[1]] = site.infos[IDS[1]] | {"formats": info["formats"][:1]}
    site.bodies = {f"media/{code}.mp4": site.media for code in ("ja", "en")}
    ran = job("--limit", "2")
    assert ran.status == 0, ran.err
    scores = {name: entry.scores for name, entry in Ledger(str(tmp_path / "out")).entries().items()}
    about = ("sound_language", "caption_track", "caption_kind")
    assert {name: [values[key] for key in about] for name, values in scores.items()} == {
        IDS[0]: ["en-US", "en-orig", "asr-original"],
        IDS[1]: ["ja", "en-orig", "asr-translated"],
    }
