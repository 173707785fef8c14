"""The file layer keeps its promises in a bucket: whole objects, one winner, retries, leases."""

import multiprocessing
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shards.dataset.ledger import Entry, Ledger
from shards.storage import filesystem, object_store
from shards.storage.errors import StorageError


def test_buckets_without_credentials_are_one_sentence(monkeypatch, tmp_path):
    """A service that wants to know who asks, and a machine that has nothing to show."""

    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self):
            assert "Authorization" not in self.headers
            self.send_error(401)

        def log_message(self, *arguments):
            """Print nothing."""

    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        object_store._client.cache_clear()
        client = object_store._client(os.getpid())
        client._connection.API_BASE_URL = f"http://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(StorageError, match=r"cannot access 'gs://b/x' without credentials; run 'gcloud auth"):
            filesystem.size("gs://b/x")
        object_store._client.cache_clear()
        server.shutdown()


def test_files_come_back_and_are_listed(bucket):
    path = f"{bucket}/a/b/file.bin"
    assert not filesystem.exists(path)
    assert filesystem.list_files(f"{bucket}/a/b") == []
    filesystem.write_bytes(path, b"0123456789")
    filesystem.write_bytes(f"{bucket}/a/b/deeper/x", b"")
    assert filesystem.exists(path)
    assert filesystem.exists(f"{bucket}/a")
    assert not filesystem.exists(f"{bucket}/a/b/fil")
    assert filesystem.size(path) == 10
    assert filesystem.read_bytes(path, 3, 4) == b"3456"
    assert filesystem.read_bytes(path, 8, 10) == b"89"
    assert filesystem.read_bytes(path, 10, 5) == b""
    assert filesystem.read_bytes(f"{bucket}/a/b/deeper/x") == b""
    assert filesystem.list_files(f"{bucket}/a/b") == [path]
    assert filesystem.list_folders(f"{bucket}/a") == ["b"]
    with filesystem.open_read(path) as file:
        file.seek(4)
        assert file.read(3) == b"456"
        assert file.read() == b"789"
    filesystem.remove(path)
    filesystem.remove(path)
    assert not filesystem.exists(path)
    with pytest.raises(StorageError, match="no such object"):
        filesystem.read_bytes(path)
    with pytest.raises(StorageError, match="no such object or bucket"):
        filesystem.make_folder("gs://there-is-no-such-bucket/x")


def test_a_large_object_is_uploaded_in_pieces(bucket):
    data = bytes(range(256)) * (40 << 12)
    filesystem.write_bytes(f"{bucket}/large", data)
    with filesystem.open_read(f"{bucket}/large") as file:
        assert file.read() == data


def test_nothing_is_visible_before_it_is_whole(bucket):
    path = f"{bucket}/file"

    def stop_half_way():
        with filesystem.create(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    assert not filesystem.exists(path)


def test_of_two_writers_the_second_is_told(bucket):
    path = f"{bucket}/manifest.json"
    filesystem.write_bytes(path, b"first")

    def be_slow():
        with filesystem.create(path) as slow:
            slow.write(b"slow")
            filesystem.write_bytes(path, b"quick")

    with pytest.raises(StorageError, match="changed by another job"):
        be_slow()
    assert filesystem.read_bytes(path) == b"quick"


def race(path, number, results):
    try:
        with filesystem.create(path) as file:
            file.write(str(number).encode())
            time.sleep(0.5)
        results.put(number)
    except StorageError:
        results.put(None)


def test_of_four_processes_one_wins(bucket):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    # All of them open the object before any closes it.
    filesystem.write_bytes(f"{bucket}/manifest.json", b"old")
    processes = [context.Process(target=race, args=(f"{bucket}/manifest.json", i, results)) for i in range(4)]
    for process in processes:
        process.start()
    ended = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    winners = [number for number in ended if number is not None]
    assert winners
    assert filesystem.read_bytes(f"{bucket}/manifest.json").decode() in map(str, winners)


def test_lines_are_appended_in_order(bucket):
    for number in range(12):
        filesystem.append_line(f"{bucket}/ledger/one.jsonl", str(number).encode())
    assert filesystem.read_bytes(f"{bucket}/ledger/one.jsonl").split() == [str(n).encode() for n in range(12)]
    assert filesystem.list_files(f"{bucket}/ledger") == [f"{bucket}/ledger/one.jsonl"]


def test_everything_survives_a_storm(bucket, storm):
    for number in range(15):
        filesystem.write_bytes(f"{bucket}/data/{number}", bytes(number))
        Ledger(f"{bucket}/data", "w").append(Entry(str(number), "extracted", "done", at=number))
    assert len(filesystem.list_files(f"{bucket}/data")) == 15
    assert all(filesystem.read_bytes(f"{bucket}/data/{n}") == bytes(n) for n in range(15))
    assert sorted(Ledger(f"{bucket}/data").entries(), key=int) == [str(n) for n in range(15)]
    lines = filesystem.read_bytes(f"{bucket}/data/ledger/w.jsonl").splitlines()
    # The emulator does not look at the precondition of a composition, so a line may come twice; none is ever lost or torn.
    assert len(set(lines)) == 15
    assert storm.failed > 20


def test_a_lease_keeps_others_out_and_expires(bucket, monkeypatch):
    lock = f"{bucket}/out/.lock"
    monkeypatch.setattr(object_store, "_RENEW_SECONDS", 0.5)
    with filesystem.exclusive(lock), pytest.raises(StorageError, match="another job"), filesystem.exclusive(lock):
        pass
    with filesystem.exclusive(lock):
        pass
    # A job that was killed gives nothing back; its lease only ends, and the next one waits for that.
    monkeypatch.setattr(object_store, "LEASE_SECONDS", 3.0)
    object_store._Lease(lock).acquire(watch=True)
    started = time.monotonic()
    with filesystem.exclusive(lock):
        assert time.monotonic() - started > 1


def test_a_restarted_service_is_waited_for(lasting, lasting_bucket):
    filesystem.write_bytes(f"{lasting_bucket}/file", b"kept")
    lasting.stop()
    again = threading.Timer(3.0, lasting.start)
    again.start()
    assert filesystem.read_bytes(f"{lasting_bucket}/file") == b"kept"
    again.join()
