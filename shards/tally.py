"""The ledger of millions of items in a few arrays: how they ended, without their lines.

A part of the ledger that is finished is closed: its files become one, and beside it lies its tally, 14 bytes an item.
Reading tallies instead of lines is what makes the status of 20 million items a matter of seconds.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import zipfile
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from shards import filesystem
from shards.ledger import SUFFIX, Entry, Ledger, closed_path, newest, read_lines

_SAMPLES = 3
_LINES_AT_ONCE = 50_000
_SUFFIX = ".tally"


@dataclass(frozen=True)
class Reason:
    """One way to end: names of `ingest.outcomes`, the split, and for what is done the language."""

    kind: str
    outcome: str
    split: str
    language: str = ""


@dataclass(frozen=True)
class Tally:
    """How items ended, each once.

    `ids uint64 [n]` are sorted digests, `at uint32 [n]` seconds since 1970, `codes uint16 [n]` indices of `reasons`;
    `samples` are some ids of each reason.

    Two of 20 million ids share a digest with a probability of one in 100,000; the one that came first is then missing.
    """

    ids: np.ndarray
    at: np.ndarray
    codes: np.ndarray
    reasons: list[Reason]
    samples: list[list[str]]

    def counts(self) -> dict[Reason, int]:
        """Items of each reason that has any."""
        counted = np.bincount(self.codes, minlength=len(self.reasons)).tolist()
        return {reason: count for reason, count in zip(self.reasons, counted, strict=True) if count}

    def sampled(self) -> dict[Reason, list[str]]:
        """For each reason, some of the items that ended so and were not heard of again."""
        found = {}
        for code, (reason, names) in enumerate(zip(self.reasons, self.samples, strict=True)):
            places = np.searchsorted(self.ids, id_digests(names))
            kept = [name for name, place in zip(names, places, strict=True) if self.codes[place] == code]
            found[reason] = kept[:_SAMPLES]
        return found

    def ended(self, kinds: Container[str]) -> np.ndarray:
        """The digests of the items that ended in one of these kinds, sorted: `uint64 [n]`."""
        wanted = np.array([reason.kind in kinds for reason in self.reasons], bool)
        return self.ids[wanted[self.codes]] if wanted.size else self.ids


def id_digests(names: Iterable[str]) -> np.ndarray:
    """`uint64 [n]`: 8 bytes of BLAKE2 of every id."""
    joined = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(joined, "<u8")


def of_data(data: str) -> Tally:
    """The tally of a whole ledger: closed parts from their tallies, other files from their lines."""
    return _merged(itertools.chain.from_iterable(_of_file(path) for path in Ledger(data).files()))


def close(data: str, part: str) -> None:
    """Make one file of a part's lines, with its tally beside it; whoever is interrupted calls it again."""
    closed, ledger = closed_path(data, part), Ledger(data, part=part)
    opened = filesystem.list_files(ledger.folder, SUFFIX)
    if opened:
        held: dict[bytes, None] = {}
        for path in ledger.files():
            with filesystem.open_read(path) as file:
                # A line that is there already was copied before an interruption.
                held |= dict.fromkeys(line for line in file if line.endswith(b"\n") and line.strip())
        filesystem.write_bytes(closed, b"".join(held))
    if filesystem.exists(closed):
        tally = _merged([_of_entries(newest(read_lines(closed)).values())])
        filesystem.write_bytes(_beside(closed), to_bytes(tally, filesystem.size(closed)))
    for path in opened:
        filesystem.remove(path)


def _beside(path: str) -> str:
    return path.removesuffix(SUFFIX) + _SUFFIX


def _of_file(path: str) -> Iterator[Tally]:
    if filesystem.exists(_beside(path)):
        held = _from_bytes(filesystem.read_bytes(_beside(path)), filesystem.size(path))
        if held is not None:
            yield held
            return
    lines = read_lines(path)
    while some := list(itertools.islice(lines, _LINES_AT_ONCE)):
        yield _of_entries(some)


