"""The child process that decodes: raw videos in on standard input, results out on standard output.

It is started by `pipelines.extraction` and by nothing else. Its memory is limited, and it ends when the process that
started it does, even in the middle of a video.
"""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from ingest.outcomes import Outcome
from ingest.result import Result, crashed
from ingest.video import check_media, process, screen
from pipelines import embedders
from pipelines.extraction import DECODER_PREFIX, Extracted, Request, Work, send
from shards.filesystem import StorageError
from shards.segments import VideoText

_SCRATCH_MB = 100
"""What a decoder unpacks in the temporary folder: 70 MB for the model of languages, and some for odd media."""

_FILE_BYTES = 4 << 30
"""The largest temporary file, also of a program that a decoder starts: a day of sound."""


def serve(lifeline: int, memory_bytes: int) -> None:
    """Answer requests on standard input until it ends, using at most so much memory."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    while sys.stdin.buffer.peek(1):
        request = pickle.load(sys.stdin.buffer)
        started = time.process_time()
        try:
            result = _result(request, memory_bytes)
        except StorageError as error:
            # Not this video's fault, and the next one would meet the same.
            send(answers, error)
            continue
        send(answers, result and Extracted(result, time.process_time() - started))
    _remove_own_folder()


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
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(_no_space(raw.id)) from error
        return crashed(raw.id, error)


def _no_space(video_id: str) -> str:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    return (
        f"cannot decode {video_id!r}: no space left in the temporary folder {folder!r}, where each worker wants"
        f" {_SCRATCH_MB} MB and {free / 1e6:.1f} MB are free; make room, or set TMPDIR to another folder"
    )


def _remove_own_folder() -> None:
    """Remove the temporary folder that was made for this process, as a worker that was killed cannot."""
    folder = os.environ.get("TMPDIR", "")
    # Never any other folder.
    if Path(folder).name.startswith(DECODER_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)


def _die_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)
    _remove_own_folder()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
