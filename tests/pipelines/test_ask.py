"""Asking a video: the library's three lines, the commands, the batch, the vectors and the page in a real browser."""

import contextlib
import csv
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import uvicorn
from PIL import Image

from ingest.clip import ClipError
from model import published
from pipelines import ask, ask_batch, embed
from pipelines.inference.options import App
from pipelines.inference.page import HOST, make_app
from shards.storage.errors import UsageError

PROMPT = "in this video i will be <|MASK|>"
OPTIONS = ["cooking", "playing music", "a dog"]


@pytest.fixture(scope="module")
def weights(make_weights, tmp_path_factory):
    return make_weights(tmp_path_factory.mktemp("weights"), "in this video i will be cooking a dog playing music")


@pytest.fixture(scope="module")
def model(weights):
    return published.load(weights, grid=None)


@pytest.fixture(scope="module")
def film(golden):
    return str(golden / "videos" / "gOldVidA_01.mp4")


@pytest.fixture(scope="module")
def part(film, tmp_path_factory):
    """The first seconds of the film, without captions."""
    path = tmp_path_factory.mktemp("part") / "part.mp4"
    command = [sys.executable, "-c", "from ingest.ffmpeg import ffmpeg_path; print(ffmpeg_path())"]
    program = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run([program, "-loglevel", "error", "-i", film, "-t", "18", "-c", "copy", str(path)], check=True)
    return str(path)


def test_the_guide_s_example_runs(weights, part, capsys):
    """The three lines of docs/ask.md as they stand there, with weights and a video of ours."""
    text = (Path(__file__).parents[2] / "docs" / "ask.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert '"base"' in code
    assert '"clip.mp4"' in code
    names: dict = {}
    exec(code.replace('"base"', repr(weights)).replace('"clip.mp4"', repr(part)), names)
    assert set(names["answers"].options) == {"cooking", "playing music", "reading"}
    assert names["answers"].probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert capsys.readouterr().out.startswith(names["answers"].options[0])


def test_the_command_prints_a_table_json_and_a_timeline(weights, film, tmp_path, capsys):
    common = [film, "--checkpoint", weights, "--options", ",".join(OPTIONS), "--end", "60"]
    picture = tmp_path / "timeline.png"
    assert ask.main([*common, "--prompt", PROMPT, "--timeline", str(picture)]) == 0
    said = capsys.readouterr()
    assert "playing music" in said.out
    assert Image.open(picture).size[0] > 500
    (tmp_path / "options.txt").write_text("cooking\na dog\n\n")
    two = "the dog is <|MASK|> and <|MASK|>"
    from_file = [film, "--checkpoint", weights, "--options-file", str(tmp_path / "options.txt"), "--start", "10"]
    assert ask.main([*from_file, "--prompt", PROMPT, two, "--json", "--use", "text"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert [len(document["answers"]) for document in (first, second)] == [1, 2]
    windows = first["answers"][0]["windows"]
    assert windows[0]["start"] == 10
    assert set(windows[0]["probabilities"]) == {"cooking", "a dog"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere.mp4", "--prompt", PROMPT, "--options", "a"], "neither a file nor a YouTube id"),
        (["{film}", "--prompt", "no mask", "--options", "a"], "has no <|MASK|>"),
        (["{film}", "--prompt", PROMPT], "there are no options"),
        (["{film}", "--prompt", PROMPT, "--options", "a,a"], "given twice"),
        (["{film}", "--prompt", PROMPT, "--options", "a", "--checkpoint", "/nowhere"], "nor a published name"),
        (
            ["{film}", "--prompt", PROMPT, "--options", "a", "--use", "text", "--captions", "/none.vtt"],
            "there is no file '/none.vtt'; --captions",
        ),
        (["{film}", "--prompt", PROMPT, "--options-file", "/nowhere"], "cannot be read"),
    ],
)
def test_bad_questions_end_in_one_sentence(weights, part, arguments, complaint):
    arguments = [a.format(film=part) if a == "{film}" else a for a in arguments]
    if "--checkpoint" not in arguments:
        arguments += ["--checkpoint", weights]
    with pytest.raises((UsageError, ClipError)) as raised:
        ask.main(arguments)
    assert complaint in str(raised.value)


def test_an_option_that_is_cut_is_said(weights, part, capsys):
    long = "cooking a dog playing music " * 8
    assert ask.main([part, "--checkpoint", weights, "--prompt", PROMPT, "--options", f"cooking,{long}"]) == 0
    assert "is cut to 15" in capsys.readouterr().err


def test_a_batch_continues_where_it_stopped(weights, part, film, tmp_path, capsys):
    rows = [
        {"video": part, "prompt": PROMPT},
        {"video": part, "prompt": "the dog is <|MASK|>"},
        {"video": film, "prompt": PROMPT, "start": "5", "end": "20", "options": "cooking|a dog"},
        {"video": "nowhere.mp4", "prompt": PROMPT},
        {"video": part, "prompt": "no mask here"},
    ]
    questions, out = tmp_path / "questions.csv", tmp_path / "answers.jsonl"
    with questions.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["video", "prompt", "options", "start", "end"])
        writer.writeheader()
        writer.writerows(rows)
    command = [str(questions), "--out", str(out), "--checkpoint", weights, "--options", ",".join(OPTIONS)]
    assert ask_batch.main(command) == 1
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [("error" in line) for line in lines] == [False, False, False, True, True]
    assert {option for option, _ in lines[2]["answers"][0]} == {"cooking", "a dog"}
    # A torn line and a missing one, as a killed command leaves them.
    kept = out.read_text().splitlines()
    out.write_text(kept[0] + "\n" + kept[1][: len(kept[1]) // 2])
    capsys.readouterr()
    assert ask_batch.main(command) == 1
    assert "1 answered before" in capsys.readouterr().err
    again = {}
    for line in out.read_text().splitlines():
        with contextlib.suppress(ValueError):
            again[json.loads(line)["key"]] = json.loads(line)
    assert again.keys() == {line["key"] for line in lines}
    for line in lines:
        # Answered alone or with another question, a probability may differ in its last printed digit.
        first, second = (
            dict(answers[0]) for answers in (line.pop("answers", [[]]), again[line["key"]].pop("answers", [[]]))
        )
        assert second == pytest.approx(first, abs=2e-6)
        assert again[line["key"]] == line


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "has no rows"),
        ("a,b\n1,2\n", "has no column 'video'"),
        ("video,prompt\nx,\n", "row 2"),
        ("video,prompt,start\nx,y,soon\n", "not a number of seconds"),
        ("video,prompt\nx,y\n", "has no options"),
    ],
)
def test_bad_batches(weights, tmp_path, content, complaint):
    (tmp_path / "q.csv").write_text(content)
    with pytest.raises(UsageError, match=complaint):
        ask_batch.main([str(tmp_path / "q.csv"), "--out", str(tmp_path / "a"), "--checkpoint", weights])


