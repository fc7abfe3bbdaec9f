"""A head that goes away while a study runs is said, with what to do; one that answers is not."""

import socket
import threading

import pytest

from raymix.on_ray.head import LOOK_SECONDS, MISSED, watched


def test_a_head_that_is_gone_is_said_once_with_the_command_that_continues() -> None:
    said: list[str] = []
    heard = threading.Event()

    def say(words: str) -> None:
        said.append(words)
        heard.set()

    server = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{server.getsockname()[1]}"
    with watched(address, "raymix resume runs/x", every=0.01, say=say):
        server.accept()[0].close()  # it was looked for, and found
        assert not said
        server.close()
        assert heard.wait(60)
    (words,) = said
    assert address in words and "raymix resume runs/x" in words


def test_a_head_whose_machine_is_gone_is_said_within_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    heard = threading.Event()

    def nowhere(address: tuple[str, int], timeout: float) -> None:
        waited.append(timeout)
        raise TimeoutError

    monkeypatch.setattr("socket.create_connection", nowhere)
    with watched("10.0.0.1:6379", "raymix resume runs/x", every=0.01, say=lambda _: heard.set()):
        assert heard.wait(60)
    assert MISSED * LOOK_SECONDS + sum(waited) <= 30
