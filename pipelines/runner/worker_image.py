"""Check that the image of a job's workers has the extras that the job's options need.

An image records its extras in the variable `RESERVOIR_EXTRAS`. The command reads it from the registry before it submits
a job, and every worker checks that the packages are installed before its first video.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass

from ingest.config import VideoConfig
from pipelines.runner import beam_flags, image_registry
from shards.storage.errors import UsageError, UserError

VARIABLE = "RESERVOIR_EXTRAS"
"""The environment variable that lists the extras of an image, separated by spaces."""

_REBUILD = "build the image with --build-arg EXTRAS={extras!r} (docs/dataflow.md)"


class MissingExtraError(UserError):
    """A package that the job's options need is missing on a worker; the message names the extra."""


@dataclass(frozen=True)
class Need:
    """An option, the extra it needs, and the package by which the extra is detected."""

    option: str
    extra: str
    package: str


def needs(video: VideoConfig) -> list[Need]:
    """Return what the options of a job need beyond the packages that every worker has."""
    required = []
    if video.asr != "never":
        required.append(Need(f"--asr {video.asr}", "asr", "faster_whisper"))
    if video.transcript == "forced":
        required.append(Need("--transcript forced", "asr", "pocketsphinx"))
    if video.embedder.endswith(".onnx"):
        required.append(Need(f"--embedder {video.embedder}", "asr", "onnxruntime"))
    if video.embedder.startswith("reserve=") or video.embedder.endswith((".pth", ".pth.tar")):
        required.append(Need(f"--embedder {video.embedder}", "ask", "flax"))
    return required


def require_extras(video: VideoConfig) -> None:
    """Raise `MissingExtraError` if a package that the options need is missing on this worker."""
    missing = [need for need in needs(video) if importlib.util.find_spec(need.package) is None]
    if missing:
        listed = "; ".join(f"{need.option} needs {need.package} of the extra {need.extra}" for need in missing)
        extras = _names(os.environ.get(VARIABLE))
        raise MissingExtraError(f"the worker's image lacks packages: {listed}; {_rebuild(missing, extras)}")


def check_launch(video: VideoConfig, flags: Sequence[str]) -> str | None:
    """Raise `UsageError` if the image that the workers run in, if any, lacks an extra that the options need.

    Returns a warning if the registry did not respond, so that the extras can only be checked by the workers.
    """
    required = needs(video)
    if not required or not _in_containers(flags):
        return None
    options, image = ", ".join(need.option for need in required), _image(flags)
    if image is None:
        raise UsageError(
            f"{options} needs an image with extras; {_rebuild(required, set())} and give --sdk_container_image"
        )
    try:
        extras = _names(image_registry.environment(image).get(VARIABLE))
    except image_registry.RegistryError as error:
        return f"cannot check that {image} has the extras for {options}: {error}; its workers will check"
    missing = [need for need in required if need.extra not in extras]
    if missing:
        has = f"has the extras {', '.join(sorted(extras))}" if extras else "has no extras"
        lacking = ", ".join(f"{need.option} needs {need.extra}" for need in missing)
        raise UsageError(f"the image {image} {has}, but {lacking}; {_rebuild(missing, extras)}")
    return None


def _names(variable: str | None) -> set[str]:
    return set((variable or "").split())


def _rebuild(missing: Sequence[Need], extras: set[str]) -> str:
    """Return how to build the image with the missing extras in addition to the existing ones."""
    return _REBUILD.format(extras=" ".join(sorted(extras | {need.extra for need in missing})))


def _in_containers(flags: Sequence[str]) -> bool:
    if beam_flags.runner(flags) == beam_flags.DATAFLOW:
        return True
    return beam_flags.value(flags, "environment_type") == "DOCKER"


def _image(flags: Sequence[str]) -> str | None:
    names = ("sdk_container_image", "worker_harness_container_image", "environment_config")
    return next((image for name in names if (image := beam_flags.value(flags, name))), None)
