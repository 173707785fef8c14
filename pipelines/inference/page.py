"""The web application of the local page: its requests, their limits, and the model that answers them.

It listens only on this machine and needs no internet. Requests are processed one at a time.
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
"""A header that pages of other origins cannot send without permission, which is never granted."""

_CACHED_VIDEOS = 4
_THUMBNAIL = (256, 256)
_FINE_SEGMENTS = 24
"""The maximum number of segments of videos that get a window at every segment."""


def serve(options: App) -> int:
    """Load the weights, serve the page until interrupted, and return the exit status."""
    with listening_socket(options.port) as listener:
        model = load_weights(options.checkpoint, options.grid)
        sys.stderr.write(f"open http://{HOST}:{options.port} in a browser; press Ctrl-C to stop\n")
        config = uvicorn.Config(make_app(model, options), log_level="warning", server_header=False)
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def listening_socket(port: int) -> socket.socket:
    """Return a socket that listens only on this machine. Raises `UsageError` if the port is not available."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(f"--port {port} cannot be used ({error.strerror}); give another") from None
    return listener


@dataclass
class CachedVideo:
    """A video that the page has loaded, encoded when the first question about it is answered."""

    name: str
    video: VideoInputs
    encoded: Encoded | None = None


class AppState:
    """The state that the page's requests share: the model, the last videos, and a lock for the work on them."""

    def __init__(self, model: Pretrained, options: App):
        self.model, self.options = model, options
        self._videos: OrderedDict[str, CachedVideo] = OrderedDict()
        self._lock = threading.Lock()

    def load_video(self, name: str, source: str) -> dict:
        """Load a video file or a YouTube video, and return its id and segments for the page."""
        with self._lock:
            clip = read_clip(source, Part(end=self._end(source)))
            token = secrets.token_urlsafe(12)
            self._videos[token] = CachedVideo(name, inputs(clip, self.model.config.grid))
            while len(self._videos) > _CACHED_VIDEOS:
                self._videos.popitem(last=False)
        return {"id": token, "name": name, "remarks": list(clip.remarks), "segments": segments_for_page(clip)}

    def _end(self, source: str) -> float | None:
        limit = 60 * self.options.max_minutes
        try:
            length = media.probe(source).duration
        except MediaError:
            return None
        return limit if length is not None and length > limit else None

    def ask(self, token: str, prompt: str, options: list[str]) -> dict:
        """Return the answers to a prompt about a loaded video."""
        cached = self._videos.get(token)
        if cached is None:
            raise RefusedError(404, "this video is no longer loaded; choose it again")
        with self._lock, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            video = cached.video
            if cached.encoded is None:
                cached.encoded = inference.encode(self.model, video, video.audio_clips is not None)
            stride = 1 if len(video.images) <= _FINE_SEGMENTS else None
            masks = inference.answer_all(self.model, video, [prompt], options, stride=stride, encoded=cached.encoded)[0]
        document = as_json(cached.name, prompt, options, video, masks)
        return document | {"remarks": [str(w.message) for w in caught if issubclass(w.category, UserWarning)]}


def segments_for_page(clip: Clip) -> list[dict]:
    """Return times, words, frame and spectrogram of each segment; images are data URLs."""
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
    """Return a log-mel spectrogram `[bands, columns]` as a colour image, with low bands at the bottom."""
    scaled = log_mel[::-1] / max(float(log_mel.max()), 1.0)
    return Image.fromarray((colormaps["magma"](scaled)[..., :3] * 255).astype(np.uint8))


def _address(image: Image.Image, form: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def make_app(model: Pretrained, options: App) -> Starlette:
    """Return the application, which serves the page, `POST /video` and `POST /ask`."""
    state = AppState(model, options)

    async def page(request: Request) -> HTMLResponse:
        del request
        return HTMLResponse(_PAGE.read_text())

    async def video(request: Request) -> JSONResponse:
        name = request.query_params.get("name", "video")[:200]
        if request.headers.get("content-type", "").startswith("application/json"):
            source = text(await read_json(request), "source", MAX_SOURCE)
            youtube_id = video_id(source)
            if youtube_id is None:
                raise RefusedError(422, "give a YouTube id or address; choose or drop files instead")
            # An address is never the name of a file on this machine.
            address = f"https://www.youtube.com/watch?v={youtube_id}"
            return JSONResponse(await _limited(options.seconds, functools.partial(state.load_video, source, address)))
        with tempfile.TemporaryDirectory(prefix="reservoir-app-") as folder:
            # The kind of file is detected from its content, not from its name.
            path = Path(folder) / "video.mp4"
            await store(request, path, options.max_upload_mb << 20, options.seconds)
            return JSONResponse(await _limited(options.seconds, functools.partial(state.load_video, name, str(path))))

    async def ask(request: Request) -> JSONResponse:
        document = await read_json(request)
        token, prompt = text(document, "id", MAX_SOURCE), text(document, "prompt", MAX_PROMPT)
        options_of_prompt = texts(document, "options")
        check_prompts([prompt])
        check_options(options_of_prompt)
        call = functools.partial(state.ask, token, prompt, options_of_prompt)
        return JSONResponse(await _limited(options.seconds, call))

    return Starlette(
        routes=[
            Route("/", page),
            Route("/video", _guarded(video), methods=["POST"]),
            Route("/ask", _guarded(ask), methods=["POST"]),
        ],
        # Reject requests of pages whose host name resolves to this machine (DNS rebinding).
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
    """Middleware that adds the headers of `_SECURITY` to every response."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_SECURITY)
            await send(message)

        await self._app(scope, receive, with_headers)


def _guarded(handler: Callable) -> Callable:
    """Return a handler that only accepts requests of the page, and responds to errors with one sentence as JSON."""

    async def guarded(request: Request) -> JSONResponse:
        try:
            if _HEADER not in request.headers:
                raise RefusedError(403, "only requests of the page itself are accepted")
            return await handler(request)
        except RefusedError as error:
            return JSONResponse({"error": str(error)}, error.status)
        except (UserError, InputError) as error:
            return JSONResponse({"error": _without_folders(str(error))}, 422)
        except ClientDisconnect:
            # The client is gone and does not read the response.
            return JSONResponse({"error": "the request is incomplete"}, 400)
        except OSError as error:
            return JSONResponse({"error": f"the video cannot be stored: {error.strerror}"}, 507)

    return guarded


def _without_folders(sentence: str) -> str:
    """Return a sentence with the folders removed from the paths in it."""
    return re.sub(r"(?:file:)?(?:/[^\s'\"/:]+)+/(?=[^\s'\"/:]+)", "", sentence)


async def _limited(seconds: float, call: Callable[[], dict]) -> dict:
    """Call a function in a thread and return its result. Raises `RefusedError` if it takes too long."""
    try:
        with anyio.fail_after(seconds):
            return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
    except TimeoutError:
        raise RefusedError(504, f"no answer after {seconds:g} s; try a shorter part of the video") from None
