"""A small YouTube on 127.0.0.1: info dicts, media and captions, each video with a fault of its own."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

STALL_SECONDS = 30
PLUGIN = Path(__file__).parent / "fixtures" / "youtube"


@dataclass
class Site:
    """What the server has: media and caption files, and faults by video id; `hits` counts requests by path.

    `infos` are the info dicts of some videos, in which `{base}` is the server, and `bodies` the answers to some paths.
    `cookies` counts the cookies that were sent; the server sets `set_cookie` in every answer.
    """

    media: bytes
    captions: str
    info: dict
    faults: dict[str, str] = field(default_factory=dict)
    infos: dict[str, dict] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    hits: Counter = field(default_factory=Counter)
    cookies: Counter = field(default_factory=Counter)
    set_cookie: str = ""
    address: str = ""

    @classmethod
    def of_folder(cls, videos: Path) -> Site:
        """A site that has the first video of a folder, with its captions and metadata, under every id."""
        video = sorted(videos.glob("*.mp4"))[0]
        captions, info = video.with_suffix(".en.vtt"), video.with_suffix(".info.json")
        return cls(video.read_bytes(), captions.read_text(), json.loads(info.read_text()))

    def describe(self, video_id: str) -> dict:
        """The info dict of a video."""
        fault = self.faults.get(video_id, "")
        if video_id in self.infos:
            text = json.dumps(self.infos[video_id]).replace("{base}", self.address)
            return json.loads(text) | {"id": video_id}
        if fault.startswith("text:"):
            return {"error": fault.removeprefix("text:")}
        if fault == "geo":
            return {"error": "The uploader has not made this video available in your country", "countries": ["DE"]}
        described = {k: v for k, v in self.info.items() if k not in ("automatic_captions", "subtitles", "formats")} | {
            "id": video_id,
            "formats": [
                {
                    "format_id": "18",
                    "url": f"{self.address}/media/{video_id}.mp4",
                    "ext": "mp4",
                    "height": 360,
                    "width": 640,
                    "vcodec": "avc1",
                    "acodec": "mp4a",
                }
            ],
            "automatic_captions": {
                "en": [{"ext": e, "url": f"{self.address}/asr/{video_id}.{e}"} for e in ("json3", "vtt")],
                "de": [{"ext": "vtt", "url": f"{self.address}/asr-de/{video_id}.vtt"}],
            },
            "subtitles": {"en": [{"ext": "vtt", "url": f"{self.address}/uploaded/{video_id}.vtt"}]},
        }
        if fault == "no-captions":
            described |= {"automatic_captions": {}, "subtitles": {}}
        if fault == "live":
            described |= {"is_live": True, "live_status": "is_live"}
        if fault in ("is_upcoming", "post_live"):
            described |= {"live_status": fault}
        if fault == "storyboards":
            described["formats"] = [{"format_id": "sb0", "ext": "mhtml", "vcodec": "none", "acodec": "none"}]
        if fault == "no-format":
            described["formats"][0]["height"] = 1080
        if fault == "too-long":
            described["duration"] = 5000
        if fault == "fields":
            described |= {"title": None, "description": None, "tags": None, "categories": None, "view_count": None}
        return described


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        # As a proxy it is given whole addresses.
        kind, _, name = urlsplit(self.path).path.strip("/").partition("/")
        video_id = name.split(".")[0]
        fault = self.site.faults.get(video_id, "")
        self.site.hits[f"{kind}/{video_id}"] += 1
        if sent := self.headers.get("Cookie"):
            self.site.cookies[sent] += 1
        if (path := f"{kind}/{name}") in self.site.bodies:
            self._answer(200, self.site.bodies[path])
        elif kind == "info":
            if fault.startswith("info-status:"):
                self._answer(int(fault.split(":")[1]), b"{}", "application/json")
            else:
                self._answer(200, json.dumps(self.site.describe(video_id)).encode(), "application/json")
        elif kind in ("asr", "uploaded"):
            self._captions(video_id, fault)
        elif kind == "media":
            self._media(fault)
        else:
            self._answer(404, b"")

    def _captions(self, video_id: str, fault: str) -> None:
        if fault == "captions-429":
            self._answer(429, b"slow down", headers={"Retry-After": "3600"})
        elif fault == "captions-429-once" and self.site.hits[f"asr/{video_id}"] == 1:
            self._answer(429, b"slow down", headers={"Retry-After": "1"})
        elif fault == "captions-404":
            self._answer(404, b"")
        elif fault == "captions-empty":
            self._answer(200, b"", "text/vtt")
        elif fault == "captions-page":
            self._answer(200, b"<html><head><title>Sorry...</title></head></html>", "text/html")
        else:
            self._answer(200, self.site.captions.encode(), "text/vtt")

    def _media(self, fault: str) -> None:
        if fault.startswith("status:"):
            self._answer(int(fault.split(":")[1]), b"no")
        elif fault == "html":
            self._answer(200, b"<html><body>Sorry</body></html>" * 100, "video/mp4")
        elif fault == "truncated":
            self._answer(200, self.site.media[: len(self.site.media) // 3], "video/mp4", length=len(self.site.media))
        elif fault == "stalled":
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.site.media)))
            self.end_headers()
            self.wfile.write(self.site.media[:1000])
            self.wfile.flush()
            time.sleep(STALL_SECONDS)
        else:
            self._answer(200, self.site.media, "video/mp4")

    def _answer(
        self,
        status: int,
        body: bytes,
        kind: str = "text/plain",
        length: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            if self.site.set_cookie:
                self.send_header("Set-Cookie", self.site.set_cookie)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *said: object) -> None:
        pass


@contextlib.contextmanager
def serve(site: Site) -> Iterator[Site]:
    """The site at `site.address` for the duration of the block."""
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    site.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
