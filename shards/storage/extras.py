"""Packages that only some roles of the toolkit install, and the error of a command that lacks one.

A role is an extra of the distribution: `worker` for Beam jobs, `train`, `ask`, and `view` for pages and drawings.
"""

from __future__ import annotations

import importlib.util

from shards.storage.errors import UsageError

ROLES = ("worker", "train", "ask", "view")
"""The roles, each an extra of this name."""

EXTRAS = {
    "apache_beam": ("worker",),
    "av": ("worker", "ask"),
    "demoji": ("worker",),
    "etils": ("train",),
    "ffmpeg": ("worker", "ask"),
    "flax": ("train", "ask"),
    "ftfy": ("worker", "ask"),
    "jax": ("train", "ask"),
    "librosa": ("view",),
    "matplotlib": ("view", "ask"),
    "num2words": ("worker",),
    "optax": ("train",),
    "orbax": ("train",),
    "plotly": ("view",),
    "psutil": ("worker",),
    "py3langid": ("worker",),
    "pyarrow": ("worker", "ask", "view"),
    "rapidfuzz": ("worker", "ask"),
    "scipy": ("worker", "ask"),
    "starlette": ("ask",),
    "tensorflow": ("train",),
    "unidecode": ("worker",),
    "uvicorn": ("ask",),
    "yt_dlp": ("worker",),
    "zstandard": ("worker",),
}
"""The extras that contain a package, by import name; a test compares this table with pyproject.toml."""


def installed_roles() -> list[str]:
    """Return the roles whose packages are all installed."""
    installed = {package for package in EXTRAS if importlib.util.find_spec(package) is not None}
    return [role for role in ROLES if all(package in installed for package, extras in EXTRAS.items() if role in extras)]


class MissingPackageError(UsageError):
    """A command needs a package of a role that is not installed; the message names the extra to install."""


def missing_package(error: ModuleNotFoundError) -> MissingPackageError | None:
    """Return the error to report if the missing module belongs to an extra, else `None`."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    extras = EXTRAS[package]
    return MissingPackageError(
        f"the package {package!r} is not installed; it is part of the extra {' or '.join(extras)}: run"
        f" `uv sync --inexact --extra {extras[0]}` or `pip install 'reservoir[{extras[0]}]'`"
    )
