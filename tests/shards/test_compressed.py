"""A compressed TFRecord is named as one, whatever packed it."""

import bz2
import gzip
import io
import lzma
import zlib

import pytest
import zstandard

from shards.reading.source import ShardError, Source
from shards.records import tfrecord
from shards.storage.errors import RecordError

PLAIN = b"".join(tfrecord.frame(bytes([i]) * 100) for i in range(20))
PACKINGS = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("name", PACKINGS)
def test_the_sentence_names_the_packing(tmp_path, name):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(PACKINGS[name](PLAIN))
    with pytest.raises(ShardError, match=f"is compressed with {name}; .* decompress it"):
        Source(str(path))
    with pytest.raises(RecordError, match=f"is compressed with {name}"):
        next(tfrecord.scan(io.BytesIO(path.read_bytes()), "a.tfrecord"))


def test_a_length_that_looks_like_a_mark_is_a_length():
    payload = bytes(int.from_bytes(b"\x1f\x8b\x00\x00", "little"))
    framed = tfrecord.frame(payload)
    assert framed[:2] == b"\x1f\x8b"
    assert next(tfrecord.scan(io.BytesIO(framed), "a")) == (0, payload)


def test_other_damage_is_damage(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"x" + PLAIN[1:])
    with pytest.raises(ShardError, match="is damaged or truncated after byte 0"):
        Source(str(path))
