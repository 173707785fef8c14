"""The worker process of the reader, started with file descriptors by `shards.reading.workers`.

It computes examples in shared memory until the other end of its channel closes or its parent exits. It never imports
TensorFlow or JAX.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from shards.reading.batches import example_rows
from shards.reading.examples import ExampleInfo, Examples
from shards.reading.shared_batches import OpenedSlots
from shards.storage.errors import RecordError, UserError

_POLL_SECONDS = 5.0
"""How often an idle worker checks its parent. The channel of a dead parent closes at once unless a fork has it open."""


@dataclass(frozen=True)
class Piece:
    """Part of a batch: the examples `[position, position + count)`, for the rows from `row` on of the slot's batch."""

    slot: int
    parser: int
    rows: int
    row: int
    count: int
    position: int


def serve(channel: Connection, examples: Examples, slots: OpenedSlots, parent: int) -> None:
    """Reply to every piece with a list of `ExampleInfo`, or with the exception that it raised."""
    while (piece := _receive(channel, parent)) is not None:
        channel.send_bytes(pickle.dumps(_fill(examples, slots, piece)))


def _receive(channel: Connection, parent: int) -> Piece | None:
    while not channel.poll(_POLL_SECONDS):
        if os.getppid() != parent:
            return None
    return Piece(*pickle.loads(channel.recv_bytes()))


def _fill(examples: Examples, slots: OpenedSlots, piece: Piece) -> list[ExampleInfo] | Exception | str:
    try:
        batch = slots.arrays(piece.slot, examples.parsers[piece.parser].spec(), piece.rows)
        return [
            examples.fill(piece.parser, piece.position + i, example_rows(batch, piece.row + i))
            for i in range(piece.count)
        ]
    except Exception as error:  # noqa: BLE001 - the reader raises it when the batch is requested
        return error if _is_picklable(error) else traceback.format_exc()


def _is_picklable(error: Exception) -> bool:
    """Return whether an error is one of ours and survives pickling, which not every class does."""
    if not isinstance(error, (UserError, RecordError)):
        return False
    try:
        return str(pickle.loads(pickle.dumps(error))) == str(error)
    except Exception:  # noqa: BLE001 - pickling may raise anything
        return False


def main(arguments: Sequence[str]) -> None:
    """Open the descriptors, report success or the error, and serve."""
    # Ctrl-C and a scheduler's SIGTERM reach the whole process group: the training process saves a checkpoint first, and
    # then closes its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel_file, batches_file, examples_file, slot_bytes, parent = map(int, arguments)
    channel = Connection(channel_file)
    try:
        with mmap.mmap(examples_file, 0, access=mmap.ACCESS_READ) as description:
            examples = pickle.loads(description)
    except Exception as error:  # noqa: BLE001 - unpickling may raise anything
        channel.send_bytes(pickle.dumps(f"{type(error).__name__}: {error}"))
        return
    channel.send_bytes(pickle.dumps(None))
    serve(channel, examples, OpenedSlots(batches_file, slot_bytes), parent)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # The parent has closed the channel or exited.
        os._exit(0)
