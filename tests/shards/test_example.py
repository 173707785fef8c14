import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.records import example
from shards.storage.errors import RecordError

names = st.text(min_size=1, max_size=12)
values = st.one_of(
    st.lists(st.binary(max_size=30), max_size=5),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20).map(lambda v: np.array(v, np.int64)),
    st.lists(st.floats(width=32, allow_nan=False), max_size=20).map(lambda v: np.array(v, np.float32)),
)


def equal(a, b):
    if isinstance(a, list):
        return a == b or (not a and len(b) == 0)
    return np.array_equal(a, b) and (a.size == 0 or a.dtype == b.dtype)


@given(st.dictionaries(names, values, max_size=6))
def test_round_trip(features):
    parsed = example.parse(example.serialize(features))
    assert parsed.keys() == features.keys()
    assert all(equal(features[name], parsed[name]) for name in features)


@given(st.binary(max_size=200))
def test_any_bytes_give_features_or_the_typed_error(data):
    with contextlib.suppress(RecordError):
        assert isinstance(example.parse(data), dict)


@given(st.dictionaries(names, values, min_size=1, max_size=4), st.data())
def test_a_flipped_byte_never_crashes(features, data):
    raw = bytearray(example.serialize(features))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(RecordError):
        assert isinstance(example.parse(bytes(raw)), dict)


def test_empty_lists_are_present():
    raw = example.serialize({"a": np.zeros(0, np.int64), "b": [], "c": np.zeros(0, np.float32)})
    assert set(example.parse(raw)) == {"a", "b", "c"}


def test_a_cut_message_is_named():
    with pytest.raises(RecordError, match=r"5 bytes are not a tf\.train\.Example"):
        example.parse(example.serialize({"a": [b"x" * 50]})[:5])
