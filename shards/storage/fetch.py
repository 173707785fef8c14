"""Download files once and cache them: the published vocabulary, timing model and checkpoints.

A download goes to a partial file, which the next call continues after a broken connection; it gets its name only after
its size and digest agree. `gs://` addresses of public buckets are read over https. Pooch neither continues a partial
download nor checks a stated size, and `huggingface_hub` downloads from its own hub only, so neither replaces this
module.
"""

from __future__ import annotations

import hashlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shards.storage.errors import UserError

_CHUNK = 1 << 20
_ATTEMPTS = 4


class FetchError(UserError):
    """A file cannot be downloaded or is not the published one; the message names it, the reason and what to do."""


@dataclass(frozen=True)
class RemoteFile:
    """A file at a web address that is identified by its content.

    `sha256` may be empty where the publisher states none; then only `size`, if given, is checked, and the digest of the
    downloaded file is recorded beside it as `NAME.sha256`.
    """

    name: str
    address: str
    sha256: str = ""
    size: int | None = None


TOKENIZER = RemoteFile(
    "lowercase_encoder.json",
    "https://raw.githubusercontent.com/rowanz/merlot_reserve/d22c50f53172813687b795e1269634570308a5c6/mreserve/lowercase_encoder.json",
    "afc3b00a1296a356947abf63acd6b6641983accb4fc38bf9deaf66180db83918",
    917_246,
)
TIMING_MODEL = RemoteFile(
    "model_params.json",
    "https://raw.githubusercontent.com/rowanz/merlot_reserve/d22c50f53172813687b795e1269634570308a5c6/data/offset_model/model_params.json",
    "b957945d42df3b81948b8e5798b3aabf0ad2aa44551383cc1eb2279a22cf36c7",
    37_949,
)


def cache_folder() -> Path:
    """Return the folder of cached downloads: `$RESERVOIR_CACHE`, else `reservoir` in the user's cache folder."""
    return Path(os.environ.get("RESERVOIR_CACHE") or _user_cache() / "reservoir")


def programs_folder() -> Path:
    """Return the folder of compiled programs: `reservoir-programs` in the user's cache folder, apart from downloads."""
    return _user_cache() / "reservoir-programs"


def _user_cache() -> Path:
    """Return the user's cache folder: `$XDG_CACHE_HOME` if it is absolute, else `~/.cache` (XDG Base Directory 0.8)."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given) if Path(given).is_absolute() else Path.home() / ".cache"


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(
    remote: RemoteFile,
    folder: Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    flag: str = "",
) -> Path:
    """Return the local path of `remote`, after downloading it into `folder` (default: the cache) if it is missing.

    `progress(done, total)` is called with bytes. `flag` names the command-line flag that accepts a file downloaded by
    hand, for the error message. Raises `FetchError` when the file cannot be downloaded or is not the published one.
    """
    place = (folder or cache_folder()) / remote.name
    if place.is_file():
        _verify(remote, place, place)
        return place
    way_out = f"; download it by hand from {remote.address} to {place}" + (f" or pass it with {flag}" if flag else "")
    partial = place.with_name(f".partial-{place.name}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _download(_https(remote.address), partial, progress)
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise FetchError(f"cannot download {remote.name}: {reason}{way_out}") from error
    try:
        _verify(remote, partial, place)
    except FetchError as error:
        partial.unlink()
        raise FetchError(f"{error}{way_out}") from None
    if not remote.sha256:
        record = f"{sha256_of(partial)}  {place.name}  {partial.stat().st_size}\n"
        place.with_name(f"{place.name}.sha256").write_text(record)
    partial.replace(place)
    return place


def _https(address: str) -> str:
    if address.startswith("gs://"):
        return f"https://storage.googleapis.com/{address.removeprefix('gs://')}"
    return address


def _verify(remote: RemoteFile, file: Path, place: Path) -> None:
    recorded = place.with_name(f"{place.name}.sha256")
    # Digest, name and size of the download.
    parts = recorded.read_text().split() if recorded.is_file() else []
    size = remote.size if remote.size is not None else int(parts[-1]) if len(parts) > 2 else None
    if size is not None and file.stat().st_size != size:
        raise FetchError(f"{place} has {file.stat().st_size} bytes where {remote.name} has {size}")
    expected = remote.sha256 or (parts[0] if parts else "")
    if expected and sha256_of(file) != expected:
        raise FetchError(f"{place} is not the published {remote.name}: its SHA-256 is not {expected}")


def _download(address: str, partial: Path, progress: Callable[[int, int | None], None] | None) -> None:
    """Download to `partial`, continuing an earlier download; retry broken connections and busy servers."""
    for attempt in range(_ATTEMPTS):
        last = attempt + 1 == _ATTEMPTS
        try:
            _download_once(address, partial, progress)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the partial file is not a prefix of the published one
                partial.unlink(missing_ok=True)
            elif error.code not in (408, 429, 500, 502, 503, 504):
                raise
            if last:
                raise
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            if last or (isinstance(getattr(error, "reason", None), OSError) and attempt):
                raise
        time.sleep(0.5 * 2**attempt)


def _download_once(address: str, partial: Path, progress: Callable[[int, int | None], None] | None) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=60) as response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        total = int(length) + (start if resumed else 0) if length else None
        done = start if resumed else 0
        with partial.open("ab" if resumed else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")
