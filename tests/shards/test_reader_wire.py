import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.records import example, tfrecord, wire
from shards.storage.errors import RecordError

INTEGERS = st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(
    st.lists(st.binary(max_size=300), max_size=3),
    st.lists(INTEGERS, max_size=20).map(lambda v: np.array(v, np.int64)),
    st.lists(st.floats(width=32, allow_nan=False), max_size=20).map(lambda v: np.array(v, np.float32)),
)


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, values in expected.items():
        if isinstance(values, list):
            assert list(found[name]) == values
        else:
            np.testing.assert_array_equal(found[name], values)
            assert found[name].size == 0 or found[name].dtype == values.dtype


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=20), VALUES, max_size=12))
def test_the_scan_finds_what_the_general_parser_finds(values):
    payload = example.serialize(values)
    assert_same(wire.features(payload), example.parse(payload))


def test_golden_records_are_read_alike(golden):
    with (golden / "train00000of00001.tfrecord").open("rb") as file:
        for _, payload in tfrecord.scan(file, "golden"):
            assert type(wire.features(payload)) is not dict, "the golden records must take the compiled way"
            assert_same(wire.features(payload), example.parse(payload))


@settings(deadline=None)
@given(
    st.dictionaries(st.text(max_size=8), VALUES, min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3),
    st.integers(0, 20),
)
def test_damage_is_read_alike_or_refused(values, flips, cut):
    content = bytearray(example.serialize(values))
    for place, bits in flips:
        content[place % len(content)] ^= bits
    payload = bytes(content[: max(len(content) - cut, 0)])
    try:
        expected = example.parse(payload)
    except RecordError:
        with pytest.raises(RecordError):
            wire.features(payload)
    else:
        assert_same(wire.features(payload), expected)
