"""A worker process of the reader, started with file descriptors by `shards.reading.workers`.

It makes examples in shared memory until the other end of its channel closes or its parent is gone. It never imports
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
from multiprocessing.connection import Connection
from typing import NamedTuple

from shards.reading.batches import example_rows
from shards.reading.examples import Examples, Made
from shards.reading.shared_batches import OpenedSlots
from shards.storage.errors import RecordError, UserError

_SECONDS_BETWEEN_LOOKS = 5.0
"""How often an idle worker looks for its parent. A dead one's channel closes at once, unless a fork of it lives on."""


class Piece(NamedTuple):
    """Some examples of a batch: `count` of them from `position` on, into the rows from `row` on of the slot's batch."""

    slot: int
    parser: int
    rows: int
    row: int
    count: int
    position: int


def serve(channel: Connection, examples: Examples, slots: OpenedSlots, parent: int) -> None:
    """Answer every piece with a list of `Made`, or with the error that making it raised."""
    while (piece := _next(channel, parent)) is not None:
        channel.send_bytes(pickle.dumps(_make(examples, slots, piece)))


def _next(channel: Connection, parent: int) -> Piece | None:
    while not channel.poll(_SECONDS_BETWEEN_LOOKS):
        if os.getppid() != parent:
            return None
    return Piece(*pickle.loads(channel.recv_bytes()))


def _make(examples: Examples, slots: OpenedSlots, piece: Piece) -> list[Made] | Exception | str:
    try:
        batch = slots.arrays(piece.slot, examples.parsers[piece.parser].spec(), piece.rows)
        return [
            examples.make(piece.parser, piece.position + i, example_rows(batch, piece.row + i))
            for i in range(piece.count)
        ]
    except Exception as error:  # noqa: BLE001 - the reader raises it where the batch is taken
        return error if _travels(error) else traceback.format_exc()


def _travels(error: Exception) -> bool:
    """Whether an error is one that the reader knows and that survives being pickled, which not every class does."""
    if not isinstance(error, (UserError, RecordError)):
        return False
    try:
        return str(pickle.loads(pickle.dumps(error))) == str(error)
    except Exception:  # noqa: BLE001 - pickling may raise anything
        return False


def main(arguments: Sequence[str]) -> None:
    """Open what the descriptors stand for, say that it worked, and serve."""
    # Ctrl-C and a scheduler's SIGTERM reach the whole group: the training process saves first, and then closes us.
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
        # The parent has closed the channel or is gone.
        os._exit(0)
