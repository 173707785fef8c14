"""The file of VCR's leaderboard: a CSV of probabilities, and the checker of its format.

A test question comes as four records, one for each answer that its rationales are judged under
(docs/spec/finetune_data.md 2.9).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping

import numpy as np

from shards.records.vcr import CHOICES
from shards.storage import filesystem
from train.tasks import Predictions, SubmissionError

NAME = "vcr_submission.csv"
COLUMNS = (
    "annot_id",
    *(f"answer_{i}" for i in range(CHOICES)),
    *(f"rationale_conditioned_on_a{j}_{i}" for j in range(CHOICES) for i in range(CHOICES)),
)
_ID = re.compile(r"(?P<question>[^-]+-(?P<number>\d+))-.*_a(?P<condition>[0-3])")
_ROW = re.compile(r"[^-]+-\d+")
_SUM_TOLERANCE = 1e-3


def write(predictions: Mapping[str, Predictions], folder: str) -> list[str]:
    """Write the CSV of the split `test`, checked; returns its path. Raises `SubmissionError`."""
    path = filesystem.join(folder, NAME)
    data = csv_of(predictions["test"]).encode()
    check_bytes(data, path)
    filesystem.write_bytes(path, data)
    return [path]


def csv_of(test: Predictions) -> str:
    """Return the CSV, sorted by the number in the id. Raises `SubmissionError` for an incomplete question."""
    rows: dict[str, dict[str, float]] = {}
    order: dict[str, int] = {}
    for name, scores in zip(test.ids, np.asarray(test.logits, np.float64), strict=True):
        match = _ID.fullmatch(name)
        if not match:
            raise SubmissionError(f"{name!r} is not an id of VCR's test split, such as test-0-qar-conditioned_on_a0")
        row = rows.setdefault(match["question"], {})
        order[match["question"]] = int(match["number"])
        answer, rationale = (np.exp(s - s.max()) / np.exp(s - s.max()).sum() for s in scores)
        row |= {f"answer_{i}": p for i, p in enumerate(answer)}
        row |= {f"rationale_conditioned_on_a{match['condition']}_{i}": p for i, p in enumerate(rationale)}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for question in sorted(rows, key=order.__getitem__):
        if missing := [column for column in COLUMNS[1:] if column not in rows[question]]:
            raise SubmissionError(f"{question!r} has no {missing[0]}; predict all four records of every question")
        writer.writerow([question, *(f"{rows[question][column]:.9g}" for column in COLUMNS[1:])])
    return buffer.getvalue()


def check(path: str) -> int:
    """Return the number of questions in a valid CSV. Raises `SubmissionError` for an invalid one."""
    return check_bytes(filesystem.read_bytes(path), path)


def check_bytes(data: bytes, path: str) -> int:
    """Return `check` of the content of a file; `path` is for messages."""
    try:
        header, *rows = list(csv.reader(io.StringIO(data.decode())))
    except (UnicodeDecodeError, ValueError, csv.Error) as error:
        raise SubmissionError(f"{path!r} is not a CSV: {error}") from None
    if tuple(header) != COLUMNS:
        raise SubmissionError(
            f"{path!r} has the columns {', '.join(header[:3])}... instead of {', '.join(COLUMNS[:3])}..., 21 in all"
        )
    if not rows:
        raise SubmissionError(f"{path!r} holds no question")
    numbers = []
    for row in rows:
        if len(row) != len(COLUMNS) or not _ROW.fullmatch(row[0]):
            raise SubmissionError(f"{path!r}: the row {row[:2]} is not an id and 20 probabilities")
        try:
            values = [float(cell) for cell in row[1:]]
        except ValueError:
            raise SubmissionError(f"{path!r}: {row[0]} holds a cell that is empty or no number") from None
        groups = [values[i : i + CHOICES] for i in range(0, len(values), CHOICES)]
        sound = all(math.isfinite(v) and 0 <= v <= 1 for v in values)
        if not sound or any(abs(sum(group) - 1) > _SUM_TOLERANCE for group in groups):
            raise SubmissionError(f"{path!r}: the probabilities of {row[0]} do not add up to 1 by fours")
        numbers.append(int(row[0].rsplit("-", 1)[1]))
    if numbers != sorted(set(numbers)):
        raise SubmissionError(f"{path!r}: the rows are not in the order of their numbers, each once")
    return len(rows)
