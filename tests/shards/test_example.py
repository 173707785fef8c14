import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example as case
from hypothesis import given
from hypothesis import strategies as st

from shards.records import example
from shards.storage.errors import RecordError

HERE = Path(__file__).parent
names = st.text(max_size=12)
values = st.one_of(
    st.lists(st.binary(max_size=300), max_size=5),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40).map(lambda v: np.array(v, np.int64)),
    # Every pattern of bits, also those of numbers that are not numbers.
    st.lists(st.integers(0, 2**32 - 1), max_size=40).map(lambda v: np.array(v, np.uint32).view(np.float32)),
)
EMPTY = {"a": np.zeros(0, np.int64), "b": [], "c": np.zeros(0, np.float32)}


def varint(value):
    value %= 1 << 64
    out = []
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def encoded(features):
    """The record's bytes from the wire format's own rules, features sorted by name."""
    entries = b""
    for name in sorted(features):
        values = features[name]
        if isinstance(values, list):
            feature = field(1, b"".join(field(1, value) for value in values))
        elif values.dtype == np.float32:
            feature = field(2, field(1, values.astype("<f4").tobytes()) if values.size else b"")
        else:
            feature = field(3, field(1, b"".join(varint(value) for value in values.tolist())) if values.size else b"")
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def equal(a, b):
    if isinstance(a, list):
        return a == b
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


@given(st.dictionaries(names, values, max_size=8))
@case({})
@case(EMPTY)
@case({"": [b""], "b": [b"", b"x"], "B": [], "\uffff": [], "\U00010000": [], "é": []})
@case(
    {"quiet": np.array([0x7FC01234], np.uint32).view(np.float32), "loud": np.array([0x7F801234], np.uint32).view("f4")}
)
def test_records_are_byte_for_byte_those_of_the_wire_format(features):
    assert example.serialize(features) == encoded(features)


@given(st.dictionaries(names, values, max_size=6))
@case(EMPTY)
def test_round_trip(features):
    parsed = example.parse(example.serialize(features))
    assert parsed.keys() == features.keys()
    assert all(equal(features[name], parsed[name]) for name in features)


def test_other_dtypes_are_stored_as_float32_and_int64():
    parsed = example.parse(example.serialize({"f": np.array([0.1, 2.0])[::-1], "i": np.array([3, 250], np.uint8)}))
    assert equal(parsed["f"], np.array([2.0, 0.1], np.float32))
    assert equal(parsed["i"], np.array([3, 250], np.int64))


@given(st.binary(max_size=200))
def test_any_bytes_give_features_or_the_typed_error(data):
    with contextlib.suppress(RecordError):
        dict(example.parse(data))


def test_a_cut_message_is_named():
    with pytest.raises(RecordError, match=r"^5 bytes are not a tf\.train\.Example: the message is cut off or damaged$"):
        example.parse(example.serialize({"a": [b"x" * 50]})[:5])


EXPANSION = "tests.programs.hostile_record"
SIZE = 2 << 20
HOSTILE = {
    "many features": lambda: field(
        1, b"".join(field(1, field(1, b"%x" % i) + field(2, field(3, b""))) for i in range(SIZE // 13))
    ),
    "many strings": lambda: field(1, field(1, field(2, field(1, b"\x0a\x00" * (SIZE // 2))))),
    "many packed numbers": lambda: field(1, field(1, field(2, field(3, field(1, b"\x01" * SIZE))))),
    "many loose numbers": lambda: field(1, field(1, field(2, field(3, b"\x08\x01" * (SIZE // 2))))),
    "many unknown fields": lambda: field(1, b"\x98\x06\x01" * (SIZE // 3)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_record_takes_a_bounded_multiple_of_its_size(kind):
    command = [sys.executable, "-m", EXPANSION, kind]
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent.parent}"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert float(done.stdout) < 50
