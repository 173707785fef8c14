"""What every test shares: where the golden numbers are, and a report of how close we come to each of them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import closing_tables
import compiled_programs
import pytest
from forked import Commands, Job
from hypothesis import settings as hypothesis_settings

from shards.storage import fetch

# The same code is judged by the same examples everywhere. `--hypothesis-profile default` draws others at random.
hypothesis_settings.load_profile("ci")

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
def once(tmp_path_factory, worker_id) -> Callable[[str, Callable[[Path], None]], Path]:
    """Make a folder once for all processes of a test session: what is dear to make and only read."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        folder = shared / name
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                unfinished = shared / f"{name}-unfinished"
                unfinished.mkdir()
                fill(unfinished)
                unfinished.rename(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def corpus(once) -> Path:
    """Eight videos of eight stretches each, six of them in `train`, with `tokenizer.json`, a vocabulary of their words."""

    def fill(folder: Path) -> None:
        from pipelines.demo.__main__ import write_speech
        from pipelines.demo.corpus import Spec, make_corpus
        from shards.tokenizer import train_tokenizer

        make_corpus(str(folder), Spec(videos=8, shortest=8, longest=8), processes=2)
        write_speech(str(folder / "train"), str(folder / "speech.txt"))
        tokenizer = train_tokenizer((folder / "speech.txt").read_text().splitlines(), 400)
        (folder / "tokenizer.json").write_text(tokenizer.to_str())

    return once("corpus", fill)


@pytest.fixture(scope="session")
def tokenizer(corpus) -> Path:
    """A vocabulary trained on the corpus, so that no test needs the published one."""
    return corpus / "tokenizer.json"


@pytest.fixture(scope="session")
def settings(tokenizer) -> list[str]:
    """Flags that fit the corpus: its own vocabulary, no timing model, small examples and shards."""
    return [
        *("--tokenizer", str(tokenizer), "--timing-model", "none", "--segments-per-example", "4"),
        *("--shard-bytes", "200000", "--min-words-per-30s", "20"),
    ]


@pytest.fixture(scope="session")
def quick(settings) -> list[str]:
    """The settings, with Beam in one process: for tests that are not about workers."""
    return [*settings, "--direct_running_mode=in_memory", "--direct_num_workers=1"]


@pytest.fixture(scope="session")
def start(run, corpus, settings) -> Callable[..., Job]:
    """Start the job over the six videos of the corpus into a folder, with more flags."""

    def begin(out: object, *more: object, workers: int = 1, videos: object = None, **options: object) -> Job:
        flags = [*settings, f"--direct_num_workers={workers}", *more]
        videos = videos or corpus / "train"
        return run.start("pipelines.preprocess", "--videos", videos, "--out", out, *flags, **options)

    return begin


@pytest.fixture(scope="session")
def finish(start) -> Callable[..., None]:
    """Run the job to its end."""

    def complete(out: object, *more: object, **options: object) -> None:
        ran = start(out, *more, **options).wait()
        assert ran.status == 0, ran.err

    return complete


@pytest.fixture(scope="session")
def undisturbed(finish, tmp_path_factory) -> Path:
    """The data folder of a job that nothing disturbed, with its segments kept."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(out, "--keep-segments")
    return out


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
    parser.addoption("--fuzz-scale", type=int, default=1, help="so many times the usual number of damaged inputs")
    parser.addoption("--fuzz-seed", type=int, default=0, help="other damage than the usual (tests/faults/test_fuzz.py)")


def pytest_configure(config: pytest.Config) -> None:
    # One BLAS thread, as in the workers: results do not depend on the number of cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Programs of the tests run for milliseconds and are compiled for seconds, most of them for LLVM's optimizations.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    # Many tests start a process that compiles what another has compiled; the workers and their children inherit this.
    if _is_first(config) and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        place, started = compiled_programs.folder(), time.time()
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(place)
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
        config.add_cleanup(lambda: compiled_programs.tidy(place, since=started))


def _is_first(config: pytest.Config) -> bool:
    """Whether this is the process that was started by hand, and not one of its workers."""
    return not hasattr(config, "workerinput")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tables"] = closing_tables.rows()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    # A process that crashed sends nothing.
    closing_tables.add(getattr(node, "workeroutput", {}).get("tables", {"faults": [], "errors": [], "arrays": []}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    closing_tables.write(terminalreporter)
