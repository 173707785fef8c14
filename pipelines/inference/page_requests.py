"""Read the bodies of the page's requests, with limits of bytes and time, and check their values."""

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
"""The maximum number of seconds between two pieces of an upload."""

MAX_SOURCE = 2048
MAX_PROMPT = 20_000
MAX_OPTION = 2000
MAX_OPTIONS = 5000


class RefusedError(Exception):
    """A request that is rejected with a status and one sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


async def read_json(request: Request) -> dict:
    """Return the JSON object in the body of a request. Raises `RefusedError`."""
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
    too_large = RefusedError(
        413, f"the video is larger than {limit >> 20} MB; shorten it, or raise the page's --max-upload-mb"
    )
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
    """Yield the pieces of a body. Raises `RefusedError` if a piece does not arrive in time."""
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
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 18 or int(length) > limit:
        raise error


def text(document: dict, name: str, limit: int) -> str:
    """Return a string of a request by its name. Raises `RefusedError` if it is missing, too long, or not encodable."""
    value = document.get(name)
    if not isinstance(value, str):
        raise RefusedError(422, f"{name!r} must be a string")
    _check_text(value, name, limit)
    return value


def texts(document: dict, name: str) -> list[str]:
    """Return a list of strings of a request by its name. Raises `RefusedError` if it is missing or too long."""
    values = document.get(name)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise RefusedError(422, f"{name!r} must be a list of strings")
    if len(values) > MAX_OPTIONS:
        raise RefusedError(413, f"{len(values)} {name} are too many; give at most {MAX_OPTIONS}")
    for value in values:
        _check_text(value, name, MAX_OPTION)
    return values


def _check_text(value: str, name: str, limit: int) -> None:
    if len(value) > limit:
        raise RefusedError(413, f"a text of {len(value):,} characters in {name!r} is too long; give at most {limit:,}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RefusedError(422, f"{name!r} contains an unpaired surrogate, which is not a valid character") from None
