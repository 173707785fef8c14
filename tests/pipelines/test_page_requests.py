"""Requests that are too large, too slow, cut, or of wrong types, over a real socket to a real server."""

import json
import logging
import socket
import threading
import time

import httpx
import pytest
import uvicorn

from model.config import TINY
from model.pretrained import Pretrained
from pipelines import app
from pipelines.inference import page_requests
from pipelines.inference.options import App
from pipelines.inference.page import HOST, listening_socket, make_app
from shards.storage.errors import UsageError

OURS = {"X-Reservoir": "1"}
ASKED = {"id": "x", "prompt": "a <|MASK|>", "options": ["a", "b"]}


@pytest.fixture(scope="module")
def page():
    """The address of a page; its model has no weights, for no request here may come as far."""
    listening = listening_socket(0)
    options = App(max_upload_mb=4, seconds=3)
    config = uvicorn.Config(make_app(Pretrained({}, TINY), options), log_level="error", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    yield f"http://{HOST}:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def post(page, path, **request):
    answer = httpx.post(f"{page}{path}", headers=OURS | request.pop("headers", {}), timeout=30, **request)
    assert isinstance(answer.json()["error"], str)
    return answer.status_code, answer.json()["error"]


@pytest.mark.parametrize(
    "change",
    [
        {"id": 5},
        {"id": None},
        {"prompt": ["a"]},
        {"prompt": {}},
        {"options": "abc"},
        {"options": None},
        {"options": ["a", 5]},
        {"options": [["a"]]},
        {"options": {"a": 1}},
        {"prompt": "\ud800"},
        {"options": ["\udfff"]},
        {"id": "\ud800"},
        {"prompt": "a <|AUDIOSPAN|> <|MASK|>"},
        {"prompt": "no mask"},
        {"options": ["a", "a"]},
        {"options": ["a", " "]},
    ],
)
def test_wrong_types_are_422(page, change):
    body = json.dumps(ASKED | change).encode()
    assert post(page, "/ask", content=body)[0] == 422


@pytest.mark.parametrize(
    "change", [{"prompt": "x" * 30_000}, {"options": ["x" * 3000]}, {"options": ["a"] * 5001}, {"id": "x" * 3000}]
)
def test_long_values_are_413(page, change):
    assert post(page, "/ask", json=ASKED | change)[0] == 413


@pytest.mark.parametrize(
    "body", [b"", b"[", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"9" * 9999]
)
def test_bodies_that_are_no_objects_are_400(page, body):
    assert post(page, "/ask", content=body)[0] == 400
    assert post(page, "/video", content=body, headers={"Content-Type": "application/json"})[0] == 400


def test_large_json_is_refused_before_it_is_read(page):
    assert post(page, "/ask", content=b" " * (3 << 20))[0] == 413

    def endless():
        for _ in range(20):
            yield b" " * (1 << 20)

    assert post(page, "/ask", content=endless())[0] == 413


@pytest.mark.parametrize(
    "source", ["", "/etc/passwd", "x" * 2000, "a\x00b", "no id", "file:///etc/passwd", 5, None, []]
)
def test_sources_that_are_no_video(page, source):
    status, sentence = post(page, "/video", json={"source": source})
    assert status == 422
    assert "passwd" not in sentence


@pytest.mark.parametrize("name", ["a.m3u8", "a.mp4", "a.\x00", "x" * 500, "a.%2e%2e%2f", "..%2f..%2fx.ffconcat", ""])
@pytest.mark.parametrize(
    "content", [b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n", b"ffconcat version 1.0\nfile /etc/hostname\n"]
)
def test_uploads_are_known_by_their_content(page, name, content):
    status, sentence = post(page, "/video", params={"name": name}, content=content)
    assert status == 422
    assert "/" not in sentence


def raw_request(page, head: bytes, *, wait: float = 0.0) -> bytes:
    """What the server answers to bytes after which nothing more comes."""
    host, port = page.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head)
        if wait:
            time.sleep(wait)
            return b""
        return connection.recv(1 << 16)


def head(path: str, length: int, kind: str = "application/json") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "X-Reservoir: 1", f"Content-Length: {length}", f"Content-Type: {kind}"]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_slow_upload_is_ended(page):
    started = time.monotonic()
    assert b" 408 " in raw_request(page, head("/video?name=a.mp4", 1000, "application/octet-stream") + b"abc")
    assert time.monotonic() - started < 10


def test_a_slow_document_is_ended(page):
    started = time.monotonic()
    assert b" 408 " in raw_request(page, head("/ask", 1000) + b'{"id"')
    assert time.monotonic() - started < page_requests.JSON_SECONDS + 5


def test_a_request_that_is_broken_off_leaves_no_traceback(page, caplog):
    with caplog.at_level(logging.DEBUG):
        for path in ("/ask", "/video?name=a.mp4"):
            raw_request(page, head(path, 1000) + b"abc", wait=0.3)
            raw_request(page, head(path, 1000, "application/octet-stream") + b"abc", wait=0.3)
        time.sleep(0.5)
    assert "Traceback" not in caplog.text
    assert "ClientDisconnect" not in caplog.text


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/ask", 405), ("/nothing", 404)])
def test_every_answer_has_the_headers(page, path, status):
    answer = httpx.get(f"{page}{path}")
    assert answer.status_code == status
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_port_in_use_is_refused_before_the_weights_are_loaded(tmp_path):
    with listening_socket(0) as taken:
        port = taken.getsockname()[1]
        weights = tmp_path / "ckpt_1"
        weights.write_bytes(b"no weights")
        with pytest.raises(UsageError, match=f"--port {port} cannot be used"):
            app.main(["--checkpoint", str(weights), "--port", str(port)])
