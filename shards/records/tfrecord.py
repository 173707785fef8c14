"""The TFRecord container: records framed by their length and two masked CRC32C checksums."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from shards.storage.errors import RecordError

HEADER_BYTES = 12
FOOTER_BYTES = 4
MAX_RECORD_BYTES = 1 << 30


_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"PK\x03\x04": ("zip", "unzip"),
    b"\x04\x22\x4d\x18": ("lz4", "unlz4"),
}


def compression(head: bytes) -> str | None:
    """Return advice about a compressed file with these first bytes, or `None` if the file is not compressed.

    A TFRecord whose first length happens to look like the header of a compressed file is recognised by its checksum.
    """
    if len(head) >= HEADER_BYTES and struct.unpack("<I", head[8:12])[0] == masked_crc(head[:8]):
        return None
    matches = [names for mark, names in _COMPRESSED.items() if head.startswith(mark)]
    # zlib has no magic bytes: its header states a window of 32 KB and a checksum of its two bytes.
    if len(head) > 1 and head[0] == 0x78 and int.from_bytes(head[:2], "big") % 31 == 0:
        matches.append(("zlib", "zlib-flate -uncompress"))
    if not matches:
        return None
    name, program = matches[0]
    return f"is compressed with {name}; shards need random access, so decompress it, for example with {program}"


def masked_crc(data: bytes) -> int:
    """Return the masked (rotated and offset) CRC32C of the format."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """Return the framed bytes of one record."""
    length = struct.pack("<Q", len(payload))
    return b"".join([length, struct.pack("<I", masked_crc(length)), payload, struct.pack("<I", masked_crc(payload))])


def unframe(framed: bytes, where: str) -> bytes:
    """Return the payload of one framed record. Raises `RecordError` naming `where` if length or checksum is wrong."""
    length = _length(framed[:HEADER_BYTES], where)
    payload, crc = framed[HEADER_BYTES : HEADER_BYTES + length], framed[HEADER_BYTES + length :]
    if len(payload) < length or len(crc) != FOOTER_BYTES:
        raise RecordError(f"{where}: the record is truncated to {len(payload)} of {length} bytes")
    if struct.unpack("<I", crc)[0] != masked_crc(payload):
        raise RecordError(f"{where}: the checksum of the record does not match its {length} bytes")
    return payload


def scan(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, payload) of every record from the current position, checking both checksums."""
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
        raise RecordError(f"{where}: the checksum of the record's length does not match; this is not a TFRecord")
    if length > MAX_RECORD_BYTES:
        raise RecordError(f"{where}: a record of {length} bytes is larger than the limit of {MAX_RECORD_BYTES} bytes")
    return length
