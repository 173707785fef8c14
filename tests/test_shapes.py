"""The shapes and types that signatures state are those of the arrays, checked at run time by jaxtyping and beartype."""

import os
import subprocess
import sys
from pathlib import Path

from tests.reader_data import write_data

ROOT = Path(__file__).parent.parent


def test_arrays_have_the_shapes_of_the_signatures(tmp_path):
    data = write_data(tmp_path / "data", [4], texts=2)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.shape_checks", data]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
