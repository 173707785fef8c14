"""The network runs on a machine with jax, flax, numpy and msgpack only."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import importlib, pkgutil, sys

class Blocked:
    names = {"tensorflow", "apache_beam", "librosa", "yt_dlp", "tokenizers", "optax", "orbax", "google.cloud"}
    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import model
names = [module.name for module in pkgutil.walk_packages(model.__path__, "model.")]
for name in names:
    importlib.import_module(name)
ours = sorted(name for name in sys.modules if name.split(".")[0] in {"shards", "ingest", "train", "pipelines"})
print(*names, "|", *ours)
"""


def test_every_module_imports_without_the_heavy_packages():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    modules, ours = (part.split() for part in done.stdout.split("|"))
    assert {"model.reserve", "model.published", "model.inference", "model.objectives"} <= set(modules)
    assert all(
        name.startswith("shards.storage") or name in {"shards", "shards.tokens", "shards.tokenizer_file"}
        for name in ours
    )
