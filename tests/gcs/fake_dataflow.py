"""A Dataflow service that takes jobs over its REST interface and really runs the graphs that were staged for them."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from forked import Commands

from shards.storage import filesystem

_ACTIVE = ("JOB_STATE_QUEUED", "JOB_STATE_PENDING", "JOB_STATE_RUNNING")


class FakeDataflow:
    """The service; `jobs` are the posted descriptions, in order, and `states` how each is doing.

    A job runs at once unless `start` is cleared; one whose state a test has set is not run. `messages` are the errors
    that the service states for every job. With `lists` false it lists no job, as if a second terminal came first.
    """

    def __init__(self, scratch: Path, run: Commands):
        self.jobs: list[dict] = []
        self.states: list[str] = []
        self.said: list[str] = []
        self.messages: list[str] = []
        self.start = threading.Event()
        self.start.set()
        self.lists = True
        self._lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, document: dict, status: int = 200) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def post(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if not self.path.split("?")[0].endswith("/jobs"):
                    self.answer({})
                    return
                job = json.loads(body)
                number = service._take(job)
                if number is None:
                    service.lists = True
                    sentence = f"There is already an active job named {job['name']}."
                    self.answer({"error": {"code": 409, "status": "ALREADY_EXISTS", "message": sentence}}, 409)
                    return
                threading.Thread(target=service._run, args=(number, scratch, run), daemon=True).start()
                self.answer(service._job(number))

            def get(self) -> None:
                path = self.path.split("?")[0]
                if path.endswith("/messages"):
                    texts = [{"messageText": text, "messageImportance": 5} for text in service.messages]
                    self.answer({"jobMessages": texts})
                elif path.endswith("/metrics"):
                    self.answer({"metrics": []})
                elif path.endswith("/jobs"):
                    numbers = range(len(service.jobs)) if service.lists else ()
                    self.answer({"jobs": [service._job(number) for number in numbers]})
                else:
                    self.answer(service._job(int(path.rpartition("-")[2])))

            def log_message(self, *arguments: object) -> None:
                """Print nothing."""

        Handler.do_POST, Handler.do_GET = Handler.post, Handler.get
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # The word localhost makes Beam speak REST and not its internal protocol.
        self.address = f"http://localhost:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _take(self, job: dict) -> int | None:
        """The number of a new job; None if one of its name is active."""
        with self._lock:
            active = {j["name"] for j, state in zip(self.jobs, self.states, strict=True) if state in _ACTIVE}
            if job["name"] in active:
                return None
            self.jobs.append(job)
            self.states.append("JOB_STATE_RUNNING" if self.start.is_set() else "JOB_STATE_PENDING")
            return len(self.jobs) - 1

    def _job(self, number: int) -> dict:
        identity = {"id": f"job-{number}", "projectId": "p", "location": "us-central1"}
        return identity | {"name": self.jobs[number]["name"], "currentState": self.states[number]}

    def _run(self, number: int, scratch: Path, run: Commands) -> None:
        self.start.wait()
        if self.states[number] not in _ACTIVE:
            return
        options = self.jobs[number]["environment"]["sdkPipelineOptions"]["options"]
        graph = scratch / f"job-{number}.pb"
        graph.write_bytes(filesystem.read_bytes(options["pipelineUrl"]))
        ran = run("tests.gcs.replay", graph)
        self.said.append(ran.err[-2000:])
        self.states[number] = "JOB_STATE_FAILED" if ran.status else "JOB_STATE_DONE"

    def end(self) -> None:
        self._server.shutdown()
