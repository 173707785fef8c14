"""Memory for batches that several processes see.

One file without a name, in memory only, is cut into slots of a batch each. The kernel frees it with the last process
that holds it, so nothing can be left behind however a process ends. A slot is used again when nothing refers to its
arrays any more: TensorFlow and JAX take them over without a copy, and only they know how long they need them.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections import deque
from dataclasses import dataclass

import numpy as np

from shards.reading.batches import aligned_empty, batch_arrays
from shards.records.parser import Arrays, Spec

_COPIED_BYTES = 1 << 20
"""Arrays of up to this size leave a slot as copies, so that keeping the ids of a batch does not keep its images."""


@dataclass(frozen=True)
class Slot:
    """The memory of one batch and its number, by which the other processes know it."""

    number: int
    memory: np.ndarray


class SharedBatches:
    """Slots of `slot_bytes`. Up to `kept` of them keep their memory while they are free."""

    def __init__(self, slot_bytes: int, kept: int):
        self.file = os.memfd_create("reader-batches")
        self.slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._kept, self._slots, self._closed = kept, 0, False
        self._lock = threading.Lock()
        # Filled by finalizers, which run anywhere, even where the lock is taken: appending needs none.
        self._free: deque[tuple[int, mmap.mmap]] = deque()
        self._emptied: list[tuple[int, mmap.mmap]] = []

    def take(self) -> Slot:
        """A slot that nobody uses; it is free again when its memory and all arrays in it are gone."""
        with self._lock:
            while len(self._free) > self._kept:
                number, memory = self._free.popleft()
                memory.madvise(mmap.MADV_REMOVE)
                self._emptied.append((number, memory))
            if self._free:
                number, memory = self._free.pop()
            elif self._emptied:
                number, memory = self._emptied.pop()
            else:
                number, self._slots = self._slots, self._slots + 1
                os.ftruncate(self.file, self._slots * self.slot_bytes)
                memory = mmap.mmap(self.file, self.slot_bytes, offset=number * self.slot_bytes)
        # All arrays made of this one refer to it.
        whole = np.frombuffer(memory, np.uint8)
        weakref.finalize(whole, self._release, number, memory).atexit = False
        return Slot(number, whole)

    def arrays(self, slot: Slot, spec: Spec, rows: int) -> Arrays:
        """The arrays of the batch in a slot; large ones are in its memory."""
        arrays = batch_arrays(slot.memory, spec, rows)
        return {name: _copy(array) if array.nbytes <= _COPIED_BYTES else array for name, array in arrays.items()}

    def close(self) -> None:
        """Give back what nobody uses; batches in use stay as they are."""
        self._closed = True
        os.close(self.file)
        self._free.clear()
        self._emptied.clear()

    def _release(self, number: int, memory: mmap.mmap) -> None:
        if not self._closed:
            self._free.append((number, memory))


class OpenedSlots:
    """The same slots in another process, by the file's descriptor."""

    def __init__(self, file: int, slot_bytes: int):
        self._file, self._slot_bytes = file, slot_bytes
        self._memory: dict[int, np.ndarray] = {}

    def arrays(self, number: int, spec: Spec, rows: int) -> Arrays:
        """The arrays of the batch in a slot."""
        if number not in self._memory:
            memory = mmap.mmap(self._file, self._slot_bytes, offset=number * self._slot_bytes)
            self._memory[number] = np.frombuffer(memory, np.uint8)
        return batch_arrays(self._memory[number], spec, rows)


def _copy(array: np.ndarray) -> np.ndarray:
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy
