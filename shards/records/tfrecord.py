"""The TFRecord container: records framed by their length and two masked CRC32C sums."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from shards.storage.errors import RecordError

HEADER_BYTES = 12
FOOTER_BYTES = 4
MAX_RECORD_BYTES = 1 << 30


_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"PK\x03\x04": ("zip", "unzip"),
    b"\x04\x22\x4d\x18": ("lz4", "unlz4"),
}


def compression(head: bytes) -> str | None:
    """What to do about a file that starts with these bytes and is compressed, as TensorFlow can write it.

    `None` if it is not; a TFRecord whose first record has a length of such bytes has a sum that fits them.
    """
    if len(head) >= HEADER_BYTES and struct.unpack("<I", head[8:12])[0] == masked_crc(head[:8]):
        return None
    named = [names for mark, names in _PACKED.items() if head.startswith(mark)]
    # zlib has no mark of its own: a window of 32 KB, and a sum of its two bytes.
    if len(head) > 1 and head[0] == 0x78 and int.from_bytes(head[:2], "big") % 31 == 0:
        named.append(("zlib", "zlib-flate -uncompress"))
    if not named:
        return None
    name, program = named[0]
    return f"is compressed with {name}; shards are read at any record, so decompress it, for example with {program}"


def masked_crc(data: bytes) -> int:
    """The rotated and offset CRC32C that the format stores."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """One record as it stands in the file."""
    length = struct.pack("<Q", len(payload))
    return b"".join([length, struct.pack("<I", masked_crc(length)), payload, struct.pack("<I", masked_crc(payload))])


def unframe(framed: bytes, where: str) -> bytes:
    """The payload of one framed record. Raises `RecordError` naming `where` if a length or a sum disagrees."""
    length = _length(framed[:HEADER_BYTES], where)
    payload, crc = framed[HEADER_BYTES : HEADER_BYTES + length], framed[HEADER_BYTES + length :]
    if len(payload) < length or len(crc) != FOOTER_BYTES:
        raise RecordError(f"{where}: the record has {length} bytes and {len(payload)} are there")
    if struct.unpack("<I", crc)[0] != masked_crc(payload):
        raise RecordError(f"{where}: the checksum of the record does not match its {length} bytes")
    return payload


def scan(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, payload) of every record from the current position, checking both sums."""
    offset = file.tell()
    while header := file.read(HEADER_BYTES):
        where = f"{name} at byte {offset}"
        length = _length(header, where)
        yield offset, unframe(header + file.read(length + FOOTER_BYTES), where)
        offset += HEADER_BYTES + length + FOOTER_BYTES


def _length(header: bytes, where: str) -> int:
    if len(header) < HEADER_BYTES:
        raise RecordError(f"{where}: the file ends inside a record's header")
    length, crc = struct.unpack("<QI", header)
    if crc != masked_crc(header[:8]):
        if advice := compression(header):
            raise RecordError(f"{where}: the file {advice}")
        raise RecordError(f"{where}: the checksum of the record's length does not match; this is no TFRecord")
    if length > MAX_RECORD_BYTES:
        raise RecordError(f"{where}: a record of {length} bytes is larger than any this project reads")
    return length
