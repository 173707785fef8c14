"""Waves: a huge list of videos is worked on slice by slice, and every slice becomes a generation of its own.

The list is cut once, so that what a wave holds depends on the list alone and never on who works on it. Any number of
jobs take waves by leases; a wave is left when its generation is committed. Segments too few to fill an example wait for
the last generation, which no job begins before all waves are done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from shards import filesystem
from shards.errors import BusyError, UsageError, UserError

FOLDER = "waves"
_PLAN = "plan.json"
_LIST = ".list"
_DECISIVE = ("split", "source", "size", "shard_bytes", "blocklist")
"""The fields of a plan that jobs on it must agree on."""

_BY_DIGEST = {"source": "another list of videos", "blocklist": "another --blocklist"}
_FLAGS = {"split": "--split", "size": "--wave", "shard_bytes": "--shard-bytes"}


@dataclass(frozen=True)
class WavePlan:
    """How a list was cut: `waves` slices of `size` videos, generations `first` to `first + waves - 1` of a split.

    The generation after them, `last`, packs what they leave over. `source` is the digest of the list, `blocklist` that
    of the file of ids that are left out, if there is one.
    """

    split: str
    source: str
    size: int
    videos: int
    first: int
    waves: int
    shard_bytes: int = 128 << 20
    blocklist: str = ""

    @property
    def last(self) -> int:
        """The number of the generation that packs what the waves leave over."""
        return self.first + self.waves


def part_name(number: int) -> str:
    """The name of a wave, also of its part of the ledger: `g0012`."""
    return f"g{number:04d}"


def scratch(data: str, number: int) -> str:
    """The folder for temporary files of those who work on a wave."""
    return filesystem.join(data, FOLDER, part_name(number))


def unfinished(data: str) -> list[int]:
    """The numbers of the waves that are not finished yet, in order; the last generation is one of them."""
    lists = filesystem.list_files(filesystem.join(data, FOLDER), _LIST)
    return sorted(int(path.rpartition("/")[2].removesuffix(_LIST)[1:]) for path in lists)


def load_plan(data: str) -> WavePlan | None:
    """How the list was cut that a data folder is made from, `None` if it never was."""
    path = filesystem.join(data, FOLDER, _PLAN)
    if not filesystem.exists(path):
        return None
    try:
        return WavePlan(**json.loads(filesystem.read_bytes(path)))
    except (ValueError, TypeError):
        raise UserError(f"{path!r} is damaged; restore it, or choose another --out") from None


def require_finished(data: str) -> None:
    """Raises `UsageError` if a list is being worked on in waves."""
    plan = load_plan(data)
    if plan and (left := unfinished(data)):
        raise UsageError(
            f"{data!r} is being made in waves, {len(left)} are not finished; go on with the same list and --wave"
            f" {plan.size}, or choose another --out"
        )


def settle(data: str, wanted: WavePlan, names: Callable[[], Iterable[str]]) -> WavePlan:
    """The plan to go on with: the one that is there, or a new one for what `names` gives.

    `wanted` is the plan of a list that is not cut yet, without its numbers of waves and videos. Raises `UsageError` if
    another list is not finished. Call it while the folder is locked.
    """
    held = load_plan(data)
    if held and unfinished(data):
        _require_same(data, wanted, held)
        return held
    listed = iter(names())
    # A list without its plan is one that was not cut to the end; the plan comes last.
    filesystem.remove(filesystem.join(data, FOLDER, _PLAN))
    for number in unfinished(data):
        filesystem.remove(_list_path(data, number))
    videos = waves = 0
    while some := list(itertools.islice(listed, wanted.size)):
        _write_list(data, wanted.first + waves, some)
        videos, waves = videos + len(some), waves + 1
    plan = dataclasses.replace(wanted, videos=videos, waves=waves)
    if waves:
        _write_list(data, plan.last, [])
        filesystem.write_bytes(filesystem.join(data, FOLDER, _PLAN), json.dumps(vars(plan), indent=1).encode())
    return plan


def _write_list(data: str, number: int, names: list[str]) -> None:
    lines = "".join(json.dumps(name, ensure_ascii=False) + "\n" for name in names)
    filesystem.write_bytes(_list_path(data, number), lines.encode())


def _require_same(data: str, wanted: WavePlan, held: WavePlan) -> None:
    """Raises `UsageError` if a job would make other shards of the waves that are not finished."""
    for name in _DECISIVE:
        ours, theirs = getattr(wanted, name), getattr(held, name)
        if ours != theirs:
            said = _BY_DIGEST.get(name) or f"{_FLAGS[name]} {theirs}, not {ours}"
            raise UsageError(f"{data!r} is being made with {said}; finish that first, or choose another --out")


def read_list(data: str, number: int) -> list[str]:
    """What a wave holds; empty for the last generation."""
    return [json.loads(line) for line in filesystem.read_bytes(_list_path(data, number)).splitlines()]


@contextlib.contextmanager
def take(data: str, plan: WavePlan) -> Iterator[int | None]:
    """Hold the lease of the first wave that is free, for the duration of the block; `None` if there is none.

    The last generation is free only when every other one is finished.
    """
    with contextlib.ExitStack() as held:
        yield _take(data, plan, held)


def _take(data: str, plan: WavePlan, held: contextlib.ExitStack) -> int | None:
    left = unfinished(data)
    for number in left if left == [plan.last] else [n for n in left if n != plan.last]:
        with contextlib.suppress(BusyError):
            held.enter_context(filesystem.exclusive(_lease_path(data, number), patience=0))
            if filesystem.exists(_list_path(data, number)):
                return number
            held.close()
    return None


def finish(data: str, number: int) -> None:
    """Leave a wave whose generation is committed; it is never taken again."""
    filesystem.remove(_list_path(data, number))
    # Whoever gets this lease now, or one of the same name, finds no list.
    filesystem.remove(_lease_path(data, number))


def _list_path(data: str, number: int) -> str:
    return filesystem.join(data, FOLDER, f"{part_name(number)}{_LIST}")


def _lease_path(data: str, number: int) -> str:
    return filesystem.join(data, FOLDER, f"{part_name(number)}.lock")
