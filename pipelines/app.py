"""Serve a local web page for asking questions about videos.

    python -m pipelines.app --checkpoint base

Open the printed address in a browser. The page listens only on this machine and needs no internet. The size of uploads,
the length of videos and the time of requests are limited; requests are processed one at a time.
"""

from __future__ import annotations

import sys

import tyro

from pipelines.inference import options as ask_options
from shards import command_line
from shards.command_line import run_command
from shards.storage.errors import UsageError


def main(argv: list[str] | None = None) -> int:
    """Run the command until it is interrupted."""
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
