"""The file layer in Google Cloud Storage; `shards.storage.filesystem` chooses it for `gs://` paths.

Credentials are resolved the standard way (application default credentials, or none with `STORAGE_EMULATOR_HOST`).
Requests are retried with exponential backoff and jitter while the service is busy. Every write states the generation
that it expects to replace, so that a retried request is idempotent and a second writer is rejected.
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
from typing import IO, BinaryIO

from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, InvalidOperation
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from shards.storage.errors import BusyError, ExistsError, StorageError

LEASE_SECONDS = 60.0
_RENEW_SECONDS = 15.0
_POLL_SECONDS = 1.0
_SPOOL_BYTES = 8 << 20
_CHUNK_BYTES = 8 << 20
_RETRY = DEFAULT_RETRY.with_delay(initial=0.5, multiplier=2.0, maximum=30.0).with_timeout(180.0)


@functools.cache
def _client(process: int) -> storage.Client:
    """Return the client of one process: connections must not be shared across a fork."""
    del process
    try:
        client = storage.Client()
    except DefaultCredentialsError:
        # Public buckets need no credentials; for others the service reports that they are missing.
        client = storage.Client.create_anonymous_client()
    except (GoogleAuthError, OSError) as error:
        raise StorageError(f"Google Cloud Storage cannot be used: {error}") from None
    # For its telemetry the library requests the bucket, in a thread, after every missing object.
    client._bucket_metadata_cache = None  # pyright: ignore[reportAttributeAccessIssue] - typed as always present
    return client


def _blob(path: str) -> storage.Blob:
    bucket, _, name = path.removeprefix("gs://").partition("/")
    if not bucket or not name:
        raise StorageError(f"{path!r} does not name an object; write gs://BUCKET/NAME")
    return _client(os.getpid()).bucket(bucket).blob(name, chunk_size=_CHUNK_BYTES)


def _unchunked(path: str) -> storage.Blob:
    """Return an object that is read in a single request, whatever its size."""
    blob = _blob(path)
    blob.chunk_size = None
    return blob


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn an error of the service into a `StorageError` that names the path."""
    try:
        yield
    except StorageError:
        raise
    except NotFound:
        raise StorageError(f"cannot access {path!r}: there is no such object or bucket") from None
    except InvalidOperation:
        # The service rejected the request, and an anonymous client has no credentials to refresh.
        raise StorageError(
            f"cannot access {path!r} without credentials; run 'gcloud auth application-default login', or set"
            " GOOGLE_APPLICATION_CREDENTIALS to the file of a service account"
        ) from None
    except PreconditionFailed:
        raise StorageError(f"{path!r} was changed by another job; let one job at a time write it") from None
    except (GoogleAPIError, GoogleAuthError, RequestException, OSError) as error:
        message = " ".join(str(getattr(error, "message", None) or error).split())[:300]
        raise StorageError(f"cannot access {path!r}: {message}") from error


def exists(path: str) -> bool:
    """Return whether an object exists, or any object under this name as a folder."""
    with _named(path):
        if path.removeprefix("gs://").partition("/")[2] and _blob(path).exists(retry=_RETRY):
            return True
        return next(iter(_listed(path, max_results=1)), None) is not None


def size(path: str) -> int:
    """Return the size of an object in bytes."""
    blob = _blob(path)
    with _named(path):
        blob.reload(retry=_RETRY)
    return blob.size or 0


def open_read(path: str) -> BinaryIO:
    """Open an object for reading; its blocks are fetched on demand."""
    blob = _blob(path)
    with _named(path):
        blob.reload(retry=_RETRY)
        return io.BufferedReader(_Ranges(path, blob.size or 0), _CHUNK_BYTES)


class _Ranges(io.RawIOBase):
    """The bytes of an object, read by range requests."""

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
    """Return the bytes `[start, start + length)` of an object, or all from `start`."""
    if length == 0:
        return b""
    blob = _unchunked(path)
    end = None if length is None else start + length - 1
    with _named(path):
        try:
            return blob.download_as_bytes(start=start or None, end=end, retry=_RETRY, raw_download=True)
        except GoogleAPIError as error:
            # Reading past the end of a file is not an error, and an empty object has no valid range.
            if getattr(error, "code", None) == 416:
                return b""
            raise


