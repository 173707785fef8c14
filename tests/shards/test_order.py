from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.reading.order import Mixture, Order, Place

COUNTS = st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(sum)


@given(counts=COUNTS, seed=st.integers(0, 2**31), window=st.integers(1, 5), epoch=st.integers(0, 3))
def test_every_epoch_holds_every_record_once(counts, seed, window, epoch):
    order = Order(counts, seed, window)
    first = epoch * order.records
    places = [order.locate(first + i) for i in range(order.records)]
    assert {place.epoch for place in places} == {epoch}
    assert sorted((p.shard, p.record) for p in places) == [(s, r) for s, n in enumerate(counts) for r in range(n)]


def test_an_order_depends_on_the_seed_and_the_epoch():
    def epoch(seed, number):
        order = Order([20, 20], seed, 2)
        return [(p.shard, p.record) for p in map(order.locate, range(40 * number, 40 * number + 40))]

    assert epoch(1, 0) == epoch(1, 0)
    assert epoch(1, 0) != epoch(2, 0)
    assert epoch(1, 0) != epoch(1, 1)


def test_every_epoch_has_its_own_order_of_shards():
    order = Order([1] * 30, 1, 1)
    epochs = [[order.locate(30 * epoch + i).shard for i in range(30)] for epoch in range(3)]
    assert len({tuple(shards) for shards in epochs}) == 3


def test_records_are_mixed_within_their_window_only():
    order = Order([50] * 8, 3, 2)
    shards = [order.locate(i).shard for i in range(400)]
    for block in range(4):
        assert len(set(shards[block * 100 : block * 100 + 100])) == 2
    assert shards[:50] != [shards[0]] * 50


def test_without_a_seed_the_order_is_that_of_the_shards():
    order = Order([2, 0, 3], None, 128)
    assert [order.locate(i) for i in (0, 2, 4)] == [Place(0, 0, 0), Place(0, 2, 0), Place(0, 2, 2)]
    assert order.locate(5) == Place(1, 0, 0)


def test_an_order_without_records_is_refused():
    with pytest.raises(ValueError, match="needs records"):
        Order([0, 0], 1, 1)


@settings(max_examples=25)
@given(
    weights=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
    position=st.integers(0, 20_000),
)
def test_a_mixture_numbers_each_stream_without_gaps(weights, seed, position):
    mixture = Mixture(weights, seed)
    seen = mixture.consumed(position)
    assert sum(seen) == position
    for i in range(position, position + 200):
        stream, rank = mixture.locate(i)
        assert rank == seen[stream]
        seen[stream] += 1
    assert seen == mixture.consumed(position + 200)


def test_a_mixture_keeps_its_proportions():
    mixture = Mixture([0.7, 0.2, 0.1], 5)
    shares = np.array(mixture.consumed(1_000_000)) / 1_000_000
    assert np.abs(shares - [0.7, 0.2, 0.1]).max() < 0.001
    first = Counter(mixture.locate(i)[0] for i in range(500))
    assert set(first) == {0, 1, 2}


def test_a_weight_that_no_block_can_hold_is_refused():
    with pytest.raises(ValueError, match="1/4096"):
        Mixture([1.0, 1e-6], 0)
