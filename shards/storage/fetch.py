"""Files that are downloaded once and kept: the published vocabulary, timing model and checkpoints.

A download goes to a partial file that a broken connection leaves behind and the next call continues; it gets its name
only after its size and digest agree. `gs://` addresses of public buckets are read over https.
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
    """A file could not be had; the message says which, why, and what to do."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on the net that is known by its content.

    `sha256` may be empty where the publisher states none; then `size` (or nothing) is checked and the digest that
    arrived is recorded beside the file as `NAME.sha256`.
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
    """Return where downloads are kept: `$RESERVOIR_CACHE`, else `reservoir` in the user's cache folder."""
    return Path(os.environ.get("RESERVOIR_CACHE") or _user_cache() / "reservoir")


def programs_folder() -> Path:
    """Return where compiled programs are kept: `reservoir-programs` in the user's cache folder, never a download's."""
    return _user_cache() / "reservoir-programs"


def _user_cache() -> Path:
    """The user's cache folder: `$XDG_CACHE_HOME` if it is absolute, else `~/.cache` (XDG Base Directory 0.8)."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given) if Path(given).is_absolute() else Path.home() / ".cache"


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(
    remote: RemoteFile,
    folder: Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    flag: str = "",
) -> Path:
    """The local path of `remote`, downloading it into `folder` (default: the cache) if it is not there yet.

    `progress(done, total)` is called with bytes. `flag` names the command-line flag that takes the file by hand, for
    the error message. Raises `FetchError` when the file cannot be downloaded or is not the one that was published.
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
    # Digest, name and size, as they were when the file arrived.
    held = recorded.read_text().split() if recorded.is_file() else []
    size = remote.size if remote.size is not None else int(held[-1]) if len(held) > 2 else None
    if size is not None and file.stat().st_size != size:
        raise FetchError(f"{place} has {file.stat().st_size} bytes where {remote.name} has {size}")
    expected = remote.sha256 or (held[0] if held else "")
    if expected and sha256_of(file) != expected:
        raise FetchError(f"{place} is not the published {remote.name}: its SHA-256 is not {expected}")


def _download(address: str, partial: Path, progress: Callable[[int, int | None], None] | None) -> None:
    """Download to `partial`, continuing what is there; retries broken connections and busy servers."""
    for attempt in range(_ATTEMPTS):
        try:
            _download_once(address, partial, progress)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # what we hold is not a prefix of what they have
                partial.unlink(missing_ok=True)
            elif error.code not in (408, 429, 500, 502, 503, 504):
                raise
            last = error
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            if isinstance(getattr(error, "reason", None), OSError) and attempt:
                raise
            last = error
        if attempt + 1 < _ATTEMPTS:
            time.sleep(0.5 * 2**attempt)
    raise last


def _download_once(address: str, partial: Path, progress: Callable[[int, int | None], None] | None) -> None:
    held = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={held}-"} if held else {})
    with urllib.request.urlopen(request, timeout=60) as response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        total = int(length) + (held if resumed else 0) if length else None
        done = held if resumed else 0
        with partial.open("ab" if resumed else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")
