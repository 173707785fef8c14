"""Read with worker processes until the program ends in the way that its argument names."""

import os
import sys

sys.path.insert(0, sys.argv[2])
from worker_parsers import NumberParser

from shards.reader import Reader, StreamOptions
from shards.reading.evaluation import Pass

if sys.argv[3] in ("SIGTERM", "SIGKILL beside a fork"):
    batches = iter(Pass(sys.argv[1], None, NumberParser(), 6, workers=2))
else:
    batches = Reader(sys.argv[1], NumberParser(), 6, seed=5, options=StreamOptions(workers=2))
first = [next(batches) for _ in range(3)]
if sys.argv[3] == "SIGKILL beside a fork" and os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
print("ready", flush=True)
if sys.argv[3].startswith("SIG"):
    sys.stdin.read()
if sys.argv[3] == "exception":
    raise KeyError("a program's own error")
