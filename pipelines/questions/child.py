"""The child process that prepares questions: lines in on standard input, records out on standard output.

It is started by `pipelines.questions.sandbox` and by nothing else.
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
def _opened(preparer: Preparer) -> Callable[[dict[str, Any], str], Records]:
    return preparer.open()


def answer(request: Request, memory_bytes: int) -> Prepared:
    """What becomes of a line, and its cost."""
    prepare = _opened(request.preparer)
    started = time.process_time()
    try:
        prepared = attempt(prepare, request.text, request.name)
    except MemoryError:
        return Prepared(QuestionOutcome.OUT_OF_MEMORY, f"more than {memory_bytes >> 20} MiB")
    return dataclasses.replace(prepared, cpu_seconds=time.process_time() - started)


if __name__ == "__main__":
    serve(answer, int(sys.argv[1]), int(sys.argv[2]))
