"""The public check of resuming: it passes for the reader of the toolkit, and names what a faulty one does wrong."""

import itertools

import numpy as np
import pytest

from shards.reader import PretrainingReader, ReaderConfig
from shards.testing import check_resumes
from tests.reader_data import write_data


class Counter:
    """Batches that count; `fault` is what a restored reader does wrong."""

    def __init__(self, fault=""):
        self.fault, self.position, self.end = fault, 0, 6

    def __next__(self):
        if self.position == self.end:
            raise StopIteration
        self.position += 1
        numbers = np.arange(4) + self.position
        return {"numbers": numbers.astype(np.int32 if self.fault == "type" else np.int64), "zeros": np.zeros((4, 2))}

    def state(self):
        return {"position": np.int64(self.position) if self.fault == "json" else self.position}

    def restore(self, state):
        self.position = state["position"]
        if self.fault == "skips":
            self.position += 1
        elif self.fault == "row":
            self.end += 1
        elif self.fault == "ends":
            self.end -= 1

    def close(self):
        self.position = None


def test_the_reader_resumes(tmp_path):
    data = write_data(tmp_path / "data", [5, 3, 6])
    sizes = {"segments": 4, "groups": 2, "grid": (2, 3), "text_length": 40, "sequence_length": 96}
    config = ReaderConfig(**sizes, random_text_sequences=0)
    check_resumes(lambda: PretrainingReader(data, config, batch_size=2, seed=3), batches=5)


def test_a_reader_of_one_pass_resumes():
    check_resumes(Counter)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("skips", "batch 1 of a reader restored before batch 1: 'numbers' differs in the rows [0, 1, 2, 3]"),
        ("ends", "batch 5 of a reader restored before batch 1 is missing: the reader ended too early"),
        ("json", "the state before batch 0 cannot be stored as JSON: Object of type int64"),
    ],
)
def test_faults_are_named(fault, sentence):
    with pytest.raises(AssertionError) as error:
        check_resumes(lambda: Counter(fault))
    assert str(error.value).startswith(sentence)


def test_other_arrays_are_named():
    faults = itertools.chain(["", "type"], itertools.repeat(""))
    with pytest.raises(AssertionError, match=r"'numbers' is int32 \(4,\), not int64 \(4,\)"):
        check_resumes(lambda: Counter(next(faults)))


def test_a_single_batch_is_too_few():
    with pytest.raises(AssertionError, match="has 1 batches; a check of resuming needs at least 2"):
        check_resumes(Counter, batches=1)