def _of_entries(entries: Iterable[Entry]) -> Tally:
    found = list(entries)
    codes: dict[Reason, int] = {}
    samples: dict[int, list[str]] = defaultdict(list)
    numbers = np.empty(len(found), np.uint16)
    for i, entry in enumerate(found):
        language = str(entry.scores.get("language", "unknown")) if entry.kind == "done" else ""
        code = codes.setdefault(Reason(entry.kind, entry.outcome, entry.split, language), len(codes))
        numbers[i] = code
        if len(samples[code]) < _SAMPLES:
            samples[code].append(entry.id)
    at = np.array([entry.at for entry in found]).astype(np.uint32)
    named = [samples[code] for code in range(len(codes))]
    return Tally(id_digests(entry.id for entry in found), at, numbers, list(codes), named)


def _merged(tallies: Iterable[Tally]) -> Tally:
    """One tally of several: of each id the newest outcome, of two of one moment the later."""
    codes: dict[Reason, int] = {}
    samples: list[list[str]] = []
    ids, at, numbers = [], [], []
    for tally in tallies:
        new = np.array([codes.setdefault(reason, len(codes)) for reason in tally.reasons], np.uint16)
        samples += [[] for _ in range(len(codes) - len(samples))]
        for code, names in zip(new.tolist(), tally.samples, strict=True):
            # More than are shown: some may turn out to have ended otherwise later.
            samples[code] = (samples[code] + names)[-4 * _SAMPLES :]
        ids.append(tally.ids)
        at.append(tally.at)
        numbers.append(new[tally.codes] if new.size else tally.codes)
    if not ids:
        return Tally(np.zeros(0, np.uint64), np.zeros(0, np.uint32), np.zeros(0, np.uint16), [], [])
    # One array at a time is joined and let go: 20 million items must fit in less than a gigabyte.
    all_ids, all_at, all_numbers = _joined(ids), _joined(at), _joined(numbers)
    order = np.argsort(all_ids, kind="stable")
    all_ids = all_ids[order]
    repeated = np.flatnonzero(all_ids[1:] == all_ids[:-1]) + 1
    all_at, all_numbers = all_at[order], all_numbers[order]
    del order
    if repeated.size:
        kept = np.ones(all_ids.size, bool)
        for place in repeated.tolist():
            # Neighbours of one id stand in their order of reading; the winner moves on to the next comparison.
            if all_at[place] < all_at[place - 1]:
                all_at[place], all_numbers[place] = all_at[place - 1], all_numbers[place - 1]
            kept[place - 1] = False
        all_ids, all_at, all_numbers = all_ids[kept], all_at[kept], all_numbers[kept]
    return Tally(all_ids, all_at, all_numbers, list(codes), samples)


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    whole = np.concatenate(pieces)
    pieces.clear()
    return whole


def to_bytes(tally: Tally, size: int) -> bytes:
    """A tally as a file; `size` is that of the lines it is of."""
    head = {"bytes": size, "reasons": [vars(r) for r in tally.reasons], "samples": tally.samples}
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(head, ensure_ascii=False).encode(), np.uint8)
    np.savez(buffer, ids=tally.ids, at=tally.at, codes=tally.codes, head=text)
    return buffer.getvalue()


def _from_bytes(content: bytes, size: int) -> Tally | None:
    """The tally in a file, or `None` if it is damaged or not that of lines of so many bytes."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as held:
            head = json.loads(held["head"].tobytes())
            reasons = [Reason(**values) for values in head["reasons"]]
            tally = Tally(held["ids"], held["at"], held["codes"], reasons, head["samples"])
    except (ValueError, KeyError, TypeError, EOFError, OSError, RuntimeError, zipfile.BadZipFile):
        return None
    sizes = {tally.ids.size, tally.at.size, tally.codes.size}
    sound = len(sizes) == 1 and len(reasons) == len(tally.samples) and head["bytes"] == size
    return tally if sound and (not tally.codes.size or tally.codes.max() < len(reasons)) else None
