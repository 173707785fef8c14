"""A list of ids of any length, read as a stream: what `ingest.ids.read_ids` gives, without holding the list.

As Python's strings 20 million ids are many gigabytes, as digests 160 MB. So the file is read once for the digests,
which say what is new and comes for the first time, and again for the names of that.
"""

from __future__ import annotations

import codecs
import io
import itertools
from collections.abc import Iterator

import numpy as np

from ingest.ids import entries, video_id
from ingest.raw import RawError
from shards import filesystem
from shards.errors import StorageError
from shards.tally import id_digests

_PIECE_BYTES = 1 << 20
_NAMES_AT_ONCE = 100_000
_PASSES = 16


def names_left(path: str, limit: int | None, ended: np.ndarray) -> Iterator[str]:
    """The ids of a list in order, each once, then the entries that are no ids, without those that have ended.

    `limit` counts those too; `ended uint64 [n]` are the digests of what has ended. Raises `RawError` if the list cannot
    be read, is empty, or is a CSV without the column.
    """
    encoding = _encoding(path)
    digests, valid = _digested(path, encoding)
    kept = _firsts(digests)
    if limit is not None:
        ranked = np.concatenate([np.flatnonzero(kept & valid), np.flatnonzero(kept & ~valid)])
        kept[ranked[limit:]] = False
    _drop(kept, digests, np.sort(ended))
    # Ids come first; where nothing else is left, the list is not read a third time.
    rounds = [chosen.tobytes() for chosen in (kept & valid, kept & ~valid) if chosen.any()]
    return itertools.chain.from_iterable(
        itertools.compress((video_id(entry) or entry for entry in _entries(path, encoding)), chosen)
        for chosen in rounds
    )


def _digested(path: str, encoding: str) -> tuple[np.ndarray, np.ndarray]:
    """Of every entry, the digest of its id or of itself, `uint64 [n]`, and whether it has an id, `bool [n]`."""
    digests, valid = [], []
    listed = _entries(path, encoding)
    while some := list(itertools.islice(listed, _NAMES_AT_ONCE)):
        ids = [video_id(entry) for entry in some]
        digests.append(id_digests(i or entry for i, entry in zip(ids, some, strict=True)))
        valid.append(np.array([i is not None for i in ids]))
    if not digests:
        raise RawError(f"the list of ids {path!r} is empty")
    return np.concatenate(digests), np.concatenate(valid)


def _parts(digests: np.ndarray) -> Iterator[np.ndarray]:
    """Places of the digests in parts that share no value, so that one part at a time can be sorted."""
    part = (digests >> np.uint64(60)).astype(np.uint8)
    for number in range(_PASSES):
        yield np.flatnonzero(part == number)


def _firsts(digests: np.ndarray) -> np.ndarray:
    """Which entries are the first of their digest: `bool [n]`."""
    first = np.zeros(digests.size, bool)
    for places in _parts(digests):
        first[places[np.unique(digests[places], return_index=True)[1]]] = True
    return first


def _drop(kept: np.ndarray, digests: np.ndarray, ended: np.ndarray) -> None:
    """Keep no entry whose digest is in the sorted `ended`."""
    if not ended.size:
        return
    for places in _parts(digests):
        wanted = digests[places]
        found = np.minimum(np.searchsorted(ended, wanted), ended.size - 1)
        kept[places[ended[found] == wanted]] = False


def _encoding(path: str) -> str:
    """How a list is encoded: UTF-8 or UTF-16 by their marks, else Latin-1, as `ingest.raw.decode_text` has it."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        with filesystem.open_read(path) as file:
            piece = file.read(_PIECE_BYTES)
            if piece[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                return "utf-16"
            while piece:
                decoder.decode(piece)
                piece = file.read(_PIECE_BYTES)
            decoder.decode(b"", final=True)
    except StorageError as error:
        raise RawError(f"the list of ids cannot be read: {error}") from None
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _entries(path: str, encoding: str) -> Iterator[str]:
    """The entries of a list, repeated ones too; a line ends wherever Unicode has one end."""
    with filesystem.open_read(path) as file:
        text = io.TextIOWrapper(file, encoding, errors="replace")
        yield from entries(itertools.chain.from_iterable(map(str.splitlines, text)), path)
