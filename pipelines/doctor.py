"""Check what this machine has of what the commands need, and print how to install what is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from ingest.ffmpeg import ProgramMissingError, ffmpeg_path, ffprobe_path
from shards import command_line
from shards.command_line import run_command
from shards.storage import fetch
from shards.storage.extras import ROLES, installed_roles

_LEAST_FREE_GB = 5


@dataclass(frozen=True)
class Check:
    """One requirement: its name, whether it is met, whether jobs fail without it, and the details or what to do."""

    name: str
    present: bool
    needed: bool
    detail: str


def checks() -> Iterator[Check]:
    """Yield the result of every check."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("Python", sys.version_info[:2] >= (3, 11), True, f"{version} at {sys.executable}")
    roles = installed_roles()
    lacking = [role for role in ROLES if role not in roles]
    hint = f"; install others with uv sync --inexact --extra {' --extra '.join(lacking)}" if lacking else ""
    yield Check("roles", bool(roles), True, (", ".join(roles) or "none") + hint)
    for name, find in (("ffmpeg", ffmpeg_path), ("ffprobe", ffprobe_path)):
        needed = bool({"worker", "ask"} & set(roles))
        try:
            yield Check(name, True, needed, find())
        except ProgramMissingError as error:
            yield Check(name, False, needed, str(error))
    runtime = next((path for name in ("deno", "node", "bun", "qjs") if (path := _program(name))), None)
    yield Check("JavaScript runtime", bool(runtime), False, runtime or "YouTube downloads need deno; run `make setup`")
    for remote in (fetch.TOKENIZER, fetch.TIMING_MODEL):
        path = fetch.cache_folder() / remote.name
        missing = f"downloaded on first use to {path}"
        yield Check(remote.name, path.is_file(), False, str(path) if path.is_file() else missing)
    credentials = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    default = Path.home() / ".config" / "gcloud" / "application_default_credentials.json"
    path = credentials or (str(default) if default.is_file() else None)
    yield Check("Google credentials", bool(path), False, path or "none; only gs:// paths and Dataflow need them")
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield Check("disk", free > _LEAST_FREE_GB, True, f"{free:.0f} GB free here")
    yield Check("memory", True, False, f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB")
    yield Check("cores", True, False, str(len(os.sched_getaffinity(0))))
    yield _accelerator()


def _program(name: str) -> str | None:
    beside = Path(sys.executable).with_name(name)
    return shutil.which(name) or (str(beside) if beside.is_file() else None)


def _accelerator() -> Check:
    if importlib.util.find_spec("jax") is None:
        return Check("accelerator", False, False, "jax is not installed")
    # In another process: a driver that hangs or crashes must not end the other checks.
    code = "import jax; print(', '.join(sorted({d.device_kind for d in jax.devices()})), len(jax.devices()))"
    try:
        devices = subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120, check=True
        ).stdout.strip()
    except subprocess.SubprocessError as error:
        return Check("accelerator", False, False, f"jax cannot start: {error}")
    return Check("accelerator", not devices.startswith("cpu"), False, devices)


@dataclass(frozen=True)
class Doctor:
    """Check this machine for what the commands need; the exit status is 1 if a required part is missing."""


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    command_line.parse(tyro.cli, Doctor, "pipelines.doctor", argv)
    table = Table("", "", "", show_header=False, box=None)
    broken = False
    for check in checks():
        broken |= check.needed and not check.present
        mark = (
            "[green]ok[/green]" if check.present else "[red]missing[/red]" if check.needed else "[yellow]none[/yellow]"
        )
        table.add_row(mark, check.name, check.detail)
    Console().print(table)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
