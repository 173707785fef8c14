"""The file layer in Google Cloud Storage; `shards.storage.filesystem` chooses it for `gs://` paths.

Credentials are found the standard way (application default credentials, or none with `STORAGE_EMULATOR_HOST`). Requests
that the service is too busy for are repeated with growing, random pauses. Every write carries the generation it expects
to replace, so that a repeated request does no harm and a second writer is refused.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import random
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, InvalidOperation
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from shards.storage.errors import BusyError, ExistsError, StorageError

LEASE_SECONDS = 60.0
_RENEW_SECONDS = 15.0
_LOOK_SECONDS = 1.0
_SPOOL_BYTES = 8 << 20
_CHUNK_BYTES = 8 << 20
_RETRY = DEFAULT_RETRY.with_delay(initial=0.5, multiplier=2.0, maximum=30.0).with_timeout(180.0)


@functools.cache
def _client(process: int) -> storage.Client:
    """One client for each process: connections must not be shared over a fork."""
    del process
    try:
        client = storage.Client()
    except DefaultCredentialsError:
        # Public buckets can be read all the same; of others the service says that it wants credentials.
        client = storage.Client.create_anonymous_client()
    except (GoogleAuthError, OSError) as error:
        raise StorageError(f"Google Cloud Storage cannot be used: {error}") from None
    # For its telemetry the library asks for the bucket, in a thread, after every object that is not there.
    client._bucket_metadata_cache = None
    return client


def _blob(path: str) -> storage.Blob:
    bucket, _, name = path.removeprefix("gs://").partition("/")
    if not bucket or not name:
        raise StorageError(f"{path!r} names no object; write gs://BUCKET/NAME")
    return _client(os.getpid()).bucket(bucket).blob(name, chunk_size=_CHUNK_BYTES)


def _whole(path: str) -> storage.Blob:
    """An object that is read by one request, however large it is."""
    blob = _blob(path)
    blob.chunk_size = None
    return blob


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn what the service says into one sentence that names the path."""
    try:
        yield
    except StorageError:
        raise
    except NotFound:
        raise StorageError(f"cannot access {path!r}: there is no such object or bucket") from None
    except InvalidOperation:
        # The service refused, and the library tried to renew the credentials that an anonymous client has not.
        raise StorageError(
            f"cannot access {path!r} without credentials; run 'gcloud auth application-default login', or set"
            " GOOGLE_APPLICATION_CREDENTIALS to the file of a service account"
        ) from None
    except PreconditionFailed:
        raise StorageError(f"{path!r} was changed by another job meanwhile; let one job at a time write it") from None
    except (GoogleAPIError, GoogleAuthError, RequestException, OSError) as error:
        said = " ".join(str(getattr(error, "message", None) or error).split())[:300]
        raise StorageError(f"cannot access {path!r}: {said}") from error


def exists(path: str) -> bool:
    """Whether an object is there, or any under this name as a folder."""
    with _named(path):
        if path.removeprefix("gs://").partition("/")[2] and _blob(path).exists(retry=_RETRY):
            return True
        return next(iter(_listed(path, max_results=1)), None) is not None


def size(path: str) -> int:
    """Bytes of an object."""
    blob = _blob(path)
    with _named(path):
        blob.reload(retry=_RETRY)
    return blob.size


def open_read(path: str) -> BinaryIO:
    """An object opened for reading; blocks of it are fetched as they are needed."""
    blob = _blob(path)
    with _named(path):
        blob.reload(retry=_RETRY)
        return io.BufferedReader(_Ranges(path, blob.size), _CHUNK_BYTES)


class _Ranges(io.RawIOBase):
    """The bytes of an object, by ranges."""

    def __init__(self, path: str, length: int):
        self.path, self.length, self.at = path, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + (0, self.at, self.length)[whence]
        return self.at

    def readinto(self, buffer) -> int:
        data = read_bytes(self.path, self.at, min(len(buffer), max(self.length - self.at, 0)))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


def read_bytes(path: str, start: int, length: int | None) -> bytes:
    """A range of an object."""
    if length == 0:
        return b""
    blob = _whole(path)
    end = None if length is None else start + length - 1
    with _named(path):
        try:
            return blob.download_as_bytes(start=start or None, end=end, retry=_RETRY, raw_download=True)
        except GoogleAPIError as error:
            # A range past the end is no error of a file, and an empty object has no range at all.
            if getattr(error, "code", None) == 416:
                return b""
            raise


