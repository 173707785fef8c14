"""The network runs on a machine with jax, flax, numpy and msgpack only."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = "tests.programs.import_model"


def test_every_module_imports_without_the_heavy_packages():
    done = subprocess.run([sys.executable, "-m", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    modules, ours = (part.split() for part in done.stdout.split("|"))
    assert {"model.reserve", "model.published", "model.inference", "model.objectives"} <= set(modules)
    assert all(
        name.startswith("shards.storage") or name in {"shards", "shards.tokens", "shards.tokenizer_file"}
        for name in ours
    )
