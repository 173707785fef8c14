"""Read and write the `tf.train.Example` message without TensorFlow.

A record is a flat map from feature name to a list of bytes, floats or integers. Features are written in name order so
that equal records are equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from shards.storage.errors import RecordError

Feature = list[bytes] | np.ndarray
"""`list[bytes]`, `float32 [n]` or `int64 [n]`."""


def serialize(features: Mapping[str, Sequence[bytes] | np.ndarray]) -> bytes:
    """Return an Example of the features.

    The dtype of a NumPy array (float or integer) chooses its list; anything else is a list of bytes. A feature without
    values is present and empty.
    """
    # Importing protobuf takes 80 ms, which modules that only build records later must not pay at once.
    from shards.records.messages import Example

    example = Example()
    # Without features the list is still present.
    example.features.SetInParent()
    for name in sorted(features):
        _fill(example.features.feature.add(key=name).value, features[name])
    return example.SerializeToString()


def parse(data: bytes) -> Mapping[str, Feature]:
    """Return the features of a serialised Example, decoded each time that they are looked up.

    As in TensorFlow's message, the last of several features of one name counts, and unknown fields are ignored. Raises
    `RecordError` for anything that is not an Example.
    """
    from google.protobuf.message import DecodeError

    from shards.records.messages import Example

    try:
        example = Example.FromString(data)
    except DecodeError:
        raise RecordError(f"{len(data)} bytes are not a tf.train.Example: the message is cut off or damaged") from None
    return _Features({entry.key: entry.value for entry in example.features.feature})


class _Features(Mapping[str, Feature]):
    """The features of a parsed message. A reader does not need all of them, and decoding costs most of parsing."""

    def __init__(self, messages: dict[str, Any]):
        self._messages = messages

    def __getitem__(self, name: str) -> Feature:
        return _values(self._messages[name])

    def __contains__(self, name: object) -> bool:
        # That of `Mapping` decodes the values.
        return name in self._messages

    def __iter__(self) -> Iterator[str]:
        return iter(self._messages)

    def __len__(self) -> int:
        return len(self._messages)


def _fill(feature: Any, values: Sequence[bytes] | np.ndarray) -> None:
    if not isinstance(values, np.ndarray):
        part, content = feature.bytes_list, values
    elif values.dtype.kind == "f":
        part, content = feature.float_list, values.astype(np.float32).view(np.uint32).tolist()
    else:
        part, content = feature.int64_list, values.astype(np.int64).tolist()
    # A list without values is present too.
    part.SetInParent()
    part.value.extend(content)


def _values(feature: Any) -> Feature:
    kind = feature.WhichOneof("kind")
    if kind == "float_list":
        return np.fromiter(feature.float_list.value, np.uint32).view(np.float32)
    if kind == "int64_list":
        return np.fromiter(feature.int64_list.value, np.int64)
    return list(feature.bytes_list.value)
