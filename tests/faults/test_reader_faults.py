import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shards.reader import PretrainingReader, ReaderConfig

pytestmark = pytest.mark.faults

CONFIG = ReaderConfig(grid=(4, 4), random_text_spans=38)
ROOT = Path(__file__).parents[2]

CHILD = "tests.programs.read_forever"


def digest(batch):
    sha256 = hashlib.sha256()
    for name in sorted(batch):
        sha256.update(np.ascontiguousarray(batch[name]))
    return sha256.hexdigest()


def run_until_killed(arguments, batches):
    """The lines of a reading process that is killed with no warning after so many batches."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT)])}
    child = subprocess.Popen(
        [sys.executable, "-m", CHILD, *arguments], stdout=subprocess.PIPE, env=environment, start_new_session=True
    )
    lines = [json.loads(child.stdout.readline()) for _ in range(batches)]
    os.kill(child.pid, signal.SIGKILL)
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return lines


def test_a_killed_reader_continues_with_the_next_batch(golden):
    data = str(golden / "train00000of00001.tfrecord")
    lines = run_until_killed([data], 5)
    lines += run_until_killed([data, json.dumps(lines[-1][1])], 4)
    reader = PretrainingReader(data, CONFIG, 2, seed=6)
    assert [digest(next(reader)) for _ in range(9)] == [line[0] for line in lines]
    assert reader.state() == lines[-1][1]
