"""The store of web text as packed token sequences.

Every file of a source is packed separately and committed atomically, so that sequences have fixed numbers in their
source: those of its files in order.
"""

from __future__ import annotations

import bisect
import json
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int64

from shards.dataset.manifest import Manifest
from shards.dataset.planning import TextRef
from shards.storage import filesystem
from shards.storage.errors import UserError

SEQUENCE_LENGTH = 1536

_ROW = np.dtype("<i4")
_ROW_BYTES = SEQUENCE_LENGTH * _ROW.itemsize


class TextStoreError(UserError):
    """Packed text is missing or damaged; the message names it."""


class TextStore:
    """The packed sequences of a data folder, in one folder per source."""

    def __init__(self, data: str):
        self.folder = filesystem.join(data, "text")
        self._ends: dict[str, tuple[list[str], list[int]]] = {}

    def commit(
        self, source: str, file: int, digest: str, sequences: Iterable[np.ndarray], counts: Counter[str]
    ) -> None:
        """Write the sequences of file number `file` of a source, and then the final `counts`."""
        with filesystem.create(self._path(source, file)) as out:
            for sequence in sequences:
                out.write(sequence.astype(_ROW).tobytes())
        content = {"digest": digest, "counts": dict(sorted(counts.items()))}
        filesystem.write_bytes(self._counts_path(source, file), f"{json.dumps(content)}\n".encode())

    def finished(self, source: str, file: int, digest: str) -> Counter[str] | None:
        """Return the counts of a file if it has been packed with `digest`, else `None`."""
        path = self._counts_path(source, file)
        if not (filesystem.exists(path) and filesystem.exists(self._path(source, file))):
            return None
        try:
            content = json.loads(filesystem.read_bytes(path))
            counts = Counter(content["counts"])
        except (ValueError, LookupError, TypeError):
            return None
        complete = filesystem.size(self._path(source, file)) == counts["sequences"] * _ROW_BYTES
        return counts if content["digest"] == digest and complete else None

    def read(self, texts: Iterable[list[TextRef]]) -> Iterator[list[Int64[np.ndarray, "1536"]]]:
        """Yield the sequences of each example. Raises `TextStoreError` if one is missing."""
        for refs in texts:
            yield [self._sequence(source, number) for source, number in refs]

    def drop(self, sources: Iterable[str]) -> None:
        """Remove the packed files of some sources."""
        for source in sources:
            for path in filesystem.list_files(filesystem.join(self.folder, source)):
                filesystem.remove(path)

    def _sequence(self, source: str, number: int) -> Int64[np.ndarray, "1536"]:
        if source not in self._ends:
            paths = filesystem.list_files(filesystem.join(self.folder, source), ".ids")
            self._ends[source] = paths, np.cumsum([filesystem.size(p) // _ROW_BYTES for p in paths]).tolist()
        paths, ends = self._ends[source]
        file = bisect.bisect_right(ends, number)
        if file == len(ends):
            raise TextStoreError(
                f"sequence {number} of the text {source!r} is not in {self.folder!r}; run the job again to pack it"
            )
        row = number - (ends[file - 1] if file else 0)
        data = filesystem.read_bytes(paths[file], row * _ROW_BYTES, _ROW_BYTES)
        return np.frombuffer(data, _ROW).astype(np.int64)

    def _path(self, source: str, file: int) -> str:
        return filesystem.join(self.folder, source, f"{file:06d}.ids")

    def _counts_path(self, source: str, file: int) -> str:
        return filesystem.join(self.folder, source, f"{file:06d}.json")


def used(committed: Manifest | None) -> dict[str, int]:
    """Return the number of sequences of each source in all generations, including repeated ones."""
    counts: Counter[str] = Counter()
    for generation in committed.generations if committed else []:
        counts.update(generation.text)
    return dict(counts)
