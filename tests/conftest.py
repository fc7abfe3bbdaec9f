"""Every run of the tests sees the same examples, from fixed seeds, and may be begun with nohup."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")


@pytest.fixture
def terminal() -> Iterator[None]:
    """What is started hears that a terminal closes (SIGHUP), though tests begun with nohup do not."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
