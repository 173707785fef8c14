"""Damage as it happens and as nobody would do it: bytes flipped, moved, lost and doubled, JSON values of wrong kinds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

_NUMBERS = (b"0", b"-1", b"99", b"1e999", b"NaN", b"-9223372036854775809", b"4294967296", b"00:99:99.999")
_TEXTS = (b"<", b">", b"&#x110000;", b"&", b" --> ", b"\x00", b"\xff\xfe", b"\r", b"{", b"[", b'"', b"\xf0\x9f\x98\x80")
_ODD_VALUES = (
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "\x00\ud800",
    "x" * 5000,
    [],
    {},
    [[[[]]]],
    {"a": 1},
)


def damage(data: bytes, rng: random.Random) -> bytes:
    """`data` after one to five small accidents."""
    for _ in range(rng.randint(1, 5)):
        at, width = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 8, 64, 512))
        accident = rng.randrange(7)
        if accident == 0:
            data = data[:at] + rng.randbytes(min(width, 8)) + data[at + width :]
        elif accident == 1:
            data = data[:at] + data[at + width :]
        elif accident == 2:
            data = data[:at] + data[at : at + width] * rng.choice((2, 3, 50)) + data[at + width :]
        elif accident == 3:
            data = data[:at] + rng.choice(_NUMBERS + _TEXTS) + data[at:]
        elif accident == 4:
            there = rng.randrange(len(data) + 1)
            data = data[:at] + data[there : there + width] + data[at:]
        elif accident == 5 and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        elif rng.random() < 0.1:
            data = data[:at]
    return data


def damage_json(data: bytes, rng: random.Random) -> bytes:
    """A JSON document with some of its values exchanged for others; where it is none, `damage`."""
    if rng.random() < 0.4:
        return damage(data, rng)
    document = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        document = _exchange(document, rng)
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _exchange(value: object, rng: random.Random) -> object:
    """`value` with one value somewhere in it replaced, dropped or put elsewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        changed = dict(value)
        if rng.random() < 0.15:
            del changed[name]
        else:
            changed[name] = _exchange(value[name], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], _exchange(value[at], rng), *value[at + 1 :]]
    if rng.random() < 0.02:
        nested: object = 0
        for _ in range(400):
            nested = [nested]
        return nested
    return rng.choice(_ODD_VALUES)


def minimise(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """A shorter input that still fails, found by leaving out pieces."""
    width = len(data) // 2
    while width:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + width :]
            if fails(shorter):
                data = shorter
            else:
                at += width
        width //= 2
    return data
