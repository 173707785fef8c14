"""The bodies of the page's requests: bounded in bytes and time, and checked before anything works on them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from starlette.requests import Request

MAX_JSON_BYTES = 2 << 20
JSON_SECONDS = 10.0
IDLE_SECONDS = 10.0
"""Seconds between two pieces of an upload, after which it is ended."""

MAX_SOURCE = 2048
MAX_PROMPT = 20_000
MAX_OPTION = 2000
MOST_OPTIONS = 5000


class RefusedError(Exception):
    """A request that is answered with a status and one sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


async def read_json(request: Request) -> dict:
    """The JSON object in the body of a request. Raises `RefusedError`."""
    too_large = RefusedError(413, f"the request is larger than {MAX_JSON_BYTES >> 20} MB")
    _check_length(request, MAX_JSON_BYTES, too_large)
    body = bytearray()
    with _time_limit(JSON_SECONDS):
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_JSON_BYTES:
                raise too_large
    try:
        document = json.loads(body.decode())
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise RefusedError(400, "the request is not a JSON object")
    return document


async def store(request: Request, path: Path, limit: int, seconds: float) -> None:
    """Write the body of a request to a file.

    Raises `RefusedError` as soon as it is too large or too slow, or if it is empty.
    """
    too_large = RefusedError(413, f"the video is larger than {limit >> 20} MB; cut it, or start the page with more")
    _check_length(request, limit, too_large)
    stored = 0
    with path.open("wb") as file, _time_limit(seconds):
        async for piece in _steadily(request):
            stored += len(piece)
            if stored > limit:
                raise too_large
            file.write(piece)
    if not stored:
        raise RefusedError(422, "the file is empty; choose a video")


async def _steadily(request: Request) -> AsyncIterator[bytes]:
    """The pieces of a body. Raises `RefusedError` if one does not come in time."""
    pieces = request.stream()
    while True:
        with _time_limit(IDLE_SECONDS):
            piece = await anext(pieces, None)
        if piece is None:
            return
        yield piece


@contextlib.contextmanager
def _time_limit(seconds: float):
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError:
        raise RefusedError(408, f"the request did not arrive in {seconds:g} s; send it again") from None


def _check_length(request: Request, limit: int, error: RefusedError) -> None:
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal() or len(stated) > 18 or int(stated) > limit:
        raise error


def text(document: dict, name: str, most: int) -> str:
    """A text of a request by its name. Raises `RefusedError` if it is none, too long, or cannot be encoded."""
    value = document.get(name)
    if not isinstance(value, str):
        raise RefusedError(422, f"{name!r} must be a text")
    _check_text(value, name, most)
    return value


def texts(document: dict, name: str) -> list[str]:
    """A list of texts of a request by its name. Raises `RefusedError` if it is none or too long."""
    values = document.get(name)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise RefusedError(422, f"{name!r} must be a list of texts")
    if len(values) > MOST_OPTIONS:
        raise RefusedError(413, f"{len(values)} {name} are too many; give at most {MOST_OPTIONS}")
    for value in values:
        _check_text(value, name, MAX_OPTION)
    return values


def _check_text(value: str, name: str, most: int) -> None:
    if len(value) > most:
        raise RefusedError(413, f"a text of {len(value):,} characters in {name!r} is too long; give at most {most:,}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RefusedError(422, f"{name!r} has half of a surrogate pair, which is no character") from None
