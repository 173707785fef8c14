import gc
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from worker_parsers import DrawParser, NumberParser, Unloadable

from shards.dataset.manifest import index_path, shard_name
from shards.reader import PretrainingReader, Reader, ReaderConfig, ReaderError, StreamOptions
from shards.reading.batches import ALIGNMENT, batch_arrays, batch_bytes
from shards.reading.evaluation import DamagedRecordError, Pass
from shards.reading.shared_batches import SharedBatches
from shards.reading.workers import worker_count
from shards.records import tfrecord
from shards.storage.errors import UsageError
from tests.reader_data import write_data

SMALL = ReaderConfig(
    segments=4, groups=2, grid=(4, 6), random_text_sequences=0, text_length=40, sequence_length=96, encode_meta=True
)
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def small_data(tmp_path_factory) -> str:
    return write_data(tmp_path_factory.mktemp("workers") / "small", [5, 3, 6])


@pytest.fixture(scope="module")
def numbers(tmp_path_factory) -> str:
    """Thirty records of eight bytes."""
    folder = tmp_path_factory.mktemp("numbers")
    for shard in range(3):
        framed = [tfrecord.frame((shard * 10 + i).to_bytes(8, "little")) for i in range(10)]
        (folder / f"train{shard}.tfrecord").write_bytes(b"".join(framed))
    return str(folder)


@pytest.fixture(autouse=True)
def nothing_is_left():
    """After each test no worker lives, and no memory of a batch is kept once TensorFlow has let go of it."""
    yield
    gc.collect()
    if tensorflow := sys.modules.get("tensorflow"):
        tensorflow.constant(0)
    assert wait_until(lambda: not workers_of(os.getpid()) and not memory_files()), memory_files()


def workers_of(process):
    """The worker processes that a process has started."""
    found = []
    for child in psutil.Process(process).children():
        try:
            if "shards.reading.worker" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def memory_files():
    links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return [link for link in links if "memfd:reader" in link]


