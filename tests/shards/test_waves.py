"""A list is cut once, every wave has one holder at a time, and the rest comes last."""

import multiprocessing
import time
from pathlib import Path

import pytest

from shards import waves
from shards.errors import UsageError, UserError
from shards.waves import WavePlan

NAMES = [f"video {i}\u2028" for i in range(7)]
WANTED = WavePlan("train", "digest", 3, videos=0, first=4, waves=0)


@pytest.fixture
def data(tmp_path):
    waves.settle(str(tmp_path), WANTED, lambda: NAMES)
    return str(tmp_path)


def test_the_slices_of_a_list_are_its_waves(data):
    plan = waves.load_plan(data)
    assert (plan.first, plan.waves, plan.last, plan.videos) == (4, 3, 7, 7)
    assert waves.unfinished(data) == [4, 5, 6, 7]
    assert [waves.read_list(data, number) for number in (4, 5, 6, 7)] == [NAMES[:3], NAMES[3:6], NAMES[6:], []]


def test_the_rest_is_taken_when_all_waves_are_finished(data):
    plan, taken = waves.load_plan(data), []
    while waves.unfinished(data):
        with waves.take(data, plan) as number:
            taken.append(number)
            if number == 5:
                with waves.take(data, plan) as other:
                    assert other == 6
            if number == plan.last:
                with waves.take(data, plan) as other:
                    assert other is None
            waves.finish(data, number)
    assert taken == [4, 5, 6, 7]
    assert [path.name for path in Path(data, "waves").iterdir()] == ["plan.json"]


def hold(data, plan, taken):
    with waves.take(data, plan) as number:
        taken.put(number)
        time.sleep(600)


def test_processes_hold_different_waves_and_a_dead_one_holds_none(data):
    context, plan = multiprocessing.get_context("spawn"), waves.load_plan(data)
    taken = context.Queue()
    holders = [context.Process(target=hold, args=(data, plan, taken)) for _ in range(3)]
    for holder in holders:
        holder.start()
    assert sorted(taken.get(timeout=60) for _ in holders) == [4, 5, 6]
    with waves.take(data, plan) as number:
        assert number is None
    for holder in holders:
        holder.kill()
        holder.join()
        with waves.take(data, plan) as number:
            assert number in (4, 5, 6)


def test_a_list_is_finished_before_another_is_begun(data):
    again = waves.settle(data, WANTED, lambda: pytest.fail("a list is cut once"))
    assert again == waves.load_plan(data)
    for change, said in (
        ({"source": "other"}, "another list"),
        ({"size": 4}, "--wave 3"),
        ({"split": "val"}, "--split"),
    ):
        with pytest.raises(UsageError, match=said):
            waves.settle(data, WavePlan(**(vars(WANTED) | change)), lambda: NAMES)
    with pytest.raises(UsageError, match="4 are not finished"):
        waves.require_finished(data)
    for number in waves.unfinished(data):
        waves.finish(data, number)
    waves.require_finished(data)
    second = waves.settle(data, WavePlan("train", "longer", 3, 0, 8, 0), lambda: ["more"])
    assert (second.waves, waves.unfinished(data)) == (1, [8, 9])


def test_a_list_that_was_not_cut_to_the_end_is_cut_again(data):
    (path,) = Path(data, "waves").glob("plan.json")
    path.unlink()
    plan = waves.settle(data, WavePlan("train", "digest", 5, 0, 4, 0), lambda: NAMES)
    assert (plan.waves, waves.unfinished(data)) == (2, [4, 5, 6])


def test_a_damaged_plan_is_named(data):
    Path(data, "waves", "plan.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        waves.load_plan(data)


def test_nothing_to_do_makes_no_waves(tmp_path):
    assert waves.settle(str(tmp_path), WANTED, lambda: []).waves == 0
    assert waves.unfinished(str(tmp_path)) == []
