"""The budget of downloads holds for all processes of a machine, and a dead one takes nothing with it."""

import json
import multiprocessing
import time

import pytest

from pipelines import budget
from pipelines.budget import Budget, Politeness
from shards.errors import UsageError


def take_turns(out, politeness, spans, start):
    start.wait()
    with Budget(out, politeness).turn() as allowed:
        begun = time.monotonic()
        time.sleep(0.6)
        spans.put((allowed, begun, time.monotonic()))


def at_once(out, politeness, workers=4):
    """The answers of so many processes, and the most of them that had their turn at the same time."""
    context = multiprocessing.get_context("spawn")
    spans, start = context.Queue(), context.Barrier(workers)
    processes = [context.Process(target=take_turns, args=(out, politeness, spans, start)) for _ in range(workers)]
    for process in processes:
        process.start()
    found = [spans.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    together = max(sum(begun <= moment < ended for _, begun, ended in found) for _, moment, _ in found)
    return sorted(allowed for allowed, _, _ in found), together


def test_only_so_many_at_once(tmp_path):
    assert at_once(str(tmp_path / "free"), Politeness())[1] > 2
    assert at_once(str(tmp_path / "two"), Politeness(downloads_at_once=2)) == ([True] * 4, 2)


def test_only_so_many_a_day(tmp_path):
    few = Politeness(downloads_per_day=3, egress="the proxy/1")
    assert at_once(str(tmp_path), few)[0] == [False, True, True, True]
    left = Budget(str(tmp_path), few).seconds_left()
    assert 86_390 < left <= 86_400
    (path,) = (tmp_path / "ledger" / "downloads").glob("*.json")
    # The oldest of the three began a day ago.
    moments = json.loads(path.read_text())
    path.write_text(json.dumps([moments[0] - 86_400, *moments[1:]]))
    assert Budget(str(tmp_path), few).seconds_left() == 0
    with Budget(str(tmp_path), few).turn() as allowed:
        assert allowed
    with Budget(str(tmp_path), few).turn() as allowed:
        assert not allowed


def hold_for_ever(out, politeness, held):
    with Budget(out, politeness).turn():
        held.set()
        time.sleep(600)


def test_a_killed_worker_gives_its_place_back(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "_LOOK_SECONDS", 0.05)
    one, context = Politeness(downloads_at_once=1), multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=hold_for_ever, args=(str(tmp_path), one, held))
    process.start()
    assert held.wait(60)
    process.kill()
    process.join()
    with Budget(str(tmp_path), one).turn() as allowed:
        assert allowed


@pytest.mark.parametrize("politeness", [Politeness(downloads_per_day=0), Politeness(downloads_at_once=-1)])
def test_a_limit_that_lets_nothing_through_is_refused(politeness):
    with pytest.raises(UsageError, match="must be at least 1"):
        politeness.check()
