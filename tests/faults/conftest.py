"""What the faults are injected into."""

import os
from collections.abc import Iterator

import pytest

from raymix.store import lease, retries
from tests.faults.object_store import ENVIRONMENT, ObjectStore


@pytest.fixture(scope="session")
def _server() -> Iterator[ObjectStore]:
    os.environ.update(ENVIRONMENT)  # pyarrow reads them once, from the process
    store = ObjectStore().start()
    yield store
    store.stop()


@pytest.fixture
def s3(_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An S3 server with a bucket; our pauses between attempts are short."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(lease, "PATIENCE", 4.0)
    return _server
