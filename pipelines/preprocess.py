"""Convert videos into verified shards with one Beam job.

The job commits every video as one object of the per-video store, packs references to their segments, writes shards, and
finally the manifest. The same command resumes the job, however it was stopped.
"""

from __future__ import annotations

import sys

from pipelines.preprocessing.options import parse
from pipelines.runner.command import run_and_leave


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options, flags = parse(argv)
    options.check_paths()
    from pipelines.preprocessing.job import run
    from pipelines.runner import worker_image

    extracts = options.stage in ("extract", "all")
    if extracts and (note := worker_image.check_launch(options.video, flags)):
        sys.stderr.write(f"note: {note}\n")

    return run(options, flags)


if __name__ == "__main__":
    run_and_leave(main)
