"""What every test shares: where the golden numbers are, and a report of how close we come to each of them."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

from shards import fetch

GOLDEN = Path(__file__).parent / "golden"

_worst: dict[str, dict[str, tuple[float, str]]] = defaultdict(dict)


_faults: dict[str, tuple[str, str]] = {}


class Faults:
    """Collects what became of each fault, for the table at the end of the run."""

    def record(self, fault: str, outcome: str, detail: str = "") -> None:
        """Note how a fault ended."""
        _faults[fault] = (outcome, detail)


class Parity:
    """Collects the worst error against each golden file, for the table at the end of the run."""

    def record(self, file: str, quantity: str, error: float, unit: str = "") -> None:
        """Note an error; the largest one per file and quantity is printed."""
        held = _worst[file].get(quantity, (-1.0, unit))[0]
        _worst[file][quantity] = (max(held, float(error)), unit)


@pytest.fixture(scope="session")
def parity() -> Parity:
    return Parity()


@pytest.fixture(scope="session")
def faults() -> Faults:
    return Faults()


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN / "data"


@pytest.fixture(scope="session")
def published_tokenizer() -> Path:
    return _published(fetch.TOKENIZER)


@pytest.fixture(scope="session")
def published_timing_model() -> Path:
    return _published(fetch.TIMING_MODEL)


def _published(remote: fetch.RemoteFile) -> Path:
    try:
        return fetch.fetch(remote)
    except fetch.FetchError as error:
        pytest.skip(str(error))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seed", type=int, default=0, help="other damage than the usual (tests/faults/test_fuzz.py)")


def pytest_configure(config: pytest.Config) -> None:
    # One BLAS thread, as in the workers: results do not depend on the number of cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _faults:
        terminalreporter.section("what became of each fault")
        for fault, (outcome, detail) in _faults.items():
            terminalreporter.write_line(f"{fault:<52} {outcome:<28} {detail}")
    if _worst:
        terminalreporter.section("worst error against each golden file")
    for file in sorted(_worst):
        for quantity, (error, unit) in sorted(_worst[file].items()):
            terminalreporter.write_line(f"{file:<32} {quantity:<44} {error:10.3g} {unit}")
