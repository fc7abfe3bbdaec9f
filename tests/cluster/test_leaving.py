"""A signal waits until the trials are saved, and no longer: not where Ray tells nothing of them, nor for a second one."""

import signal
from types import SimpleNamespace

import pytest

from raymix.on_ray import leaving


def test_where_ray_does_not_tell_of_workers_a_signal_ends_the_run_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr("ray._private.state.actors")  # private, and may move
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(gcs_address="nowhere"))
    worker = SimpleNamespace(_actor_id=b"\x01")
    trial = SimpleNamespace(status="RUNNING", temporary_state=SimpleNamespace(ray_actor=worker))
    run = leaving.Leaving()
    with pytest.raises(KeyboardInterrupt), run.listening():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            run.on_step_begin(1, [trial])
    assert "the trials under way go on from their last checkpoints, not saved now" in caplog.text


def test_a_second_signal_does_not_wait_for_tune() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), leaving.Leaving().listening():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pytest.fail("the first is kept until Tune's next turn")
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second was kept too")
    assert signal.getsignal(signal.SIGINT) is before