def read_end(path: str, length: int) -> bytes | None:
    """Return the last `length` bytes of an object, or `None` if it does not exist. Sends one request."""
    # Only a blob without a chunk size supports a range from the end.
    blob = _unchunked(path)
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
    """Download an object as one stream and return whether it exists."""
    with _named(path):
        try:
            _unchunked(path).download_to_filename(str(target), retry=_RETRY, raw_download=True)
        except NotFound:
            target.unlink(missing_ok=True)
            return False
    return True


def list_files(folder: str, suffix: str) -> list[str]:
    """Return the sorted paths of the objects directly under a name that end in `suffix`."""
    bucket = folder.removeprefix("gs://").partition("/")[0]
    with _named(folder):
        names = [blob.name for blob in _listed(folder, delimiter="/")]
    return sorted(f"gs://{bucket}/{name}" for name in names if name.endswith(suffix) and not name.endswith("/"))


def list_versions(folder: str) -> list[tuple[str, str]]:
    """Return sorted (path, generation) pairs of the objects directly under a name."""
    bucket = folder.removeprefix("gs://").partition("/")[0]
    with _named(folder):
        blobs = [(blob.name, blob.generation) for blob in _listed(folder, delimiter="/")]
    return sorted((f"gs://{bucket}/{name}", str(version)) for name, version in blobs if not name.endswith("/"))


def list_folders(folder: str) -> list[str]:
    """Return the sorted names directly under a name that have objects under them."""
    with _named(folder):
        listing = _listed(folder, delimiter="/")
        # The client fills in the prefixes as it iterates over the pages.
        for _ in listing:
            pass
        # `list_blobs` adds this attribute to the iterator that it returns.
        prefixes = listing.prefixes  # pyright: ignore[reportAttributeAccessIssue]
        return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes)


def _listed(folder: str, **arguments):
    bucket, _, name = folder.removeprefix("gs://").partition("/")
    prefix = f"{name.rstrip('/')}/" if name.strip("/") else None
    return _client(os.getpid()).list_blobs(bucket, prefix=prefix, retry=_RETRY, **arguments)


def _generation(blob: storage.Blob) -> int:
    """Return the current generation of an object, 0 if it does not exist."""
    try:
        blob.reload(retry=_RETRY)
    except NotFound:
        return 0
    return blob.generation or 0


@contextlib.contextmanager
def create(path: str) -> Iterator[IO[bytes]]:
    """Write an object, which is uploaded when the block ends and becomes visible atomically."""
    blob = _blob(path)
    with _named(path):
        expected = _generation(blob)
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as file:
        yield file
        with _named(path):
            _upload(blob, file, expected)


@contextlib.contextmanager
def put(path: str) -> Iterator[IO[bytes]]:
    """Write an object without checking for an existing one: a single, idempotent request."""
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as file:
        yield file
        length = file.seek(0, io.SEEK_END)
        with _named(path):
            _blob(path).upload_from_file(file, rewind=True, size=length, retry=_RETRY, checksum="crc32c")


@contextlib.contextmanager
def create_new(path: str) -> Iterator[IO[bytes]]:
    """Write a new object in one request. Raises `ExistsError` if the object exists when the block ends."""
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as file:
        yield file
        with _named(path):
            try:
                _upload(_blob(path), file, 0)
            except PreconditionFailed:
                raise ExistsError(f"{path!r} already exists") from None


def update(path: str, change: Callable[[bytes | None], bytes]) -> None:
    """Replace an object's content with `change(content)`; retry if another writer was faster."""
    while True:
        blob = _unchunked(path)
        with _named(path):
            try:
                content = blob.download_as_bytes(retry=_RETRY, raw_download=True)
                expected = blob.generation or 0
            except NotFound:
                content, expected = None, 0
            changed = change(content)
            with contextlib.suppress(PreconditionFailed):
                _upload(_blob(path), io.BytesIO(changed), expected)
                return
        time.sleep(random.uniform(0, _POLL_SECONDS))


def _upload(blob: storage.Blob, file: IO[bytes], expected: int) -> int:
    """Upload a file over generation `expected` (0: no object) and return the new generation."""
    length = file.seek(0, io.SEEK_END)

    def upload() -> None:
        blob.upload_from_file(
            file, rewind=True, size=length, if_generation_match=expected, retry=_RETRY, checksum="crc32c"
        )

    return _once(blob, upload)


