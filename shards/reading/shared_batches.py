"""Shared memory for batches of several processes.

An anonymous memory file is divided into slots of one batch each. The kernel frees it with the last process that has it
open, so nothing leaks however a process ends. A slot is reused when nothing refers to its arrays any more: TensorFlow
and JAX use them without a copy for as long as they need.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from shards.reading.batches import aligned_empty, batch_arrays
from shards.records.parser import Arrays, Spec

_COPIED_BYTES = 1 << 20
"""Arrays of up to this size are copied out of a slot, so that keeping the ids of a batch does not keep its images."""


@dataclass(frozen=True)
class Slot:
    """The memory of one batch and its number, which identifies it in other processes."""

    number: int
    memory: UInt8[np.ndarray, "bytes"]


class SharedBatches:
    """A pool of slots of `slot_bytes` each. Up to `kept` free slots retain their memory."""

    def __init__(self, slot_bytes: int, kept: int):
        self.file = os.memfd_create("reader-batches")
        self.slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._kept, self._slots, self._closed = kept, 0, False
        self._lock = threading.Lock()
        # Filled by finalizers, which run at any time, even while this thread holds the lock: appending needs no lock.
        self._free: deque[tuple[int, mmap.mmap]] = deque()
        self._emptied: list[tuple[int, mmap.mmap]] = []

    def acquire(self) -> Slot:
        """Return a free slot; it is free again when its memory and all arrays in it have been deleted."""
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
        # All views of this array refer to it.
        whole = np.frombuffer(memory, np.uint8)
        weakref.finalize(whole, self._release, number, memory).atexit = False
        return Slot(number, whole)

    def arrays(self, slot: Slot, spec: Spec, rows: int) -> Arrays:
        """Return the arrays of the batch in a slot; large ones are views of its memory."""
        arrays = batch_arrays(slot.memory, spec, rows)
        return {name: _copy(array) if array.nbytes <= _COPIED_BYTES else array for name, array in arrays.items()}

    def close(self) -> None:
        """Release the free slots; batches in use remain valid."""
        self._closed = True
        os.close(self.file)
        self._free.clear()
        self._emptied.clear()

    def _release(self, number: int, memory: mmap.mmap) -> None:
        if not self._closed:
            self._free.append((number, memory))


class OpenedSlots:
    """The same slots in another process, opened by the descriptor of the file."""

    def __init__(self, file: int, slot_bytes: int):
        self._file, self._slot_bytes = file, slot_bytes
        self._memory: dict[int, UInt8[np.ndarray, "bytes"]] = {}

    def arrays(self, number: int, spec: Spec, rows: int) -> Arrays:
        """Return the arrays of the batch in a slot as views of its memory."""
        if number not in self._memory:
            memory = mmap.mmap(self._file, self._slot_bytes, offset=number * self._slot_bytes)
            self._memory[number] = np.frombuffer(memory, np.uint8)
        return batch_arrays(self._memory[number], spec, rows)


def _copy(array: np.ndarray) -> np.ndarray:
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy
