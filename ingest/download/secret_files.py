"""Cookies and the proxy's address, which a job knows by name only: a file, an object in a bucket, or a version of a
secret in Google's Secret Manager.

Workers read them into memory; nothing is written to a disk, and no message shows their content.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from shards import command_line
from shards.storage import filesystem
from shards.storage.errors import UsageError

_SECRET = re.compile(r"projects/[^/]+/secrets/[^/]+/versions/[^/]+")
_COOKIES_HEADER = re.compile("#( Netscape)? HTTP Cookie File")
_COOKIE_FIELDS = 7
_ENDPOINT_VARIABLE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"
"""Another address of Secret Manager; gcloud knows the same variable. One with http:// is used without credentials."""


def is_secret(name: str) -> bool:
    """Whether a name is one of Secret Manager."""
    return _SECRET.fullmatch(name) is not None


def check(flag: str, name: str | None, workers_elsewhere: bool) -> None:
    """Raise `UsageError` for a local file that is not there, or that workers on other machines cannot read."""
    if name is None or is_secret(name) or filesystem.is_remote(name):
        return
    if workers_elsewhere:
        raise UsageError(
            f"{flag} {name!r} is a file of this machine, which the workers cannot read; put it into a bucket, gs://...,"
            " or into Secret Manager, projects/P/secrets/S/versions/V"
        )
    command_line.require_file(flag, name)


def read_cookies(name: str) -> str:
    """The text of a cookies.txt. Raises `StorageError` if it cannot be read or yt-dlp could not use it.

    yt-dlp itself would print the lines that it cannot use.
    """
    text = _read(name)
    lines = text.splitlines()
    if not lines or not _COOKIES_HEADER.match(lines[0]):
        raise filesystem.StorageError(f"{name!r} is no cookies.txt: it must start with '# Netscape HTTP Cookie File'")
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (line.startswith("#") and not line.startswith("#HttpOnly_")):
            continue
        fields = line.split("\t")
        if len(fields) != _COOKIE_FIELDS or not re.fullmatch(r"(\d+(\.\d+)?)?", fields[4]):
            raise filesystem.StorageError(
                f"line {number} of the cookies in {name!r} must have {_COOKIE_FIELDS} fields, separated by tabs,"
                " with a time in seconds as the fifth"
            )
    return text


def read_proxy(name: str) -> str:
    """The address of a proxy. Raises `StorageError` if it cannot be read or is not an address."""
    address = _read(name).strip()
    if not _is_address(address):
        raise filesystem.StorageError(f"{name!r} must hold the proxy's address: scheme://user:password@host:port")
    return address


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return len(text.split()) == 1 and bool(parts.scheme and parts.hostname) and parts.port != 0
    except ValueError:
        # Of a port or an address of IPv6; the error's own text would show it.
        return False


def _read(name: str) -> str:
    content = _secret(name) if is_secret(name) else filesystem.read_bytes(name)
    try:
        return content.decode()
    except UnicodeDecodeError:
        # The decoder's own message would show a part of it.
        raise filesystem.StorageError(f"{name!r} is not UTF-8 text") from None


def _secret(name: str) -> bytes:
    # The libraries take a second to import, which jobs without such a secret should not pay.
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.secretmanager import SecretManagerServiceClient

    endpoint = os.environ.get(_ENDPOINT_VARIABLE, "").rstrip("/")
    credentials = AnonymousCredentials() if endpoint.startswith("http://") else None
    options = {"api_endpoint": endpoint} if endpoint else None
    try:
        # REST: a worker process may have been forked, which gRPC does not survive.
        client = SecretManagerServiceClient(credentials=credentials, transport="rest", client_options=options)
        return client.access_secret_version(name=name, timeout=60).payload.data
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        said = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise filesystem.StorageError(f"cannot read the secret {name!r}: {said}") from error
