"""What a job needs of its workers' image, read from a registry that speaks HTTP on this machine."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ingest.config import VideoConfig
from pipelines.preprocessing.options import parse
from pipelines.runner import beam_flags, image_registry
from pipelines.runner.image_registry import Reference, RegistryError
from pipelines.runner.worker_image import check_launch, needs
from shards.storage.errors import UsageError

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TOKEN = "a-token-for-everybody"


class Registry(BaseHTTPRequestHandler):
    """Answers the requests of the distribution specification that a pull starts with, for those with a token."""

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.server.requests.append(self.path)
        if path == "/token":
            return self._answer(200, {"token": TOKEN if "scope=repository" in query else "none"})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            realm = (
                f'Bearer realm="http://{self.headers["Host"]}/token",service="here",scope="repository:r/worker:pull"'
            )
            return self._answer(401, {}, {"WWW-Authenticate": realm})
        if path not in self.server.content:
            return self._answer(404, {"errors": [{"code": "MANIFEST_UNKNOWN"}]})
        kind, content = self.server.content[path]
        assert kind in self.headers["Accept"] or "/blobs/" in path
        return self._answer(200, content, {"Content-Type": kind})

    def _answer(self, status, content, headers=()):
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in dict(headers, **{"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def registry():
    """A registry; `push(tag, variables)` gives the image's reference."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    server.content, server.requests = {}, []

    def push(tag, variables, platforms=None):
        place = f"127.0.0.1:{server.server_port}/r/worker"

        def store(kind, folder, content, name=None):
            digest = f"sha256:{hashlib.sha256(json.dumps(content).encode()).hexdigest()}"
            server.content[f"/v2/r/worker/{folder}/{name or digest}"] = kind, content
            return digest

        config = store("application/octet-stream", "blobs", {"os": "linux", "config": {"Env": variables}})
        manifest = {"schemaVersion": 2, "config": {"digest": config}, "layers": []}
        if platforms is None:
            store(MANIFEST, "manifests", manifest, tag)
        else:
            digest = store(MANIFEST, "manifests", manifest)
            entries = [{"digest": digest, "platform": {"os": system, "architecture": a}} for system, a in platforms]
            store(INDEX, "manifests", {"manifests": entries}, tag)
        return f"{place}:{tag}"

    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield push
    server.shutdown()
    thread.join()
    server.server_close()


def dataflow(image):
    return ("--runner=DataflowRunner", *([f"--sdk_container_image={image}"] if image else []))


HEARS = VideoConfig(asr="missing", transcript="forced")


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("us-docker.pkg.dev/p/r/worker:1", ("us-docker.pkg.dev", "p/r/worker", "1")),
        ("localhost:5000/worker", ("localhost:5000", "worker", "latest")),
        ("gcr.io/p/worker:1@sha256:ab", ("gcr.io", "p/worker", "sha256:ab")),
        ("me/worker:2", ("registry-1.docker.io", "me/worker", "2")),
        ("python", ("registry-1.docker.io", "library/python", "latest")),
    ],
)
def test_references_are_read_as_docker_reads_them(image, parts):
    assert Reference.parse(image) == Reference(*parts)


def test_only_registries_of_this_machine_are_asked_in_the_clear():
    assert Reference.parse("gcr.io/p/w:1").url("manifests", "1") == "https://gcr.io/v2/p/w/manifests/1"
    assert Reference.parse("localhost:1/w:1").url("manifests", "1") == "http://localhost:1/v2/w/manifests/1"


@pytest.mark.parametrize("platforms", [None, [("linux", "arm64"), ("linux", "amd64")]])
def test_the_variables_of_an_image_are_read_without_pulling_it(registry, platforms):
    image = registry("1", ["PATH=/a:/b", "RESERVOIR_EXTRAS=asr ask", "EMPTY="], platforms)
    assert image_registry.environment(image) == {"PATH": "/a:/b", "RESERVOIR_EXTRAS": "asr ask", "EMPTY": ""}


def test_what_a_registry_cannot_tell_is_one_sentence(registry):
    image = registry("1", [], [("linux", "arm64")])
    with pytest.raises(RegistryError, match="not built for linux/amd64"):
        image_registry.environment(image)
    with pytest.raises(RegistryError, match="does not describe an image"):
        image_registry.environment(registry("2", [["no", "variable"]]))
    with pytest.raises(RegistryError, match="did not answer: 404"):
        image_registry.environment(f"{image}-other")
    with pytest.raises(RegistryError, match="did not answer"):
        image_registry.environment("localhost:1/worker")


@pytest.mark.parametrize(
    ("options", "extras"),
    [
        ({}, []),
        ({"transcript": "aligned", "embedder": "none"}, []),
        ({"embedder": "package.module:factory"}, []),
        ({"asr": "all"}, ["asr"]),
        ({"transcript": "forced"}, ["asr"]),
        ({"embedder": "a.onnx"}, ["asr"]),
        ({"embedder": "a.pth.tar"}, ["ask"]),
        ({"embedder": "reserve=base", "asr": "missing"}, ["asr", "ask"]),
    ],
)
def test_options_need_extras(options, extras):
    assert [need.extra for need in needs(VideoConfig(**options))] == extras


def test_an_image_with_the_extras_passes(registry):
    image = registry("1", ["RESERVOIR_EXTRAS=ask asr"])
    assert check_launch(HEARS, dataflow(image)) is None
    assert (
        check_launch(HEARS, ("--runner=PortableRunner", "--environment_type=DOCKER", f"--environment_config={image}"))
        is None
    )


@pytest.mark.parametrize("variables", [[], ["RESERVOIR_EXTRAS="], ["RESERVOIR_EXTRAS=ask"]])
def test_an_image_without_the_extras_is_refused(registry, variables):
    image = registry("1", variables)
    has_one = variables == ["RESERVOIR_EXTRAS=ask"]
    has, build = ("has the extras ask", "ask asr") if has_one else ("has no extras", "asr")
    with pytest.raises(UsageError, match=f"{image} {has}, but --asr missing needs asr, .*build-arg EXTRAS='{build}'"):
        check_launch(HEARS, dataflow(image))


def test_a_job_in_containers_needs_an_image_for_extras():
    with pytest.raises(UsageError, match=r"--asr missing, --transcript forced needs an image.*--sdk_container_image"):
        check_launch(HEARS, dataflow(None))


def test_jobs_without_extras_or_containers_ask_no_registry(registry):
    nowhere = "localhost:1/worker:1"
    assert check_launch(VideoConfig(), dataflow(nowhere)) is None
    assert check_launch(HEARS, (f"--sdk_container_image={nowhere}",)) is None
    assert check_launch(HEARS, ("--runner=PortableRunner", "--environment_type=LOOPBACK")) is None


def test_an_unreachable_registry_leaves_the_check_to_workers():
    note = check_launch(HEARS, dataflow("localhost:1/worker:1"))
    assert note.startswith(
        "cannot check that localhost:1/worker:1 has the extras for --asr missing, --transcript forced"
    )
    assert note.endswith("; its workers will check")


def test_the_command_refuses_an_image_that_lacks_an_extra(registry, run):
    image = registry("1", ["RESERVOIR_EXTRAS="])
    command = ("--videos", "gs://bucket/videos", "--out", "gs://bucket/out", "--asr", "all", *dataflow(image))
    assert beam_flags.runner(parse([*command])[1]) == beam_flags.DATAFLOW
    ran = run.preprocess(*command)
    assert ran.status == 2, ran.err
    assert ran.err.startswith(f"error: the image {image} has no extras, but --asr all needs asr; build the image with ")
