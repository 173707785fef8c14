"""The Flex Template: its description fits the command, and what it hands over is one graph that commits by itself."""

import json
import re
from pathlib import Path

import pytest
from data_folders import content
from emulator import upload
from test_dataflow import IMAGE

from pipelines.deploy.flex_template import arguments
from pipelines.preprocessing.options import is_launch, parse
from pipelines.runner import beam_flags
from shards.dataset.video_store import VideoStore
from shards.storage import filesystem
from shards.storage.errors import UsageError

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "pipelines" / "deploy"
METADATA = json.loads((DEPLOY / "flex_template.json").read_text())
SETTINGS = {
    "timing_model": "none",
    "segments_per_example": "4",
    "shard_bytes": "200000",
    "min_words_per_30s": "20",
}
VALUES = {
    "sdk_container_image": IMAGE,
    "out": "gs://b/data",
    "ids": "gs://b/ids.csv",
    "raw": "gs://b/raw",
    "videos": "gs://b/videos",
    "split": "val",
    "slice": "3/20",
    "text": "gs://b/web.jsonl",
    "stage": "extract",
    "limit": "7",
    "blocklist": "gs://b/blocked.csv",
    "tokenizer": "gs://b/tokenizer.json",
    "language": "pt-BR",
    "seed": "3",
    "downloads_per_day": "600",
    "downloads_at_once": "4",
    "yt_dlp": "--limit-rate 2M",
    "cookies": "projects/p/secrets/cookies/versions/latest",
    "proxy_from": "gs://b/proxy",
    "retry_failed": "true",
    "keep_segments": "true",
} | SETTINGS
LAUNCHER = [
    "--runner=DataflowRunner",
    "--project=my-project",
    "--region=us-central1",
    "--job_name=reservoir",
    "--no_auth",
]


def test_the_metadata_keep_the_rules_of_the_service():
    # Template and parameter metadata of the interface v1b3: names, types, and what must be there.
    assert METADATA.keys() <= {"name", "description", "streaming", "parameters"}
    assert METADATA["name"]
    assert METADATA["streaming"] is False
    kinds = {"name": str, "label": str, "helpText": str, "isOptional": bool, "regexes": list}
    for parameter in METADATA["parameters"]:
        assert {"name", "label", "helpText"} <= parameter.keys() <= kinds.keys()
        assert all(isinstance(value, kinds[key]) and value != "" for key, value in parameter.items()), parameter
        assert re.fullmatch(r"[a-z][a-z0-9_]*", parameter["name"])
    names = [parameter["name"] for parameter in METADATA["parameters"]]
    assert len(names) == len(set(names))
    assert {p["name"] for p in METADATA["parameters"] if not p.get("isOptional")} == {"out", "sdk_container_image"}


@pytest.mark.parametrize("parameter", METADATA["parameters"], ids=lambda parameter: parameter["name"])
def test_every_parameter_is_an_option_of_the_command(parameter):
    name, value = parameter["name"], VALUES[parameter["name"]]
    (pattern,) = parameter["regexes"]
    assert re.fullmatch(pattern, value)
    assert not re.fullmatch(pattern, "; rm -rf /\n")
    required = {"out": "gs://b/data", "sdk_container_image": IMAGE}
    if name not in ("ids", "videos", "raw"):
        required |= {"ids": "gs://b/ids.csv"}
    given = [f"--{key}={text}" for key, text in (required | {name: value}).items()]
    ours, flags = parse(arguments([*given, *LAUNCHER, "--template_location=gs://b/staging/job_object"]))
    assert is_launch(flags)
    known = (
        vars(ours)
        | {"text": ours.text.text[0] if ours.text.text else None}
        | vars(ours.video)
        | vars(ours.video.filters)
        | vars(ours.politeness)
        | vars(ours.download)
    )
    found = known[name] if name in known else beam_flags.beam_options(flags).get_all_options()[name]
    assert str(found) == value.replace("true", "True")


def test_the_image_runs_a_file_that_is_there():
    lines = (DEPLOY / "Dockerfile.flex").read_text()
    (path,) = re.findall(r"FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/reservoir/(\S+)", lines)
    assert (ROOT / path).is_file()
    assert "WORKDIR /opt/reservoir" in (DEPLOY / "Dockerfile").read_text()


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--dry-run"], "--dry-run cannot be launched"),
        (["--runner=FnApiRunner"], "needs --runner=DataflowRunner"),
    ],
)
def test_what_one_graph_cannot_do_is_refused(more, complaint):
    arguments = ["--ids=gs://b/ids", "--raw=gs://b/raw", "--out=gs://b/data", *LAUNCHER, "--template_location=gs://b/t"]
    with pytest.raises(UsageError, match=complaint):
        parse([*arguments, *more])


class Launcher:
    """What the service does with the template: it runs our file once, and then the graph that this left."""

    def __init__(self, bucket, corpus, scratch, run):
        self.bucket, self.corpus, self.scratch, self.run_command, self.launches = bucket, corpus, scratch, run, 0

    def launch(self, **parameters):
        """Hand a job over; returns the description that the service would start."""
        self.launches += 1
        place = f"{self.bucket}/staging/launch-{self.launches}/job_object"
        given = {"videos": f"{self.bucket}/videos", "out": f"{self.bucket}/data", "sdk_container_image": IMAGE}
        given |= {"keep_segments": "false"} | SETTINGS | {"tokenizer": str(self.corpus / "tokenizer.json")} | parameters
        flags = [f"--{name}={value}" for name, value in given.items() if value]
        flags += [*LAUNCHER, f"--temp_location={self.bucket}/tmp", f"--template_location={place}"]
        ran = self.run_command("pipelines.deploy.flex_template", *flags)
        assert ran.status == 0, ran.err
        return json.loads(filesystem.read_bytes(place))

    def run(self, job):
        """Run the graph of a job for real; how it ended."""
        graph = self.scratch / "pipeline.pb"
        options = job["environment"]["sdkPipelineOptions"]["options"]
        graph.write_bytes(filesystem.read_bytes(options["pipelineUrl"]))
        return self.run_command("tests.gcs.replay", graph)


@pytest.fixture
def launcher(bucket, corpus, tmp_path, run):
    upload(corpus / "train", f"{bucket}/videos")
    return Launcher(bucket, corpus, tmp_path, run)


@pytest.mark.timeout(500)
def test_one_launch_makes_the_shards_of_a_local_run(launcher, bucket, undisturbed):
    job = launcher.launch()
    out = f"{bucket}/data"
    assert not filesystem.exists(f"{out}/manifest.json")
    pool = job["environment"]["workerPools"][0]
    assert pool["sdkHarnessContainerImages"][0]["containerImage"] == IMAGE
    ended = launcher.run(job)
    assert ended.status == 0, ended.err[-2000:]
    assert content(out) == content(undisturbed)
    assert not list(VideoStore(out).paths())
    # The service may run a step again after its work was done.
    ended = launcher.run(job)
    assert ended.status == 0, ended.err[-2000:]
    assert content(out) == content(undisturbed)
