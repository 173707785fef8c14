"""Videos become verified shards: the main job.

Two steps, each committed: extraction turns every video into segments in the store of the data folder; assembly packs
references to them and writes shards, and last the manifest. A long list may be worked on in waves, each of which goes
through both steps by itself. Whatever stops the job, the same command continues it.
"""

from __future__ import annotations

import sys

from pipelines.command import run_and_leave
from pipelines.options import parse


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options, flags = parse(argv)
    options.check_paths()
    from pipelines import worker_image
    from pipelines.preprocess_job import run

    extracts = options.stage in ("extract", "all")
    if extracts and (note := worker_image.check_launch(options.video, flags)):
        sys.stderr.write(f"note: {note}\n")

    return run(options, flags)


if __name__ == "__main__":
    run_and_leave(main)
