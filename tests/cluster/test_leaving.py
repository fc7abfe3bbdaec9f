"""A signal waits until trials are saved, and no longer: not where Ray tells nothing of them, nor for a second one."""

import signal
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from raymix.corpus.on_ray import own_signals
from raymix.on_ray import leaving
from raymix.on_ray.trial import ProxyTrial
from raymix.proxy.checkpoint import Interrupted


def test_where_ray_does_not_tell_of_workers_a_signal_ends_the_run_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr("ray._private.state.actors")  # private, and may move
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(gcs_address="nowhere"))
    worker = SimpleNamespace(_actor_id=b"\x01")
    trial = SimpleNamespace(status="RUNNING", temporary_state=SimpleNamespace(ray_actor=worker))
    run = leaving.Leaving()
    with pytest.raises(KeyboardInterrupt), run.listening():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            run.on_step_begin(1, [trial])
    assert "the trials under way go on from their last checkpoints, not saved now" in caplog.text


def test_a_second_signal_does_not_wait_for_tune() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), leaving.Leaving().listening():  # noqa: PT012
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pytest.fail("the first is kept until Tune's next turn")
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second was kept too")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_worker_that_waits_for_its_next_step_is_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = ["a worker hears a signal when Python runs in it"]
    worker = SimpleNamespace(_actor_id=b"\x01", train=SimpleNamespace(remote=alive.clear))
    monkeypatch.setattr(leaving, "tell", list)
    monkeypatch.setattr(leaving, "process_of", lambda _: ("node", 1) if alive else None)
    leaving.save_all([worker], seconds=1.0)
    assert not alive


def test_a_worker_told_to_go_while_it_measures_saves_and_ends_by_itself() -> None:
    def rows(trial: Any) -> Iterator[dict[str, Any]]:
        yield {"n_tokens": 1}
        trial._told_to_go(signal.SIGTERM, None)
        yield {"n_tokens": 2}
        raise Interrupted("saved")

    trial = at_work(rows)
    assert trial.step() == {"n_tokens": 1}
    with pytest.raises(SystemExit):
        trial.step()


def test_a_worker_told_to_go_at_its_end_gives_the_last_row_and_ends_when_asked_for_more() -> None:
    def rows(trial: Any) -> Iterator[dict[str, Any]]:
        trial._told_to_go(signal.SIGTERM, None)
        yield {"n_tokens": 1, "done": True}

    trial = at_work(rows)
    assert trial.step()["done"]
    with pytest.raises(SystemExit):
        trial.step()


def test_a_signal_while_ray_starts_does_what_it_does_at_any_time() -> None:
    def ours(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, ours)
    try:
        with pytest.raises(KeyboardInterrupt), own_signals():  # noqa: PT012
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))  # as Ray does on its way
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def at_work(rows: Any) -> Any:
    """A trial in its worker that gives these rows."""
    trial = ProxyTrial.__new__(ProxyTrial)
    trial._checkpoints = SimpleNamespace(stopping=False, trouble="")
    trial._results, trial._patience, trial._retry = rows(trial), 60.0, 0
    return trial
