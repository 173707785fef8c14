"""Parsers for the tests of worker processes, which import this module to load them."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.storage.errors import RecordError, UserError

_FOREIGN = ("tensorflow", "jax", "flax", "apache_beam")


@dataclass(frozen=True)
class NumberParser:
    """Records of eight bytes. Some of them end the process, or raise.

    A record in `deadly` ends the process that makes it with SIGKILL, as the kernel does when memory runs out, unless
    the file `survive` exists; it is written before, so that the process dies once.
    """

    deadly: tuple[int, ...] = ()
    survive: str = ""
    failing: tuple[int, ...] = ()

    def spec(self):
        return {
            "number": ((), np.dtype(np.int64)),
            "draw": ((300, 300), np.dtype(np.float32)),
            "process": ((), np.dtype(np.int64)),
            "foreign": ((), np.dtype(np.int64)),
        }

    def __call__(self, payload, streams, out):
        number = int.from_bytes(payload, "little")
        if number in self.deadly and not (self.survive and Path(self.survive).exists()):
            if self.survive:
                Path(self.survive).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number in self.failing:
            raise TwoPartError(number, "does not add up")
        out["number"][...] = number
        out["draw"][:] = streams("draw").random((300, 300), dtype=np.float32)
        out["process"][...] = os.getpid()
        out["foreign"][...] = sum(name in sys.modules for name in _FOREIGN)
        return {"odd": number % 2}


class DrawParser:
    """Records of eight bytes, and nothing that depends on who reads them."""

    def spec(self):
        return {"number": ((), np.dtype(np.int64)), "draw": ((300, 300), np.dtype(np.float32))}

    def __call__(self, payload, streams, out):
        out["number"][...] = int.from_bytes(payload, "little")
        out["draw"][:] = streams("draw").random((300, 300), dtype=np.float32)
        return {"odd": int(out["number"]) % 2}


class TwoPartError(UserError):
    """An error that cannot be pickled without more ado."""

    def __init__(self, number: int, what: str):
        super().__init__(f"record {number} {what}")


class Unloadable:
    """A parser that can be sent and not received."""

    def spec(self):
        return {"number": ((), np.dtype(np.int64))}

    def __call__(self, payload, streams, out):
        raise RecordError("never called")

    def __reduce__(self):
        return _refuse, (os.getpid(),)


def _refuse(process):
    if os.getpid() != process:
        raise ImportError("no such thing here")
    return Unloadable()
