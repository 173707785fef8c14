"""Emulators and buckets for the tests, and a mark on all of them."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import httpx
import pytest
from emulator import Emulator, Storm

from shards.storage import object_store


@pytest.fixture(scope="session")
def emulator():
    built = Emulator()
    yield built
    built.stop()


@pytest.fixture
def lasting(tmp_path):
    """An emulator whose objects outlive it."""
    built = Emulator(tmp_path / "objects")
    yield built
    built.stop()


@pytest.fixture
def bucket(emulator, monkeypatch):
    """A bucket of the test's own, as a gs:// address; every process that is started from here uses the emulator."""
    yield from _use(emulator, monkeypatch)


@pytest.fixture
def lasting_bucket(lasting, monkeypatch):
    """A bucket in the emulator that can be stopped and started again."""
    yield from _use(lasting, monkeypatch)


def _use(emulator, monkeypatch):
    """A new bucket of an emulator that all clients are pointed at."""
    name = f"b{uuid.uuid4().hex[:12]}"
    httpx.post(f"{emulator.address}/storage/v1/b?project=p", json={"name": name}).raise_for_status()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.address)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    object_store._client.cache_clear()
    yield f"gs://{name}"
    object_store._client.cache_clear()


@pytest.fixture
def storm(emulator, bucket, monkeypatch):
    """The same bucket through a proxy that fails a quarter of all requests."""
    built = Storm(emulator.port, 0.25)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{built.port}")
    object_store._client.cache_clear()
    yield built
    built.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in Path(item.fspath).parents:
            item.add_marker(pytest.mark.gcs)


os.environ.setdefault("NO_GCE_CHECK", "true")
