"""Budget and breaker hold for all processes of a machine and no other; a killed process takes nothing with it."""

import json
import multiprocessing
import os
import time

import pytest

from pipelines.extraction.circuit_breaker import Breaker
from pipelines.extraction.download_budget import Budget, Pace, Politeness, state_folder
from pipelines.extraction.untried import Reason, closing_sentence
from shards.outcomes import Outcome
from shards.storage.errors import UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, for the processes that it starts too."""
    monkeypatch.setenv("RESERVOIR_CACHE", str(tmp_path / "cache"))


def take_turns(politeness, spans, start):
    start.wait()
    with Budget(politeness).turn() as allowed:
        begun = time.monotonic()
        time.sleep(0.6)
        spans.put((allowed, begun, time.monotonic()))


def at_once(politeness, workers=4):
    """The answers of so many processes, and the most of them that had their turn at the same time."""
    context = multiprocessing.get_context("spawn")
    spans, start = context.Queue(), context.Barrier(workers)
    processes = [context.Process(target=take_turns, args=(politeness, spans, start)) for _ in range(workers)]
    for process in processes:
        process.start()
    found = [spans.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    together = max(sum(begun <= moment < ended for _, begun, ended in found) for _, moment, _ in found)
    return sorted(allowed for allowed, _, _ in found), together


def test_only_so_many_at_once():
    assert at_once(Politeness())[1] > 2
    assert at_once(Politeness(downloads_at_once=2)) == ([True] * 4, 2)


def allowed(politeness):
    with Budget(politeness).turn() as answer:
        return answer


def test_only_so_many_a_day():
    few = Politeness(downloads_per_day=3)
    assert at_once(few)[0] == [False, True, True, True]
    path = state_folder() / "started.json"
    # The oldest of the three began a day ago.
    moments = json.loads(path.read_text())
    path.write_text(json.dumps([moments[0] - 86_400, *moments[1:]]))
    assert allowed(few)
    assert not allowed(few)


def test_another_address_has_a_budget_of_its_own(tmp_path, monkeypatch):
    one = Politeness(downloads_per_day=1)
    assert [allowed(one), allowed(one)] == [True, False]
    monkeypatch.setenv("RESERVOIR_CACHE", str(tmp_path / "other"))
    assert allowed(one)


def download_for_ever(politeness, started):
    with Budget(politeness).turn():
        started.set()
        time.sleep(600)


def test_a_killed_worker_gives_its_place_back():
    one, context = Politeness(downloads_at_once=1), multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=download_for_ever, args=(one, started))
    process.start()
    assert started.wait(60)
    process.kill()
    process.join()
    assert allowed(one)


def note(run, *outcomes):
    breaker = Breaker(run)
    for outcome in outcomes:
        breaker.note(outcome)


@pytest.mark.parametrize(
    ("outcomes", "reason"),
    [
        ([Outcome.BOT_CHECK], Reason.BOT_CHECK),
        ([Outcome.RATE_LIMITED] * 3, Reason.RATE_LIMITED),
        ([Outcome.RATE_LIMITED] * 2, None),
        ([Outcome.RATE_LIMITED, Outcome.RATE_LIMITED, Outcome.PRIVATE, Outcome.RATE_LIMITED], None),
    ],
)
def test_a_breaker_opens_for_all_workers_of_the_machine_and_run(tmp_path, monkeypatch, outcomes, reason):
    process = multiprocessing.get_context("spawn").Process(target=note, args=("run", *outcomes))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert Breaker("run").reason() is reason
    assert Breaker("next-run").reason() is None
    monkeypatch.setenv("RESERVOIR_CACHE", str(tmp_path / "other"))
    assert Breaker("run").reason() is None, "another machine has another address"


def test_what_old_runs_left_is_removed():
    note("old", Outcome.BOT_CHECK)
    month = time.time() - 31 * 86_400
    os.utime(state_folder() / "stopped" / "old", (month, month))
    note("new", Outcome.BOT_CHECK)
    assert [path.name for path in (state_folder() / "stopped").iterdir()] == ["new"]


def waited(pace):
    start = time.monotonic()
    pace.wait()
    return time.monotonic() - start


def test_a_machine_that_waits_takes_as_long_as_a_download():
    pace = Pace(patience=0.5)
    assert waited(pace) < 0.1
    for seconds in (0.1, 0.7):
        with pace.measured():
            time.sleep(seconds)
    assert waited(pace) >= 0.4
    assert waited(pace) < 0.3, "the last tenth of its patience"
    assert waited(pace) < 0.1


def test_the_closing_sentence_names_every_reason():
    assert closing_sentence({}) is None
    assert closing_sentence({Reason.BOT_CHECK: 0}) is None
    one = closing_sentence({Reason.DAILY_LIMIT: 7})
    assert one.startswith("downloading stopped, 7 videos were not tried and finished videos are kept: the workers")
    two = closing_sentence({Reason.DAILY_LIMIT: 7, Reason.BOT_CHECK: 5})
    assert "12 videos" in two
    assert "5 because: " + Reason.BOT_CHECK.sentence in two
    assert "7 because: " + Reason.DAILY_LIMIT.sentence in two


@pytest.mark.parametrize("politeness", [Politeness(downloads_per_day=0), Politeness(downloads_at_once=-1)])
def test_a_limit_that_lets_nothing_through_is_refused(politeness):
    with pytest.raises(UsageError, match="must be at least 1"):
        politeness.check()