def test_vectors_of_videos(weights, part, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(part, folder / "one.mp4")
    shutil.copy(part, folder / "two.mp4")
    (folder / "broken.mp4").write_bytes(b"no video")
    assert embed.main([str(folder), "--out", str(tmp_path / "e.npz"), "--checkpoint", weights]) == 0
    held = np.load(tmp_path / "e.npz")
    assert held["video"].tolist() == ["one"] * 3 + ["two"] * 3
    assert held["audio"].shape == (6, 3, 64)
    np.testing.assert_allclose(np.linalg.norm(held["frame"], axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(held["joint"][:3], held["joint"][3:], atol=1e-4)
    assert embed.main([part, "--out", str(tmp_path / "e.parquet"), "--checkpoint", weights]) == 0
    table = pq.read_table(tmp_path / "e.parquet")
    np.testing.assert_allclose(table["frame"].to_pylist(), held["frame"][:3], atol=1e-5)
    for wrong in ([part, "--out", "x.txt"], [str(tmp_path / "none"), "--out", "x.npz"]):
        with pytest.raises((UsageError, ClipError)):
            embed.main([*wrong, "--checkpoint", weights])


@pytest.fixture(scope="module")
def page(model):
    """The address of a page that is being served."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    options = App(max_upload_mb=4, seconds=60)
    server = uvicorn.Server(uvicorn.Config(make_app(model, options), host=HOST, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    yield f"http://{HOST}:{port}"
    server.should_exit = True
    thread.join(10)


OURS = {"X-Reservoir": "1"}


def test_the_page_s_requests_refuse_what_they_must(page, part):
    assert httpx.post(f"{page}/ask", json={}).status_code == 403
    assert httpx.get(page, headers={"Host": "evil.example"}).status_code == 400
    gone = httpx.post(f"{page}/ask", json={"id": "x", "prompt": PROMPT, "options": ["a"]}, headers=OURS)
    assert (gone.status_code, gone.json()["error"]) == (404, "this video is no longer loaded; choose it again")
    assert httpx.post(f"{page}/ask", content=b"[", headers=OURS).status_code == 400
    large = httpx.post(f"{page}/video?name=a.mp4", content=bytes(5 << 20), headers=OURS)
    assert large.status_code == 413
    assert "larger than 4 MB" in large.json()["error"]

    def endless():
        for _ in range(6):
            yield bytes(1 << 20)

    assert httpx.post(f"{page}/video?name=a.mp4", content=endless(), headers=OURS).status_code == 413
    assert httpx.post(f"{page}/video?name=a.mp4", content=b"", headers=OURS).status_code == 422
    assert httpx.post(f"{page}/video?name=a.mp4", content=b"text", headers=OURS).status_code == 422
    local = httpx.post(f"{page}/video", json={"source": part}, headers=OURS)
    assert local.status_code == 422
    assert "choose or drop files" in local.json()["error"]


def test_the_page_in_a_browser(page, part, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        said = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(page)
        tab.set_input_files("#file", part)
        tab.fill("#prompt", "no mask")
        tab.click("#ask")
        tab.wait_for_selector("#status.bad", timeout=60_000)
        assert "has no <|MASK|>" in tab.text_content("#status")
        tab.fill("#prompt", PROMPT)
        tab.fill("#options", "cooking\n<script>document.title='x'</script>")
        tab.click("#ask")
        tab.wait_for_selector("#answer:not([hidden])", timeout=60_000)
        assert tab.locator("#tables td").first.text_content()
        assert "<script>" in tab.text_content("#tables")
        assert tab.title() == "Ask a video"
        assert tab.locator(".segment").count() == 3
        assert tab.locator("#chart circle").count() > 0
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        tab.screenshot(path=str(tmp_path / "page.png"), full_page=True)
        # The 422 of the bad prompt is the only thing a browser reports.
        assert all("422" in message for message in said), said
        browser.close()
