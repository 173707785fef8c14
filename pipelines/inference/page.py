"""The application behind the local page: its requests, their limits, and the model that answers them.

It listens on this machine alone and needs no internet. One video is worked on at a time.
"""

from __future__ import annotations

import base64
import functools
import io
import re
import secrets
import socket
import sys
import tempfile
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import numpy as np
import uvicorn
from matplotlib import colormaps
from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingest import media
from ingest.clip import Clip
from ingest.ids import video_id
from ingest.media import MediaError
from model import inference
from model.inference import Encoded, VideoInputs
from model.pretrained import Pretrained
from model.reserve import InputError
from pipelines.inference.answers import as_json
from pipelines.inference.clips import inputs, read_clip
from pipelines.inference.options import App, Part, check_options, check_prompts
from pipelines.inference.page_requests import MAX_PROMPT, MAX_SOURCE, RefusedError, read_json, store, text, texts
from pipelines.inference.weights import load_weights
from shards.storage.errors import UsageError, UserError

HOST = "127.0.0.1"
_PAGE = Path(__file__).with_name("page.html")
_HEADER = "x-reservoir"
"""A header that other pages cannot send here unless they are allowed to, which they are not."""

_HELD_VIDEOS = 4
_THUMBNAIL = (256, 256)
_FINE_SEGMENTS = 24
"""Videos of at most so many segments get a window at each of them."""


def serve(options: App) -> int:
    """Load the weights and serve until interrupted; returns the exit status."""
    with bound(options.port) as listening:
        model = load_weights(options.checkpoint, options.grid)
        sys.stderr.write(f"open http://{HOST}:{options.port} in a browser; Ctrl-C ends\n")
        config = uvicorn.Config(make_app(model, options), log_level="warning", server_header=False)
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def bound(port: int) -> socket.socket:
    """A socket that listens on this machine alone, before the weights are loaded. Raises `UsageError`."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise UsageError(f"--port {port} cannot be used ({error.strerror}); give another") from None
    return listening


@dataclass
class Held:
    """A video that the page is asking about."""

    name: str
    video: VideoInputs
    encoded: Encoded | None = None


class Desk:
    """What the page's requests share: the model, the last videos, and one pair of hands."""

    def __init__(self, model: Pretrained, options: App):
        self.model, self.options = model, options
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._hands = threading.Lock()

    def take(self, name: str, source: str) -> dict:
        """Look at a video file, or an id or address; what the page shows of it."""
        with self._hands:
            clip = read_clip(source, Part(end=self._end(source)))
            token = secrets.token_urlsafe(12)
            self._held[token] = Held(name, inputs(clip, self.model.config.grid))
            while len(self._held) > _HELD_VIDEOS:
                self._held.popitem(last=False)
        return {"id": token, "name": name, "remarks": list(clip.remarks), "segments": shown(clip)}

    def _end(self, source: str) -> float | None:
        limit = 60 * self.options.max_minutes
        try:
            length = media.probe(source).duration
        except MediaError:
            return None
        return limit if length is not None and length > limit else None

    def ask(self, token: str, prompt: str, options: list[str]) -> dict:
        """The answers to a prompt about a video that was taken."""
        held = self._held.get(token)
        if held is None:
            raise RefusedError(404, "this video is not here any more; choose it again")
        with self._hands, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            video = held.video
            if held.encoded is None:
                held.encoded = inference.encode(self.model, video, video.audio_clips is not None)
            stride = 1 if len(video.images) <= _FINE_SEGMENTS else None
            masks = inference.answer_all(self.model, video, [prompt], options, stride=stride, encoded=held.encoded)[0]
        answered = as_json(held.name, prompt, options, video, masks)
        return answered | {"remarks": [str(w.message) for w in caught if issubclass(w.category, UserWarning)]}


def shown(clip: Clip) -> list[dict]:
    """The segments as the page draws them: times, words, the frame and the spectrogram as data addresses."""
    segments = []
    for index, (start, end) in enumerate(clip.times.tolist()):
        frame = Image.fromarray(clip.frames[index])
        frame.thumbnail(_THUMBNAIL)
        segment = {"start": start, "end": end, "frame": _address(frame, "JPEG")}
        if clip.log_mels is not None:
            segment["spectrogram"] = _address(spectrogram_picture(clip.log_mels[index]), "PNG")
        if clip.texts is not None:
            segment["words"] = clip.texts[index]
        segments.append(segment)
    return segments


