"""What every test shares: where the golden numbers are, and a report of how close we come to each of them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import closing_tables
import pytest
from forked import Commands
from hypothesis import settings

from shards import fetch

# The same code is judged by the same examples everywhere. `--hypothesis-profile default` draws others at random.
settings.load_profile("ci")

GOLDEN = Path(__file__).parent / "golden"


class Faults:
    """Collects what became of each fault, for the table at the end of the run."""

    def record(self, fault: str, outcome: str, detail: str = "") -> None:
        """Note how a fault ended."""
        closing_tables.FAULTS[fault] = (outcome, detail)


class Parity:
    """Collects the worst error against each golden file, for the table at the end of the run."""

    def record(self, file: str, quantity: str, error: float, unit: str = "") -> None:
        """Note an error; the largest one per file and quantity is printed."""
        closing_tables.note_error(file, quantity, error, unit)


@pytest.fixture(scope="session")
def parity() -> Parity:
    return Parity()


@pytest.fixture(scope="session")
def faults() -> Faults:
    return Faults()


@pytest.fixture(scope="session")
def run() -> Iterator[Commands]:
    """Run the project's commands as a user would, in processes of their own."""
    commands = Commands()
    yield commands
    commands.close()


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
    # Many tests start a process that compiles what another has compiled; the workers and their children inherit this.
    if _is_first(config) and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
        config.add_cleanup(_forget_compiled)


def _is_first(config: pytest.Config) -> bool:
    """Whether this is the process that was started by hand, and not one of its workers."""
    return not hasattr(config, "workerinput")


def _forget_compiled() -> None:
    shutil.rmtree(os.environ.pop("JAX_COMPILATION_CACHE_DIR"), ignore_errors=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tables"] = closing_tables.rows()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    # A process that crashed sends nothing.
    closing_tables.add(getattr(node, "workeroutput", {}).get("tables", {"faults": [], "errors": [], "arrays": []}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    closing_tables.write(terminalreporter)
