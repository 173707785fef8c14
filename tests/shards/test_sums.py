"""Merging is the same in any order and any grouping, byte for byte; where something is estimated, how well."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.dataset import duplicates, frame_sample, sums
from shards.dataset.frame_sample import FrameSample
from shards.dataset.ledger import Entry
from shards.dataset.sidecar import HISTOGRAMS, Collector
from shards.dataset.sums import Sums

KINDS = [("done", "extracted"), ("rejected", "no-captions"), ("failed-retryable", "network")]


def sidecar(rng, examples, names=6, segments=4):
    """The content of a sidecar of random numbers; frames and categories are drawn from `names` names."""
    count = examples * segments
    videos = rng.integers(0, 50, examples)
    places = [[int(record), int(rng.integers(9))] for record in range(min(examples, 3))]
    numbers = {name: int(rng.integers(0, count + 1)) for name in ("tokens", "words", "silent", "near_black")}
    categories = {f"c{i}": int(rng.integers(1, 9)) for i in rng.integers(0, names, min(names, 200)).tolist()}
    return (
        Collector().result()
        | {"examples": examples, "segments": count, "seconds": 5.0 * count, **numbers}
        | {"categories": list(categories.items()), "speeds": [[1, count]]}
        | {"runs": [[[f"v{video}", 0, segments]] for video in videos.tolist()]}
        | {"worst": {"words": places, "silent": places[:1]}}
        | {key: duplicates.encode((rng.integers(0, names, count) * 7 + 1).tolist()) for key in ("digests", "hashes")}
    )


def shard(seed, examples=5, names=6):
    rng = np.random.default_rng(seed)
    return Sums.of_shard(f"s{seed}", int(rng.integers(1, 10**6)), sidecar(rng, examples, names))


def items(seed, count=5):
    rng = random.Random(seed)
    drawn = [(f"i{seed}x{i}", *rng.choice(KINDS)) for i in range(count)]
    earlier = "failed-retryable/network" if seed % 2 else ""
    return Sums.of_items(
        Entry(name, outcome, kind, scores={"language": "en"}, video_seconds=1.5, earlier=earlier)
        for name, kind, outcome in drawn
    )


def merged(parts):
    found = Sums()
    for part in parts:
        found.add(part)
    return found


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from([3, 10_000])), max_size=8, unique_by=lambda s: s[0]),
    st.lists(st.integers(0, 10**6), max_size=4, unique=True),
    st.randoms(use_true_random=False),
)
def test_any_order_and_any_grouping_give_the_same_bytes(shards, ledgers, order):
    def parts():
        return [shard(seed, names=names) for seed, names in shards] + [items(seed) for seed in ledgers]

    expected = merged(parts()).to_json()
    heap = order.sample(parts(), len(shards) + len(ledgers))
    while len(heap) > 1:
        one, other = heap.pop(order.randrange(len(heap))), heap.pop(order.randrange(len(heap)))
        heap.append(Sums().add(one).add(other))
    assert merged(heap).to_json() == expected
    assert Sums.from_json(expected).to_json() == expected


def test_merging_does_not_change_what_is_added():
    one, other = shard(1), shard(2)
    before = other.to_json()
    merged([one, other]).add(shard(3))
    assert other.to_json() == before


def test_bounded_histograms_keep_totals_in_any_order():
    def part(names):
        content = Collector().result() | {"categories": [[name, 2] for name in names]}
        return Sums.of_shard("s", 1, content)

    names = [f"category {i}" for i in range(3 * sums.MOST_NAMES)]
    parts = [names[i : i + 1000] for i in range(0, len(names), 1000)]
    expected = merged(map(part, parts)).histograms["categories"]
    assert len(expected) == sums.MOST_NAMES + 1
    assert expected.total() == 2 * len(names)
    assert all(count == 2 for name, count in expected.items() if name != sums.OTHERS)
    assert merged(map(part, reversed(parts))).histograms["categories"] == expected
    assert part(names).histograms["categories"] == expected


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 5)), max_size=200))
def test_few_names_are_counted_exactly(frames):
    """Names that differ in few bits would be look-alikes, so they are spread here; owners are the videos."""
    names = np.array([(name * 0x9E3779B97F4A7C15) % 2**64 for name, _ in frames], np.uint64)
    owners = np.array([video for _, video in frames], np.uint64)
    found = FrameSample.of(names, owners)
    assert found.repeated == len(names) - len(set(names.tolist()))
    first = {name: min(v for n, v in frames if n == name) for name, _ in frames}
    assert found.alike == sum(video != first[name] for name, video in frames)


def test_many_names_are_estimated_within_three_percent():
    rng = np.random.default_rng(0)
    names = rng.integers(1, 400_000, 1_000_000).astype(np.uint64) * np.uint64(0x2545F4914F6CDD1D)
    owners = rng.integers(0, 1000, names.size).astype(np.uint64)
    parts = [FrameSample.of(names[i::7], owners[i::7]) for i in range(7)]
    found = FrameSample()
    for part in parts:
        found = found.merged(part)
    assert found.names.size == frame_sample.MOST_NAMES
    exact = names.size - np.unique(names).size
    assert abs(found.repeated / exact - 1) < 0.03
    whole = FrameSample.of(names, owners)
    assert found.to_json() == whole.to_json()
    for one, other in ((FrameSample(), whole), (whole, FrameSample()), (whole, parts[0].of(names[:0], owners[:0]))):
        assert one.merged(other).to_json() == whole.to_json()
    for order in itertools.islice(itertools.permutations(parts), 0, 5000, 1000):
        again = FrameSample()
        for part in reversed(order):
            again = part.merged(again)
        assert again.to_json() == whole.to_json()


def test_the_statistics_stay_small():
    found = merged(shard(seed, examples=400, names=10**9) for seed in range(40))
    assert found.counts["segments"] == 64_000
    assert len(found.to_json()) < 2_000_000


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("seconds"),
        lambda c: c.update(examples="many"),
        lambda c: c.update(examples=1.5),
        lambda c: c.update(speeds=[[1, "two"]]),
        lambda c: c.update(speeds=[[[], 2]]),
        lambda c: c.update(runs=[[["v", 0]]]),
        lambda c: c.update(runs=[[["v", 3, 0]]]),
        lambda c: c.update(runs=[]),
        lambda c: c.update(digests="AAAA"),
        lambda c: c.update(worst={"words": [[1, "x"]]}),
    ],
)
def test_what_is_not_a_sidecar_raises(change):
    content = sidecar(np.random.default_rng(0), 5)
    Sums.of_shard("s", 1, content)
    change(content)
    with pytest.raises((TypeError, ValueError, LookupError)):
        Sums.of_shard("s", 1, content)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"shards": 1}', "\x00"])
def test_damaged_json_raises(content):
    with pytest.raises((TypeError, ValueError, LookupError)):
        Sums.from_json(content)


def test_an_item_that_ends_again_counts_once():
    first = Sums.of_items([Entry("v", "network", "failed-retryable")])
    first.add(Sums.of_items([Entry("v", "extracted", "done", earlier="failed-retryable/network")]))
    assert +first.outcomes == {("done", "extracted"): 1}
    assert set(first.histograms) == set(HISTOGRAMS)
