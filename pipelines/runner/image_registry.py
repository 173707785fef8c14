"""Read the environment variables of a container image from its registry, without pulling it.

Two or three small requests of the registry's HTTP API (OCI distribution specification 1.1) are sent: for the manifest,
for the manifest of linux/amd64 if the image is built for several platforms, and for the image's configuration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import requests

from shards.storage.errors import UserError

_SECONDS = 10.0
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_PLATFORM = {"os": "linux", "architecture": "amd64"}
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class RegistryError(UserError):
    """An image's variables could not be read from its registry; the message states the reason."""


@dataclass(frozen=True)
class Reference:
    """An image: the host of its registry, its repository there, and a tag or digest."""

    host: str
    repository: str
    version: str

    @classmethod
    def parse(cls, image: str) -> Reference:
        """Parse a reference in Docker's notation; the default host is Docker Hub, the default tag `latest`."""
        host, slash, path = image.partition("/")
        if not slash or not (host == "localhost" or "." in host or ":" in host):
            host, path = "registry-1.docker.io", image if slash else f"library/{image}"
        name, at, digest = path.partition("@")
        repository, _, tag = name.partition(":")
        return cls(host, repository, digest if at else tag or "latest")

    def url(self, kind: str, version: str) -> str:
        """Return the address of a manifest or blob, with plain HTTP for a registry on this machine, as Docker does."""
        scheme = "http" if self.host.partition(":")[0] in ("localhost", "127.0.0.1") else "https"
        return f"{scheme}://{self.host}/v2/{self.repository}/{kind}/{version}"


def environment(image: str) -> dict[str, str]:
    """Return the environment variables that an image sets. Raises `RegistryError` if they cannot be read."""
    reference = Reference.parse(image)
    with requests.Session() as session:
        session.headers["Accept"] = ", ".join(_MANIFESTS)
        _authorize(session, reference)
        manifest = _get(session, reference.url("manifests", reference.version))
        try:
            if "manifests" in manifest:
                matches = [m for m in manifest["manifests"] if _PLATFORM.items() <= m.get("platform", {}).items()]
                if not matches:
                    raise RegistryError("the image is not built for linux/amd64")
                manifest = _get(session, reference.url("manifests", matches[0]["digest"]))
            settings = _get(session, reference.url("blobs", manifest["config"]["digest"])).get("config") or {}
            return dict(variable.split("=", 1) for variable in settings.get("Env") or [])
        except (AttributeError, KeyError, TypeError, ValueError):
            raise RegistryError("the registry's response does not describe an image") from None


def _authorize(session: requests.Session, reference: Reference) -> None:
    """Authorize requests to Google's registries with the credentials that submit the job."""
    if not reference.host.endswith((".pkg.dev", "gcr.io")):
        return
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        credentials.refresh(Request())
    except GoogleAuthError as error:
        raise RegistryError(f"no Google credentials: {error}") from None
    session.headers["Authorization"] = f"Bearer {credentials.token}"


def _get(session: requests.Session, url: str) -> dict[str, Any]:
    try:
        response = session.get(url, timeout=_SECONDS)
        if response.status_code == requests.codes.unauthorized and "Authorization" not in session.headers:
            session.headers["Authorization"] = f"Bearer {_anonymous_token(session, response)}"
            response = session.get(url, timeout=_SECONDS)
        response.raise_for_status()
        content = response.json()
    except requests.RequestException as error:
        raise RegistryError(f"the registry did not answer: {error}") from None
    if not isinstance(content, dict):
        raise RegistryError(f"the registry's response to {url} is not a JSON object")
    return content


def _anonymous_token(session: requests.Session, unauthorized: requests.Response) -> str:
    """Return the token for anonymous access to a public registry, from the address in its challenge."""
    challenge = dict(_CHALLENGE.findall(unauthorized.headers.get("WWW-Authenticate", "")))
    if "realm" not in challenge:
        raise RegistryError(f"the registry requires credentials ({unauthorized.status_code})")
    response = session.get(challenge.pop("realm"), params=challenge, timeout=_SECONDS)
    response.raise_for_status()
    content = response.json()
    return content.get("token") or content.get("access_token") or ""
