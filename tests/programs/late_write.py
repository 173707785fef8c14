"""Let a write of TensorStore end after its event loop was closed; with the argument `loud`, raise in a destructor too."""

import asyncio
import sys
import threading

import tensorstore

from train.checkpoint import silence_orbax

silence_orbax()
promise, future = tensorstore.Promise.new()
loop = asyncio.new_event_loop()


async def wait():
    await future


async def give_up():
    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    return waiting


loop.run_until_complete(give_up())
loop.close()
report = threading.Thread(target=promise.set_result, args=(1,))
report.start()
report.join()


class Other:
    def __del__(self):
        raise ValueError("something else")


if sys.argv[1:] == ["loud"]:
    Other()
