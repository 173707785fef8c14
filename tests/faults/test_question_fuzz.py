"""Damaged lines of questions end in named outcomes, whichever values they hold."""

import json
import random

import pytest
import question_tasks
from mutations import damage_json

from ingest.questions.question import QuestionOutcome
from pipelines.questions.sandbox import attempt

QUICK = 150
"""Damaged lines of each task in `make test`."""


@pytest.fixture(scope="module")
def tasks(golden, tmp_path_factory, published_tokenizer):
    folder = question_tasks.make_folder(golden, tmp_path_factory.mktemp("lines"))
    return question_tasks.tasks(folder, str(published_tokenizer))


def outcomes(tasks, task, count, seed):
    """The outcomes of damaged lines, none of which may be unexpected."""
    prepare, line = tasks[task]
    rng = random.Random(f"{task}-{seed}")
    sound = json.dumps(line).encode()
    seen = set()
    for _ in range(count):
        text = damage_json(sound, rng)
        ended = attempt(prepare, text, "train-0")
        assert ended.outcome is not QuestionOutcome.CRASHED, (text, ended.detail)
        ended.detail.encode()
        seen.add(ended.outcome)
    return seen


@pytest.mark.parametrize("task", ["vcr", "tvqa", "choices"])
def test_damaged_lines(tasks, task):
    assert {QuestionOutcome.PREPARED, QuestionOutcome.BAD_LINE} < outcomes(tasks, task, QUICK, 0)


@pytest.mark.faults
@pytest.mark.parametrize(("task", "count"), [("vcr", 4_000), ("tvqa", 800), ("choices", 30_000)])
def test_many_damaged_lines(tasks, task, count, faults, request):
    count *= request.config.getoption("--fuzz-scale")
    seen = outcomes(tasks, task, count, f"many-{request.config.getoption('--fuzz-seed')}")
    faults.record(f"{count:,} damaged lines of {task}", f"{len(seen)} outcomes, all named")
