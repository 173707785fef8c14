"""A hundred thousand damaged inputs, and the ones that were once too much.

The long run is one test per kind in `make test-faults`, `--fuzz-scale 4` makes it four times as long; the findings in tests/fixtures/fuzz run in `make test`.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import resource
import signal
import traceback
from pathlib import Path

import pytest
from fuzz_targets import TARGETS
from mutations import minimise

FINDINGS = Path(__file__).parent.parent / "fixtures" / "fuzz"
COUNTS = {"captions": 30_000, "info": 15_000, "lists": 10_000, "records": 30_000, "manifests": 20_000, "videos": 5_000}
COUNTS |= {"indexes": 2_000, "torch": 5_000, "checkpoints": 10_000, "tokenizers": 2_000, "parquet": 2_000}
COUNTS |= {"folders": 2_000, "states": 10_000, "requests": 5_000}
SECONDS_EACH = 10
MEMORY_MB = 500
# A page of a table may state up to 2 GB, which its library allocates before it reads the page.
MORE_MEMORY_MB = {"parquet": 2500}


@contextlib.contextmanager
def limited(seconds):
    """Ends what takes longer with an error that no parser catches as its own."""

    def stop(number, frame):
        raise AssertionError(f"no answer after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def failure(check, data):
    """The traceback of what went wrong with an input, or `None`."""
    try:
        with limited(SECONDS_EACH):
            check(data)
    except Exception:  # noqa: BLE001 - whatever a parser lets through is the finding
        return traceback.format_exc(limit=-4)
    return None


@pytest.mark.parametrize("kind", TARGETS)
def test_sound_inputs_pass(kind):
    for seed in TARGETS[kind].seeds():
        assert failure(TARGETS[kind].check, seed) is None


@pytest.mark.parametrize("path", sorted(FINDINGS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_findings_stay_fixed(path):
    assert failure(TARGETS[path.parent.name].check, path.read_bytes()) is None


@pytest.mark.faults
@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_inputs(kind, faults, request):
    target, rng = TARGETS[kind], random.Random(request.config.getoption("--fuzz-seed"))
    seeds = target.seeds()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = COUNTS[kind] * request.config.getoption("--fuzz-scale")
    for number in range(count):
        data = target.damage(rng.choice(seeds), rng)
        if problem := failure(target.check, data):
            kept = minimise(data, lambda shorter: failure(target.check, shorter) is not None)
            path = FINDINGS / kind / hashlib.sha256(kept).hexdigest()[:12]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(kept)
            pytest.fail(f"input {number}, kept as {path}:\n{problem}")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) // 1024
    assert grown < MORE_MEMORY_MB.get(kind, MEMORY_MB)
    faults.record(f"{count:,} damaged {kind}", "typed errors only", f"{grown} MB more memory")
