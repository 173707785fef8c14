import dataclasses
import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shards.dataset import planning
from shards.dataset.planning import Packing, Target
from shards.dataset.video_store import VideoTable
from shards.records.segments import VideoText

SIZE = 4
PACKING = Packing(7, "config", SIZE, 8000)
lengths = st.lists(st.integers(1, 3 * SIZE), max_size=40)


def tables_of(lengths, name="v"):
    """Tables of videos with so many segments of 1,000 bytes."""
    return [
        VideoTable(VideoText(f"{name}{i}"), "config", "extracted", "done", spans=[(0, 1000, j) for j in range(count)])
        for i, count in enumerate(lengths)
    ]


def planned(tables, waiting, shards, order):
    """All plans of a generation and what it leaves over; `order` decides in which order everything arrives."""
    target = Target("train", 1, "abc123", shards)
    tables = order.sample(tables, len(tables))
    plans, left = [], []
    for index in order.sample(range(shards), shards):
        ours = [table for table in tables if planning.shard_of(PACKING.seed, table.id, shards) == index]
        plan, over = planning.plan_shard(index, ours, target, PACKING)
        plans += [plan] if plan.groups else []
        left += over
    rest, remainder = planning.plan_rest(
        order.sample(waiting, len(waiting)), order.sample(left, len(left)), target, PACKING
    )
    return sorted(plans, key=lambda plan: plan.name), rest, remainder


def waiting_of(tables):
    return [(planning.Run(table.id, 1, len(table.spans)), table) for table in tables if len(table.spans) > 1]


@given(lengths, lengths, st.integers(1, 5), st.randoms(use_true_random=False))
def test_every_segment_is_in_one_example_or_left_over(new, old, shards, order):
    tables, waiting = tables_of(new), waiting_of(tables_of(old, "w"))
    plans, rest, remainder = planned(tables, waiting, shards, order)
    runs = [run for plan in plans + rest for group in plan.groups for run in group] + remainder
    seen = Counter((run.video_id, i) for run in runs for i in range(run.first, run.stop))
    wanted = [(table.id, i) for table in tables for i in range(len(table.spans))]
    wanted += [(run.video_id, i) for run, _ in waiting for i in range(run.first, run.stop)]
    assert seen == Counter(wanted)
    assert sum(map(len, remainder)) < SIZE
    for plan in plans + rest:
        assert all(sum(map(len, group)) == SIZE for group in plan.groups)
        assert set(plan.tables) == {run.video_id for group in plan.groups for run in group}
    names = [plan.name for plan in plans + rest]
    assert len(set(names)) == len(names)


@given(lengths, lengths, st.integers(1, 5), st.integers())
def test_the_order_of_arrival_is_irrelevant(new, old, shards, seed):
    tables, waiting = tables_of(new), waiting_of(tables_of(old, "w"))
    one, other = (planned(tables, waiting, shards, random.Random(n)) for n in (0, seed))
    assert one == other
    assert [p.digest(PACKING) for p in one[0] + one[1]] == [p.digest(PACKING) for p in other[0] + other[1]]


@given(lengths, st.integers(2, 5), st.data())
def test_a_shard_depends_on_its_own_videos_alone(new, shards, data):
    tables, order = tables_of(new), random.Random(0)
    index = data.draw(st.integers(0, shards - 1))
    others = [t for t in tables if planning.shard_of(PACKING.seed, t.id, shards) != index]
    gone = data.draw(st.sets(st.sampled_from([t.id for t in others])) if others else st.just(set()))
    name = planning.shard_name("train", 1, index, shards, "abc123")
    before, after = (
        [plan for plan in planned(some, [], shards, order)[0] if plan.name == name]
        for some in (tables, [t for t in tables if t.id not in gone])
    )
    assert before == after


@given(lengths.filter(lambda drawn: sum(drawn) >= SIZE))
def test_whatever_changes_a_shard_changes_its_digest(new):
    target = Target("train", 0, "abc123", 1)
    plan, _ = planning.plan_shard(0, tables_of(new), target, PACKING)
    if not plan.groups:
        return
    moved = dataclasses.replace(plan, groups=plan.groups[1:])
    texts = dataclasses.replace(plan, texts=[[("wiki", 1)]] * len(plan.groups))
    digests = [plan.digest(PACKING), plan.digest(PACKING, "corpora"), moved.digest(PACKING), texts.digest(PACKING)]
    digests += [plan.digest(dataclasses.replace(PACKING, **change)) for change in ({"config": "x"}, {"rules": "x"})]
    assert len(set(digests)) == len(digests)


def test_the_number_of_shards_follows_from_the_bytes():
    assert planning.shard_count(0, 0, PACKING) == 1
    assert planning.shard_count(7100, 1, PACKING) == 1
    assert planning.shard_count(7101, 1, PACKING) == 2
    assert planning.shard_count(80_000_000, 0, PACKING) == 10_000
