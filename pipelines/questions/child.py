"""The sandboxed subprocess that prepares questions: it reads lines from standard input and writes records to standard
output.

Only `pipelines.questions.sandbox` starts it.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from ingest.questions.question import QuestionOutcome
from pipelines.questions.preparers import Preparer, Records
from pipelines.questions.sandbox import Prepared, Request, attempt
from pipelines.runner.sandbox import serve


@functools.cache
def _open(preparer: Preparer) -> Callable[[dict[str, Any], str], Records]:
    return preparer.open()


def respond(request: Request, memory_bytes: int) -> Prepared:
    """Return the outcome of a line with its records and CPU time."""
    prepare = _open(request.preparer)
    start = time.process_time()
    try:
        prepared = attempt(prepare, request.text, request.name)
    except MemoryError:
        return Prepared(QuestionOutcome.OUT_OF_MEMORY, f"more than {memory_bytes >> 20} MiB")
    return dataclasses.replace(prepared, cpu_seconds=time.process_time() - start)


if __name__ == "__main__":
    serve(respond, int(sys.argv[1]), int(sys.argv[2]))
