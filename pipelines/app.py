"""A local page for asking videos: `python -m pipelines.app --checkpoint base`, then open the address it prints.

It listens on this machine alone and needs no internet. Uploads are limited in bytes, videos in length and every
request in time; one video is worked on at a time.
"""

from __future__ import annotations

import sys

import tyro

from pipelines.inference import options as ask_options
from shards import command_line
from shards.command_line import run_command
from shards.storage.errors import UsageError


def main(argv: list[str] | None = None) -> int:
    """The command; serves until it is interrupted."""
    options = command_line.parse(tyro.cli, ask_options.App, "pipelines.app", argv)
    if not 0 < options.port < 1 << 16:
        raise UsageError(f"--port {options.port} must be from 1 to {(1 << 16) - 1}")
    for name in ("max_upload_mb", "max_minutes", "seconds"):
        if getattr(options, name) <= 0:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(options, name):g} must be positive")
    ask_options.check_checkpoint(options.checkpoint)
    from pipelines.inference.page import serve

    return serve(options)


if __name__ == "__main__":
    sys.exit(run_command(main))
