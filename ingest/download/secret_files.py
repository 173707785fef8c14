"""Read cookies and proxy addresses from files, objects in buckets, or secrets in Google's Secret Manager.

A job refers to them by name only. Workers read them into memory; nothing is written to a disk, and no message contains
their content.
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
"""Overrides the endpoint of Secret Manager, as for gcloud. An endpoint with http:// is used without credentials."""


def is_secret(name: str) -> bool:
    """Return whether a name refers to Secret Manager."""
    return _SECRET.fullmatch(name) is not None


def check(flag: str, name: str | None, workers_elsewhere: bool) -> None:
    """Raise `UsageError` for a local file that does not exist, or that workers on other machines cannot read."""
    if name is None or is_secret(name) or filesystem.is_remote(name):
        return
    if workers_elsewhere:
        raise UsageError(
            f"{flag} {name!r} is a file of this machine, which the workers cannot read; put it into a bucket, gs://...,"
            " or into Secret Manager, projects/P/secrets/S/versions/V"
        )
    command_line.require_file(flag, name)


def read_cookies(name: str) -> str:
    """Return the text of a cookies.txt. Raises `StorageError` if it cannot be read or is not valid.

    It is checked here because yt-dlp prints the lines that it cannot parse.
    """
    text = _read(name)
    lines = text.splitlines()
    if not lines or not _COOKIES_HEADER.match(lines[0]):
        raise filesystem.StorageError(
            f"{name!r} is not a cookies.txt: it must start with '# Netscape HTTP Cookie File'"
        )
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
    """Return the URL of a proxy. Raises `StorageError` if it cannot be read or is not a URL."""
    address = _read(name).strip()
    if not _is_address(address):
        raise filesystem.StorageError(f"{name!r} must contain the proxy's address: scheme://user:password@host:port")
    return address


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return len(text.split()) == 1 and bool(parts.scheme and parts.hostname) and parts.port != 0
    except ValueError:
        # An invalid port or IPv6 address, which the text of this error contains.
        return False


def _read(name: str) -> str:
    content = _secret(name) if is_secret(name) else filesystem.read_bytes(name)
    try:
        return content.decode()
    except UnicodeDecodeError:
        # The message of the decoder contains a part of it.
        raise filesystem.StorageError(f"{name!r} is not UTF-8 text") from None


def _secret(name: str) -> bytes:
    # The libraries take a second to import; jobs without such a secret do not need them.
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.secretmanager import SecretManagerServiceClient

    endpoint = os.environ.get(_ENDPOINT_VARIABLE, "").rstrip("/")
    credentials = AnonymousCredentials() if endpoint.startswith("http://") else None
    options = {"api_endpoint": endpoint} if endpoint else None
    try:
        # REST, because gRPC does not support forked worker processes.
        client = SecretManagerServiceClient(credentials=credentials, transport="rest", client_options=options)
        return client.access_secret_version(name=name, timeout=60).payload.data
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise filesystem.StorageError(f"cannot read the secret {name!r}: {reason}") from error
