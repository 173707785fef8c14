"""The sandboxed subprocess that decodes: it reads raw videos from standard input and writes results to standard output.

Only `pipelines.extraction.decoding` starts it. Its memory is limited, and it exits with the process that started it,
even in the middle of a video.
"""

from __future__ import annotations

import sys
import time

from ingest.result import Result, crashed
from ingest.video import check_media, process, screen
from pipelines.extraction import embedders
from pipelines.extraction.decoding import Extracted, Request, Work
from pipelines.runner.sandbox import disk_full, serve
from shards.outcomes import Outcome
from shards.records.segments import VideoText


def respond(request: Request, memory_bytes: int) -> Extracted | None:
    """Return the result of a request and its CPU time; `None` for a video that passes a screen or check."""
    start = time.process_time()
    result = _result(request, memory_bytes)
    return result and Extracted(result, time.process_time() - start)


def _result(request: Request, memory_bytes: int) -> Result | None:
    """Return the result of a request; an exception becomes a result. Raises `StorageError` if the disk is full."""
    raw, config = request.raw, request.config
    try:
        if request.work is Work.SCREEN:
            return screen(raw, config)
        if request.work is Work.CHECK:
            return check_media(raw)
        return process(raw, config, embedders.load(config.embedder))
    except MemoryError:
        return Result(Outcome.OUT_OF_MEMORY, f"more than {memory_bytes >> 20} MiB", {}, VideoText(raw.id))
    except Exception as error:
        if full := disk_full(error, raw.id):
            raise full from error
        return crashed(raw.id, error)


if __name__ == "__main__":
    serve(respond, int(sys.argv[1]), int(sys.argv[2]))
