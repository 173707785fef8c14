"""What a submission stages for its workers: a package that works where there is no checkout.

The fresh environment sees the third-party packages of this one by a `.pth` file, which saves their download; a path
that is added so does not run the hooks through which this environment finds the checkout, and the tests look.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.stager import Stager
from data_folders import content

ROOT = Path(__file__).parents[2]
PACKAGES = ("shards", "ingest", "model", "train", "pipelines")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the archive that Beam stages with --setup_file, built from a copy of what the image is made of."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    (folder / "staged").mkdir()
    options = PipelineOptions([f"--setup_file={source / 'pyproject.toml'}"])
    Stager.create_job_resources(options, str(folder / "staged"))
    (archive,) = (folder / "staged").glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(archive)], check=True, timeout=100)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of a fresh environment that holds the package."""
    folder = tmp_path_factory.mktemp("fresh") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    fresh = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(fresh), "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, str(wheel)], check=True, timeout=60)
    place = sysconfig.get_path("purelib", vars={"base": str(folder)})
    Path(place, "third_party.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return fresh


def run(python, folder, *arguments):
    """A command of the fresh environment, far from the checkout."""
    away = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *arguments], cwd=folder, env=away, capture_output=True, text=True, timeout=150, check=False
    )


def modules():
    """The files of all modules of ours, as they are named in a wheel."""
    found = (path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {str(path) for path in found}


def test_the_wheel_holds_every_module_and_no_tests(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    pages = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.html")}
    typed = {f"{package}/py.typed" for package in PACKAGES}
    assert pages
    assert names == modules() | pages | typed


def test_every_module_is_found_in_the_fresh_environment(python, tmp_path):
    names = sorted(path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in modules())
    script = (
        "import importlib.util, json, sys\n"
        f"print(json.dumps([importlib.util.find_spec(name).origin for name in {names!r}]))\n"
        "print(json.dumps(sys.path))\n"
    )
    ended = run(python, tmp_path, "-c", script)
    assert ended.returncode == 0, ended.stderr
    origins, path = map(json.loads, ended.stdout.splitlines())
    home = str(python.parent.parent)
    assert [origin for origin in origins if not origin.startswith(home)] == []
    assert str(ROOT) not in path


def test_a_job_of_the_fresh_environment_makes_the_same_shards(python, tmp_path, finish, corpus, settings):
    there = tmp_path / "there"
    more = ["--limit=1", "--direct_num_workers=1"]
    job = ["-m", "pipelines.preprocess", "--videos", str(corpus / "train"), "--out", str(there), *settings, *more]
    ended = run(python, tmp_path, *job)
    assert ended.returncode == 0, ended.stderr
    finish(tmp_path / "here", *more)
    made = content(there)
    assert any(name.endswith(".tfrecord") for name in made)
    assert made == content(tmp_path / "here")
    log = there / "job.log"
    said = log.read_text() if log.exists() else ""
    # Third-party packages may say where they are, and that may be in the checkout.
    assert [package for package in PACKAGES if str(ROOT / package) in said] == []

    doctor = run(python, tmp_path, "-m", "pipelines.doctor")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    shown = run(python, tmp_path, "-m", "shards", "report", str(there), "--out", str(tmp_path / "report"))
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "report" / "index.html").stat().st_size > 1000
    served = run(python, tmp_path, "-c", "from pipelines.inference import page; print(len(page._PAGE.read_text()))")
    assert int(served.stdout) > 1000, served.stderr
