"""The child process that decodes: raw videos in on standard input, results out on standard output.

It is started by `pipelines.extraction.decoding` and by nothing else. Its memory is limited, and it ends when the
process that started it does, even in the middle of a video.
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


def answer(request: Request, memory_bytes: int) -> Extracted | None:
    """The result of a request and its cost; `None` for a video that is neither rejected nor processed."""
    started = time.process_time()
    result = _result(request, memory_bytes)
    return result and Extracted(result, time.process_time() - started)


def _result(request: Request, memory_bytes: int) -> Result | None:
    """The result of a request; whatever its video raises is one. Raises `StorageError` when the disk is full."""
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
    serve(answer, int(sys.argv[1]), int(sys.argv[2]))
