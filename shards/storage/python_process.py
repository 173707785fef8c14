"""Start other Python processes that import the same modules as this one.

`python -m` puts the working directory first on the import path, where a user's own `train.py` or `model.py` would be
imported instead of the toolkit's packages.
"""

from __future__ import annotations

import os
import sys


def command(module: str, *arguments: object) -> list[str]:
    """Return the command line that runs a module without the working directory on its import path."""
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return the environment variable that gives another process the import path of this one."""
    # An empty entry is the working directory, which the other process may not share.
    return {"PYTHONPATH": os.pathsep.join(place or os.getcwd() for place in sys.path)}  # noqa: PTH109