def spectrogram_picture(log_mel: np.ndarray) -> Image.Image:
    """A log-mel spectrogram `[bands, columns]` in colours, low bands at the bottom."""
    scaled = log_mel[::-1] / max(float(log_mel.max()), 1.0)
    return Image.fromarray((colormaps["magma"](scaled)[..., :3] * 255).astype(np.uint8))


def _address(image: Image.Image, form: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def make_app(model: Pretrained, options: App) -> Starlette:
    """The application: the page, `POST /video` and `POST /ask`."""
    desk = Desk(model, options)

    async def page(request: Request) -> HTMLResponse:
        del request
        return HTMLResponse(_PAGE.read_text())

    async def video(request: Request) -> JSONResponse:
        name = request.query_params.get("name", "video")[:200]
        if request.headers.get("content-type", "").startswith("application/json"):
            source = text(await read_json(request), "source", MAX_SOURCE)
            found = video_id(source)
            if found is None:
                raise RefusedError(422, "give an id or address of YouTube; files are chosen or dropped")
            # An address is never the name of a file on this machine.
            address = f"https://www.youtube.com/watch?v={found}"
            return JSONResponse(await _limited(options.seconds, functools.partial(desk.take, source, address)))
        with tempfile.TemporaryDirectory(prefix="reservoir-app-") as folder:
            # What kind of file it is follows from its content, whatever name it was sent with.
            path = Path(folder) / "video.mp4"
            await store(request, path, options.max_upload_mb << 20, options.seconds)
            return JSONResponse(await _limited(options.seconds, functools.partial(desk.take, name, str(path))))

    async def ask(request: Request) -> JSONResponse:
        document = await read_json(request)
        token, prompt = text(document, "id", MAX_SOURCE), text(document, "prompt", MAX_PROMPT)
        options_of_prompt = texts(document, "options")
        check_prompts([prompt])
        check_options(options_of_prompt)
        call = functools.partial(desk.ask, token, prompt, options_of_prompt)
        return JSONResponse(await _limited(options.seconds, call))

    return Starlette(
        routes=[
            Route("/", page),
            Route("/video", _guarded(video), methods=["POST"]),
            Route("/ask", _guarded(ask), methods=["POST"]),
        ],
        # A page elsewhere that points its own name at this machine gets nothing.
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
        ],
    )


_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_SECURITY = {
    "Content-Security-Policy": _POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class _Headers:
    """Adds the headers of `_SECURITY` to every answer."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_SECURITY)
            await send(message)

        await self._app(scope, receive, with_headers)


def _guarded(handler: Callable) -> Callable:
    """The handler, with errors as JSON of one sentence, for requests of our own page only."""

    async def guarded(request: Request) -> JSONResponse:
        try:
            if _HEADER not in request.headers:
                raise RefusedError(403, "only the page itself may ask")
            return await handler(request)
        except RefusedError as error:
            return JSONResponse({"error": str(error)}, error.status)
        except (UserError, InputError) as error:
            return JSONResponse({"error": _without_folders(str(error))}, 422)
        except ClientDisconnect:
            # No one reads the answer.
            return JSONResponse({"error": "the request was not sent to its end"}, 400)
        except OSError as error:
            return JSONResponse({"error": f"the video cannot be stored: {error.strerror}"}, 507)

    return guarded


def _without_folders(sentence: str) -> str:
    """A sentence in which files of this machine are named without their folders."""
    return re.sub(r"(?:file:)?(?:/[^\s'\"/:]+)+/(?=[^\s'\"/:]+)", "", sentence)


async def _limited(seconds: float, call: Callable[[], dict]) -> dict:
    """The result of a call in a thread. Raises `RefusedError` when it takes too long."""
    try:
        with anyio.fail_after(seconds):
            return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
    except TimeoutError:
        raise RefusedError(504, f"no answer after {seconds:g} s; try a shorter part of the video") from None