def read_end(path: str, length: int) -> bytes | None:
    """The last bytes of an object, or `None` if there is none: one request."""
    # Only a blob without a chunk size takes a range from the end.
    blob = _whole(path)
    with _named(path):
        try:
            return blob.download_as_bytes(start=-length, retry=_RETRY, raw_download=True)
        except NotFound:
            return None
        except GoogleAPIError as error:
            if getattr(error, "code", None) == 416:
                return b""
            raise


def copy_to(path: str, target: Path) -> bool:
    """Download an object as one stream; whether there is one."""
    with _named(path):
        try:
            _whole(path).download_to_filename(str(target), retry=_RETRY, raw_download=True)
        except NotFound:
            target.unlink(missing_ok=True)
            return False
    return True


def list_files(folder: str, suffix: str) -> list[str]:
    """The objects directly under a name."""
    bucket = folder.removeprefix("gs://").partition("/")[0]
    with _named(folder):
        names = [blob.name for blob in _listed(folder, delimiter="/")]
    return sorted(f"gs://{bucket}/{name}" for name in names if name.endswith(suffix) and not name.endswith("/"))


def list_versions(folder: str) -> list[tuple[str, str]]:
    """The objects directly under a name, each with its generation."""
    bucket = folder.removeprefix("gs://").partition("/")[0]
    with _named(folder):
        blobs = [(blob.name, blob.generation) for blob in _listed(folder, delimiter="/")]
    return sorted((f"gs://{bucket}/{name}", str(version)) for name, version in blobs if not name.endswith("/"))


def list_folders(folder: str) -> list[str]:
    """The names that have objects under them, directly under a name."""
    with _named(folder):
        listing = _listed(folder, delimiter="/")
        # The client fills in the prefixes as it goes through the pages.
        for _ in listing:
            pass
        return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in listing.prefixes)


def _listed(folder: str, **arguments):
    bucket, _, name = folder.removeprefix("gs://").partition("/")
    prefix = f"{name.rstrip('/')}/" if name.strip("/") else None
    return _client(os.getpid()).list_blobs(bucket, prefix=prefix, retry=_RETRY, **arguments)


def _generation(blob: storage.Blob) -> int:
    """The generation that is there, 0 for none."""
    try:
        blob.reload(retry=_RETRY)
    except NotFound:
        return 0
    return blob.generation


@contextlib.contextmanager
def create(path: str) -> Iterator[BinaryIO]:
    """Write an object, which is uploaded when the block ends and visible when it is there as a whole."""
    blob = _blob(path)
    with _named(path):
        expected = _generation(blob)
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as file:
        yield file
        with _named(path):
            _upload(blob, file, expected)


@contextlib.contextmanager
def put(path: str) -> Iterator[BinaryIO]:
    """Write an object without a look at what is there: one request, which may be repeated."""
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as file:
        yield file
        length = file.seek(0, io.SEEK_END)
        with _named(path):
            _blob(path).upload_from_file(file, rewind=True, size=length, retry=_RETRY, checksum="crc32c")


@contextlib.contextmanager
def create_new(path: str) -> Iterator[BinaryIO]:
    """Write an object where there is none, by one request. Raises `ExistsError` if there is one when the block ends."""
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as file:
        yield file
        with _named(path):
            try:
                _upload(_blob(path), file, 0)
            except PreconditionFailed:
                raise ExistsError(f"{path!r} is there already") from None


def update(path: str, change: Callable[[bytes | None], bytes]) -> None:
    """Replace an object's content by `change(content)`, again if another writer was faster."""
    while True:
        blob = _whole(path)
        with _named(path):
            try:
                content = blob.download_as_bytes(retry=_RETRY, raw_download=True)
                expected = blob.generation
            except NotFound:
                content, expected = None, 0
            changed = change(content)
            with contextlib.suppress(PreconditionFailed):
                _upload(_blob(path), io.BytesIO(changed), expected)
                return
        time.sleep(random.uniform(0, _LOOK_SECONDS))