def wait_until(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


def with_workers(config, workers):
    return replace(config, stream=replace(config.stream, workers=workers))


def read(make, count, workers):
    """So many batches of a reader, its states after each, and what it counted."""
    reader = make(workers)
    states, batches = [], []
    for batch in itertools.islice(reader, count):
        batches.append({name: array.copy() for name, array in batch.items()})
        states.append(reader.state())
    metrics = reader.metrics()
    reader.close()
    counted = {name: metrics[name] for name in metrics if "second" not in name and name != "waiting_examples"}
    return batches, json.loads(json.dumps(states)), counted


def assert_same(ours, theirs):
    assert ours[1:] == theirs[1:]
    assert len(ours[0]) == len(theirs[0])
    for a, b in zip(ours[0], theirs[0], strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            assert a[key].tobytes() == b[key].tobytes(), key


def mixed(data, other):
    return lambda workers: PretrainingReader({data: 0.75, other: 0.25}, with_workers(SMALL, workers), 4, seed=3)


def damaged(data, folder):
    shutil.copytree(data, folder)
    for shard, record in ((1, 1), (2, 4)):
        path = folder / shard_name("train", 0, shard, 3)
        content = bytearray(path.read_bytes())
        content[int(np.frombuffer((folder / index_path(path.name)).read_bytes(), "<u8")[record]) + 500] ^= 4
        path.write_bytes(content)
    config = replace(SMALL, stream=StreamOptions(bad_records=2))
    return lambda workers: PretrainingReader(str(folder), with_workers(config, workers), 3, seed=0)


@pytest.mark.parametrize("kind", ["training", "validation", "turns", "mixture", "damaged"])
def test_batches_do_not_depend_on_the_number_of_workers(small_data, tmp_path, kind):
    validation = replace(SMALL, image_dtype="bfloat16", stream=StreamOptions(training=False))
    turns = [replace(SMALL, grid=grid) for grid in ((2, 3), (3, 2), (4, 4))]
    makers = {
        "training": lambda n: PretrainingReader(small_data, with_workers(SMALL, n), 3, seed=1),
        "validation": lambda n: PretrainingReader(small_data, with_workers(validation, n), 4, seed=1),
        "turns": lambda n: PretrainingReader(small_data, [with_workers(turn, n) for turn in turns], 3, seed=1),
    }
    if kind == "mixture":
        makers[kind] = mixed(small_data, write_data(tmp_path / "other", [9, 4], seed=7))
    if kind == "damaged":
        makers[kind] = damaged(small_data, tmp_path / "damaged")
    expected = read(makers[kind], 9, 0)
    if kind == "validation":
        assert [len(batch["images"]) for batch in expected[0]] == [4, 4, 4, 2]
    if kind == "damaged":
        assert len(expected[2]["bad_records"]) == 2
    for workers in (1, 3) if kind == "training" else (2,):
        assert_same(read(makers[kind], 9, workers), expected)


def test_states_are_shared_by_workers_and_threads(numbers):
    def make(workers):
        return Reader(numbers, NumberParser(), 4, seed=5, options=StreamOptions(workers=workers))

    whole, states, _ = read(make, 8, 0)
    for before, after in ((2, 0), (0, 2)):
        assert read(make, 3, before)[1] == states[:3]
        reader = make(after)
        reader.restore(states[2])
        rest = [batch["draw"].copy() for batch in itertools.islice(reader, 5)]
        reader.restore(states[0])
        assert (next(reader)["draw"] == whole[1]["draw"]).all(), "restoring starts the workers again"
        reader.close()
        assert all((a == b["draw"]).all() for a, b in zip(rest, whole[3:], strict=True))


def test_workers_name_damaged_records_beyond_the_limit(small_data, tmp_path):
    make = damaged(small_data, tmp_path / "damaged")
    messages = []
    for workers in (0, 2):
        reader = make(workers)
        reader._options = replace(reader._options, bad_records=0)
        with pytest.raises(ReaderError, match="damaged records, 0 are allowed") as raised:
            read(lambda _, reader=reader: reader, 9, workers)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_workers_load_neither_tensorflow_nor_jax(numbers):
    reader = Reader(numbers, NumberParser(), 6, seed=5, options=StreamOptions(workers=2))
    batches = [next(reader) for _ in range(10)]
    alive = workers_of(os.getpid())
    reader.close()
    assert {int(process) for batch in batches for process in batch["process"]} == set(alive)
    assert len(alive) == 2
    assert not any(batch["foreign"].any() for batch in batches)


@pytest.mark.parametrize("which", ["all", "one"])
def test_a_killed_worker_is_replaced_and_nobody_can_tell(numbers, caplog, which):
    def make(workers):
        return Reader(numbers, DrawParser(), 5, seed=1, options=StreamOptions(workers=workers))

    expected = read(make, 12, 0)
    reader = make(2)
    batches, states = [], []
    with caplog.at_level(logging.WARNING, "shards.reading.workers"):
        for i in range(12):
            batches.append({name: array.copy() for name, array in next(reader).items()})
            states.append(json.loads(json.dumps(reader.state())))
            if i in (2, 6):
                for process in workers_of(os.getpid())[: 1 if which == "one" else None]:
                    os.kill(process, signal.SIGKILL)
    assert 1 <= len(workers_of(os.getpid())) <= 2
    counts = {name: reader.metrics()[name] for name in expected[2]}
    reader.close()
    assert_same((batches, states, counts), expected)
    assert "a worker process of the reader ended with SIGKILL; another one computes examples" in caplog.text


def test_a_worker_that_dies_on_an_example_is_replaced(numbers, tmp_path):
    parser = NumberParser(deadly=(17,), survive=str(tmp_path / "died"))
    reader = Reader(numbers, parser, 6, seed=5, options=StreamOptions(workers=2))
    ours = [next(reader)["draw"].copy() for _ in range(5)]
    reader.close()
    assert Path(parser.survive).exists()
    with_threads = Reader(numbers, NumberParser(), 6, seed=5, options=StreamOptions(workers=0))
    assert all((a == next(with_threads)["draw"]).all() for a in ours)
    with_threads.close()


def test_workers_that_keep_dying_stop_the_reader(numbers):
    reader = Reader(numbers, NumberParser(deadly=(17,)), 5, seed=5, options=StreamOptions(workers=2))
    with pytest.raises(
        ReaderError, match=r"^3 worker processes .* died on examples \d+ to \d+, the last with SIGKILL; give this"
    ):
        read(lambda _: reader, 6, 2)


def test_what_cannot_be_sent_to_a_worker_is_said(numbers):
    options = StreamOptions(workers=1)

    class Local(NumberParser):
        pass

    with pytest.raises(UsageError, match=r"cannot be sent to worker processes .*Local.*set the workers to 0"):
        next(Reader(numbers, Local(), 4, seed=5, options=options))
    with pytest.raises(UsageError, match=r"could not load the parser \(ImportError: no such thing here\)"):
        next(Reader(numbers, Unloadable(), 4, seed=5, options=options))
    with pytest.raises(UsageError, match="workers is -1; it must be 0"):
        StreamOptions(workers=-1)


def test_an_error_that_cannot_travel_is_still_read(numbers):
    reader = Reader(numbers, NumberParser(failing=(3,)), 30, seed=5, options=StreamOptions(workers=2))
    with pytest.raises(Exception, match=r"(?s)a worker process of the reader failed.*record 3 does not add up"):
        next(reader)
    reader.close()


def test_threads_are_the_default_for_foreign_parsers():
    assert worker_count(None, [NumberParser()]) == 0
    assert worker_count(5, [NumberParser()]) == 5


PROGRAM = "tests.programs.read_until_ended"


@pytest.mark.parametrize("ending", ["exception", "SIGTERM", "SIGKILL", "SIGKILL beside a fork"])
def test_workers_and_memory_end_with_the_process(numbers, ending):
    command = [sys.executable, "-m", PROGRAM, numbers, str(HERE), ending]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout.readline() == b"ready\n"
    if ending.startswith("SIG"):
        workers = workers_of(program.pid)
        assert len(workers) == 2
        # Files without a name: the kernel frees them with the last process that has them open.
        opened = [str(file.readlink()) for file in Path(f"/proc/{program.pid}/fd").iterdir()]
        assert any("memfd:reader-batches (deleted)" in target for target in opened)
        # A fork keeps the channels open: then the workers must see that their parent is gone.
        program.send_signal(signal.Signals[ending[:7]])
        assert wait_until(lambda: not any(map(psutil.pid_exists, workers))), "a worker outlives its reader"
    program.communicate(timeout=60)
    assert program.returncode == (1 if ending == "exception" else -signal.Signals[ending[:7]])


def test_an_unreferenced_reader_ends_its_workers(numbers):
    reader = Reader(numbers, NumberParser(), 6, seed=5, options=StreamOptions(workers=1))
    draw = next(reader)["draw"]
    copy = draw.copy()
    assert workers_of(os.getpid())
    del reader
    assert wait_until(lambda: not workers_of(os.getpid()))
    assert (draw == copy).all(), "a batch outlives its reader"


def test_batches_that_are_kept_are_not_written_again(numbers):
    reader = Reader(numbers, NumberParser(), 5, seed=5, options=StreamOptions(workers=2))
    batches, copies = [], []
    for _ in range(20):
        batches.append(next(reader)["draw"])
        copies.append(batches[-1].copy())
    assert len({batch.ctypes.data for batch in batches}) == 20
    assert batches[0].ctypes.data % ALIGNMENT == 0
    assert all((a == b).all() for a, b in zip(batches, copies, strict=True))
    reader.close()
    assert all((a == b).all() for a, b in zip(batches, copies, strict=True))


def test_slots_are_reused_when_their_last_array_is_gone():
    spec = {"ids": ((3,), np.dtype(np.int32)), "images": ((700, 1000), np.dtype(np.float32))}
    slots = SharedBatches(batch_bytes(spec, 2), kept=1)

    def batch():
        slot = slots.acquire()
        batch_arrays(slot.memory, spec, 2)["images"][:] = 1
        return slot.number, slots.arrays(slot, spec, 2)

    first, held = batch()
    image, ids = held["images"][1], held["ids"]
    del held
    second, other = batch()
    assert second != first
    del image, other
    assert batch()[0] in (first, second)
    assert ids.base is not None
    assert np.shares_memory(ids, batch()[1]["images"]) is False
    many = [batch() for _ in range(5)]
    full = os.fstat(slots.file).st_blocks * 512
    del many
    batch()
    assert os.fstat(slots.file).st_blocks * 512 < full / 2
    slots.close()


def test_a_pass_does_not_depend_on_the_number_of_workers(numbers):
    def batches(workers, host):
        split = Pass(numbers, None, NumberParser(), 7, host, 2, workers=workers)
        return [{name: batch[name].copy() for name in ("number", "draw", "is_record")} for batch in split], split.counts

    for host in range(2):
        expected, counts = batches(0, host)
        assert [int(batch["is_record"].sum()) for batch in expected] == ([7, 7, 2] if host == 0 else [7, 7, 0])
        ours, our_counts = batches(2, host)
        assert our_counts == counts
        for a, b in zip(ours, expected, strict=True):
            assert all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_a_pass_over_damaged_records_is_refused_by_workers(numbers, tmp_path):
    shutil.copytree(numbers, tmp_path / "damaged")
    shard = tmp_path / "damaged" / "train1.tfrecord"
    content = bytearray(shard.read_bytes())
    content[12 + 3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DamagedRecordError, match=r"record 0 of .*train1.tfrecord"):
        list(Pass(str(tmp_path / "damaged"), None, NumberParser(), 7, workers=2))
