import dataclasses
import hashlib
import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_data import SEGMENTS, TITLE, examples, write_data

from ingest import spectrogram
from shards.__main__ import main
from shards.command_line import run_command
from shards.dataset import location as dataset
from shards.dataset.sums import Sums
from shards.inspection import card, drawing, gallery, report, show, stats
from shards.inspection.report import ShardRow
from shards.reading.vocabulary import of_data

SHARDS, PER_SHARD = 3, 6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("report") / "data", [examples(i, PER_SHARD) for i in range(SHARDS)])


def written(data, out, **options):
    path = Path(report.write(dataset.open_data(data), str(out), **options))
    return path, content_of(path.read_text())


def content_of(page):
    return json.loads(page.split('id="content">')[1].split("</script>")[0])


@pytest.fixture(scope="module")
def page(data, tmp_path_factory):
    return written(data, tmp_path_factory.mktemp("out"))


def test_the_page_asks_no_server_and_holds_everything(page):
    path, content = page
    text = path.read_text()
    assert "/*PLOTLY*/" not in text
    assert "default-src 'none'" in text
    for opening in ('<script src="', "<link ", '<img src="http'):
        assert opening not in text.split("<script>")[0]
    assert dict(content["tiles"])["examples"] == "18"
    assert len(content["gallery"]) == SHARDS * PER_SHARD
    assert len(content["shards"]) == SHARDS
    assert content["problems"] == []


def test_texts_of_videos_cannot_end_their_element(page):
    path, content = page
    assert TITLE not in path.read_text()
    assert {entry["segments"][0]["title"] for entry in content["gallery"]} == {TITLE}


def test_the_worst_examples_come_first():
    found = Sums(worst={"words": [(3, "b", 1), (7, "a", 4), (8, "a", 5)], "silent": [(4, "b", 1), (2, "a", 0)]})
    listed = [ShardRow("a", 9, 1), ShardRow("b", 9, 1)]
    chosen = report.choose(found, listed, 200)
    assert [(p.shard, p.record) for p in chosen[:4]] == [("b", 1), ("a", 4), ("a", 5), ("a", 0)]
    assert chosen[0].tags[:2] == ("fewest words", "most silent")
    assert len(chosen) == 18
    assert [(p.shard, p.record) for p in report.choose(found, listed, 2)] == [("b", 1), ("a", 4)]


def test_the_words_of_a_masked_example_are_the_words_spoken(data):
    opened = dataset.open_data(data)
    payload = show.read_payload(opened.shards[0], 0)
    decode = gallery.decoder(opened.folder)
    held = gallery.entry(payload, ("shard", 0), [], of_data(opened.folder, opened.manifest), decode, 10**6)
    kinds = set()
    pieces = [piece for segment in held["segments"] for piece in segment["text2audio"]]
    spoken = " ".join(segment["words"] for segment in held["segments"])
    assert "".join("".join(text for _, _, text in pieces).split()) == "".join(spoken.split())
    for segment in held["segments"]:
        kinds |= {kind for _, kind, _ in segment["audio2text"]}
        assert all(0 <= span < 3 for span, _, _ in segment["text2audio"] + segment["audio2text"])
    assert {gallery.MASKED, gallery.SOUND} <= kinds


def test_pictures_stay_within_their_budget(data):
    opened = dataset.open_data(data)
    payload = show.read_payload(opened.shards[0], 0)
    vocabulary, decode = of_data(opened.folder, opened.manifest), gallery.decoder(opened.folder)
    sizes = []
    for budget in (10**6, 3000):
        held = gallery.entry(payload, ("shard", 0), [], vocabulary, decode, budget)
        sizes.append(len(held["frames"]) + len(held["sounds"]))
    assert sizes[1] < sizes[0] / 2