def _upload(blob: storage.Blob, file: BinaryIO, expected: int) -> int:
    """Upload a file over generation `expected`; returns the new one."""
    length = file.seek(0, io.SEEK_END)

    def upload() -> None:
        blob.upload_from_file(
            file, rewind=True, size=length, if_generation_match=expected, retry=_RETRY, checksum="crc32c"
        )

    return _once(blob, upload)


def _once(blob: storage.Blob, request: Callable[[], None]) -> int:
    """The generation that a request with a precondition made.

    A request that was carried out although its answer never arrived is repeated and refused; what it wrote is known by
    its mark.
    """
    mark = uuid.uuid4().hex
    blob.metadata = {"writer": mark}
    try:
        request()
    except PreconditionFailed:
        # A new object: the one at hand would ask for the generation it knows.
        there = blob.bucket.get_blob(blob.name, retry=_RETRY)
        if there is None or (there.metadata or {}).get("writer") != mark:
            raise
        return there.generation
    return blob.generation


def append_line(path: str, line: bytes) -> None:
    """Compose an object of what is there and the line; the object must have one writer."""
    blob = _blob(path)
    with _named(path):
        expected = _generation(_blob(path))
        if not expected:
            _upload(blob, io.BytesIO(line + b"\n"), 0)
            return
        piece = f"{path}.{uuid.uuid4().hex[:12]}"
        _upload(_blob(piece), io.BytesIO(line + b"\n"), 0)
        parts = [_blob(path), _blob(piece)]
        _once(blob, lambda: blob.compose(parts, if_generation_match=expected, retry=_RETRY))
    remove(piece)


def remove(path: str) -> None:
    """Delete an object if it is there."""
    with _named(path), contextlib.suppress(NotFound):
        _blob(path).delete(retry=_RETRY)


def remove_folder(folder: str) -> None:
    """A bucket has no folders."""
    del folder


def remove_temporary_files(folder: str) -> int:
    """Nothing unfinished is ever visible in a bucket."""
    del folder
    return 0


def make_folder(folder: str) -> None:
    """Check that the bucket is there and takes objects."""
    probe = f"{folder.rstrip('/')}/.write-probe-{uuid.uuid4().hex[:8]}"
    with create(probe) as file:
        file.write(b"")
    remove(probe)


@contextlib.contextmanager
def exclusive(path: str, watch: bool) -> Iterator[None]:
    """Hold a lease; raises `BusyError` if another job holds it.

    `watch` looks at a lease that has not expired until it does, or until somebody is seen to renew it.
    """
    lease = _Lease(path)
    lease.take(watch)
    ended = threading.Event()
    thread = threading.Thread(target=lease.renew_until, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        lease.give_back()


class _Lease:
    """An object that says who works and until when."""

    def __init__(self, path: str):
        self.path, self.generation = path, 0
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def take(self, watch: bool) -> None:
        """Write the lease where there is none that is still good; raise `BusyError` for one that is."""
        with _named(self.path):
            first = None
            while expected := _generation(_blob(self.path)):
                try:
                    held = json.loads(_blob(self.path).download_as_bytes(retry=_RETRY))
                except NotFound:
                    continue
                if held["until"] <= time.time():
                    break
                first = first or held["until"]
                if not watch or held["until"] != first:
                    raise self._busy(held["owner"])
                time.sleep(_LOOK_SECONDS)
            try:
                self._write(expected)
            except PreconditionFailed:
                raise self._busy("that began at the same moment") from None

    def _busy(self, owner: str) -> BusyError:
        place = self.path.rpartition("/")[0]
        return BusyError(f"another job ({owner}) is writing to {place!r}; wait for it or choose another folder")

    def _write(self, expected: int) -> None:
        content = json.dumps({"owner": self.owner, "until": time.time() + LEASE_SECONDS}).encode()
        self.generation = _upload(_blob(self.path), io.BytesIO(content), expected)

    def renew_until(self, ended: threading.Event) -> None:
        """Renew the lease until the job ends; one that cannot be renewed expires, and the next renewal tries again."""
        while not ended.wait(_RENEW_SECONDS):
            with contextlib.suppress(GoogleAPIError, RequestException):
                self._write(self.generation)

    def give_back(self) -> None:
        """Delete the lease if it is still ours."""
        with contextlib.suppress(GoogleAPIError, RequestException):
            _blob(self.path).delete(if_generation_match=self.generation, retry=_RETRY)
