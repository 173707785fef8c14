"""A Dataflow service that takes jobs over its REST interface and really runs the graphs that were staged for them."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from forked import Commands

from shards import filesystem


class FakeDataflow:
    """The service; `jobs` are the posted descriptions, in order."""

    def __init__(self, scratch: Path, run: Commands):
        self.jobs: list[dict] = []
        self.said: list[str] = []
        self._states: list[str] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, document: dict) -> None:
                body = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def post(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path.split("?")[0].endswith("/jobs"):
                    number = len(service.jobs)
                    service.jobs.append(json.loads(body))
                    service._states.append("JOB_STATE_RUNNING")
                    threading.Thread(target=service._run, args=(number, scratch, run), daemon=True).start()
                    self.answer(service._job(number))
                else:
                    self.answer({})

            def get(self) -> None:
                path = self.path.split("?")[0]
                if path.endswith("/messages"):
                    self.answer({"jobMessages": []})
                elif path.endswith("/metrics"):
                    self.answer({"metrics": []})
                else:
                    self.answer(service._job(int(path.rpartition("-")[2])))

            def log_message(self, *arguments: object) -> None:
                """Print nothing."""

        Handler.do_POST, Handler.do_GET = Handler.post, Handler.get
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # The word localhost makes Beam speak REST and not its internal protocol.
        self.address = f"http://localhost:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _job(self, number: int) -> dict:
        state = {"currentState": self._states[number]}
        return {"id": f"job-{number}", "projectId": "p", "location": "us-central1", "name": "reservoir"} | state

    def _run(self, number: int, scratch: Path, run: Commands) -> None:
        options = self.jobs[number]["environment"]["sdkPipelineOptions"]["options"]
        graph = scratch / f"job-{number}.pb"
        graph.write_bytes(filesystem.read_bytes(options["pipelineUrl"]))
        ran = run("tests.gcs.replay", graph)
        self.said.append(ran.err[-2000:])
        self._states[number] = "JOB_STATE_FAILED" if ran.status else "JOB_STATE_DONE"

    def end(self) -> None:
        self._server.shutdown()