def test_damage_is_listed_and_the_rest_is_shown(data, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    first, second, third = sorted(folder.glob("*.tfrecord"))
    content = bytearray(first.read_bytes())
    content[5000] ^= 4
    first.write_bytes(content)
    Path(str(second).replace(".tfrecord", ".stats.json")).unlink()
    third.unlink()
    _, shown = written(str(folder), tmp_path / "out")
    problems = [(problem["where"], problem["what"]) for problem in shown["problems"]]
    assert any(where == f"{first.name}, record 0" and "checksum" in what for where, what in problems)
    sidecar = second.name.replace(".tfrecord", ".stats.json")
    assert any(sidecar in what and "its numbers were read from the shards" in what for _, what in problems)
    assert any(where == "statistics" and third.name in what for where, what in problems)
    marked = {row[0]: row[-1] for row in shown["shards"]}
    assert marked[third.name]
    assert sidecar in marked[second.name]
    assert "checksum" in marked[first.name]
    assert len(shown["gallery"]) == 2 * PER_SHARD - 1


def test_shards_without_a_manifest_and_foreign_ones_get_a_page(data, tmp_path):
    shutil.copy(sorted(Path(data).glob("*.tfrecord"))[0], tmp_path / "a.tfrecord")
    shutil.copy(f"{data}/tokenizer.json", tmp_path)
    (tmp_path / "b.tfrecord").write_bytes(b"not a record at all")
    _, shown = written(str(tmp_path), tmp_path / "out")
    assert len(shown["gallery"]) == PER_SHARD
    (problem,) = shown["problems"]
    assert problem["where"] == "statistics"
    assert "b.tfrecord at byte 0" in problem["what"]


def test_the_command_says_where_the_page_is(data, tmp_path, capsys):
    assert main(["report", data, "--out", str(tmp_path / "out"), "--examples", "2"]) == 0
    assert f"{tmp_path}/out/index.html" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert run_command(lambda: main(["report", str(tmp_path / "empty")])) == 2


def test_an_example_is_shown_in_every_form(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["show", data, "--example", "7"]) == 0
    assert "record 1 of" in capsys.readouterr().out
    picture, page, sound = (tmp_path / name for name in ("a.png", "a.html", "a.wav"))
    video = show.parse_example(show.read_payload(dataset.open_data(data).shards[1], 2)).segments[-1].text.video_id
    assert main(["show", data, "--video", video, "--out", str(picture), "--play", str(sound)]) == 0
    assert "record 2 of" in capsys.readouterr().out
    assert main(["show", data, "--random", "--out", str(page)]) == 0
    assert Image.open(picture).size[0] > 1000
    assert len(content_of(page.read_text())["gallery"]) == 1
    with wave.open(str(sound)) as file:
        assert file.getframerate() == 22_050
        # Speeds 1, 1, 2 and 3.
        assert file.getnframes() == 7 * 110_250
        assert np.abs(np.frombuffer(file.readframes(10**7), "<i2")).max() > 20_000


@pytest.mark.parametrize("speed", [1, 2])
def test_a_tone_comes_back_from_its_spectrogram(speed):
    tone = 10_000 * np.sin(2 * np.pi * 440 * np.arange(110_250 * speed) / 22_050).astype(np.float32)
    jpeg, magic = spectrogram.encode(spectrogram.log_mel(tone, speed))
    (example,) = examples(0, 1)
    segment = dataclasses.replace(example.segments[0].segment, spectrogram=jpeg, magic=magic, speed=speed)
    heard = drawing.waveform([segment])
    assert heard.size == tone.size
    # A mel band is about 50 Hz wide there.
    assert abs(np.abs(np.fft.rfft(heard)).argmax() * 22_050 / heard.size - 440) < 50


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--example", "18"], 2, "the data set has 18"),
        (["--example", "-1"], 2, "no example -1"),
        (["--video", "nobody"], 2, "no example contains the video 'nobody'"),
        (["--out", "a.gif"], 2, "must end in .html or .png"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence(data, arguments, status, sentence, capsys):
    assert run_command(lambda: main(["show", data, *arguments])) == status
    assert sentence in capsys.readouterr().err


def test_the_page_works_in_a_browser(data, page, tmp_path):
    """Loads without a word on the console, sorts, filters, turns pages, changes its theme, fits a phone."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        said, asked = [], []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page[0].as_uri())
        tab.wait_for_selector("#plot0 .bars")
        assert tab.title() == "Data report: data"
        assert tab.locator("article h3").first.text_content() == TITLE
        assert tab.locator("article script").count() == 0
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        tab.click("#theme")
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != dark

        names = tab.locator("#rows td:first-child")
        assert names.count() == SHARDS
        first = names.first.text_content()
        tab.click("#heads button >> nth=0")
        assert names.first.text_content() != first
        assert tab.get_attribute("#heads th >> nth=0", "aria-sort") == "descending"
        tab.fill("#filter", "00001of")
        assert names.count() == 1
        tab.fill("#filter", "nothing like it")
        assert tab.text_content("#count").startswith("0 of 3")

        assert "page 1 of 4, 18 examples" in tab.text_content("#page")
        assert tab.is_disabled("#back")
        before = tab.locator("article .soft").first.text_content()
        tab.focus("#next")
        tab.keyboard.press("Enter")
        assert "page 2 of 4" in tab.text_content("#page")
        assert tab.locator("article .soft").first.text_content() != before
        assert tab.locator(".picture[aria-label]").count() == 5 * SEGMENTS * 2
        tab.select_option("#view", "audio2text")
        assert tab.locator("article .mask").count() > 0
        assert tab.locator("article .audio").count() > 0
        tab.select_option("#tag", "fewest words")
        assert "5 examples" in tab.text_content("#page")
        assert all(url.startswith(("file:", "data:")) for url in asked), asked
        assert said == []
        browser.close()


def test_a_vocabulary_that_cannot_be_had_leaves_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("RESERVOIR_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert gallery.decoder(str(tmp_path))([20, 21]) == "#20 #21"


def test_the_card_says_what_the_data_are(data, tmp_path, capsys):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    (folder / "config.json").write_text('{"video": {"seed": 7}}')
    assert main(["card", str(folder)]) == 0
    assert str(folder / "CARD.md") in capsys.readouterr().out
    text = (folder / "CARD.md").read_text()
    assert "| Music | 72 |" in text
    assert "| CC-BY | 72 |" in text
    assert "| not too-long | 36 | 1 |" in text
    assert '"seed": 7' in text
    assert hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest() in text
    assert main(["card", str(folder)]) == 0
    assert (folder / "CARD.md").read_text() == text
    (folder / "config.json").write_text("no json")
    assert run_command(lambda: main(["card", str(folder)])) == 2


def test_text_of_metadata_stays_in_its_cell(data):
    opened = dataset.open_data(data)
    summary = stats.summarize(opened)
    summary.histograms["licences"]["<b>a | b`\nc"] = 5
    assert "| &lt;b>a &#124; b&#96; c | 5 |" in card.card(opened.manifest, {}, summary)