def _once(blob: storage.Blob, request: Callable[[], None]) -> int:
    """Send a conditional write once and return the generation that it created.

    If the response of a successful request is lost, the retry fails its precondition; a random mark in the metadata
    identifies the object as the one that this call wrote.
    """
    mark = uuid.uuid4().hex
    blob.metadata = {"writer": mark}
    try:
        request()
    except PreconditionFailed:
        # Fetched as a new blob: the present one would request the generation that it knows.
        stored = blob.bucket.get_blob(blob.name, retry=_RETRY)
        if stored is None or (stored.metadata or {}).get("writer") != mark:
            raise
        return stored.generation or 0
    return blob.generation or 0


def append_line(path: str, line: bytes) -> None:
    """Compose an object of its present content and the line; the object must have a single writer."""
    blob = _blob(path)
    with _named(path):
        expected = _generation(_blob(path))
        if not expected:
            _upload(blob, io.BytesIO(line + b"\n"), 0)
            return
        piece = f"{path}.{uuid.uuid4().hex[:12]}"
        _upload(_blob(piece), io.BytesIO(line + b"\n"), 0)
        parts = [_blob(path), _blob(piece)]
        # `compose` accepts any `Retry`; its annotation names only the conditional one.
        _once(
            blob,
            lambda: blob.compose(parts, if_generation_match=expected, retry=_RETRY),  # pyright: ignore[reportArgumentType]
        )
    remove(piece)


def remove(path: str) -> None:
    """Delete an object if it exists."""
    with _named(path), contextlib.suppress(NotFound):
        _blob(path).delete(retry=_RETRY)


def remove_folder(folder: str) -> None:
    """Do nothing: a bucket has no folders."""
    del folder


def remove_temporary_files(folder: str) -> int:
    """Return 0: unfinished objects are never visible in a bucket."""
    del folder
    return 0


def make_folder(folder: str) -> None:
    """Check that the bucket exists and is writable by creating an empty object."""
    probe = f"{folder.rstrip('/')}/.write-probe-{uuid.uuid4().hex[:8]}"
    with create(probe) as file:
        file.write(b"")
    remove(probe)


@contextlib.contextmanager
def exclusive(path: str, watch: bool) -> Iterator[None]:
    """Hold a lease for the duration of the block. Raises `BusyError` if another job holds it.

    With `watch`, an existing lease is polled until it expires or is renewed.
    """
    lease = _Lease(path)
    lease.acquire(watch)
    ended = threading.Event()
    thread = threading.Thread(target=lease.renew_until, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        lease.release()


class _Lease:
    """An object with the owner of a lock and the time when the lock expires."""

    def __init__(self, path: str):
        self.path, self.generation = path, 0
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def acquire(self, watch: bool) -> None:
        """Write the lease unless another one is still valid. Raises `BusyError` if one is."""
        with _named(self.path):
            first = None
            while expected := _generation(_blob(self.path)):
                try:
                    current = json.loads(_blob(self.path).download_as_bytes(retry=_RETRY))
                except NotFound:
                    continue
                if current["until"] <= time.time():
                    break
                first = first or current["until"]
                if not watch or current["until"] != first:
                    raise self._busy(current["owner"])
                time.sleep(_POLL_SECONDS)
            try:
                self._write(expected)
            except PreconditionFailed:
                raise self._busy("that started at the same moment") from None

    def _busy(self, owner: str) -> BusyError:
        folder = self.path.rpartition("/")[0]
        return BusyError(f"another job ({owner}) is writing to {folder!r}; wait for it or choose another folder")

    def _write(self, expected: int) -> None:
        content = json.dumps({"owner": self.owner, "until": time.time() + LEASE_SECONDS}).encode()
        self.generation = _upload(_blob(self.path), io.BytesIO(content), expected)

    def renew_until(self, ended: threading.Event) -> None:
        """Renew the lease until the job ends; a failed renewal is retried after the next interval."""
        while not ended.wait(_RENEW_SECONDS):
            with contextlib.suppress(GoogleAPIError, RequestException):
                self._write(self.generation)

    def release(self) -> None:
        """Delete the lease if this process still owns it."""
        with contextlib.suppress(GoogleAPIError, RequestException):
            _blob(self.path).delete(if_generation_match=self.generation, retry=_RETRY)
