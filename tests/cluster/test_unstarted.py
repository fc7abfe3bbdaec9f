"""A worker that a node never starts, which Ray waits for without a limit: the trial is taken back and begun again."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune.execution.class_cache import _ActorClassCache

from raymix.on_ray.stuck import Unstarted, without_worker
from raymix.study.ledger import Ledger
from tests import worlds
from tests.cluster.test_nodes import tune_study


def test_an_actor_is_overdue_when_it_has_waited_all_the_time() -> None:
    watch = Unstarted(patience=10)
    assert watch.overdue(["a", "b"], 0) == []
    assert watch.overdue(["a"], 9) == []  # b has its worker
    assert watch.overdue(["a", "b"], 10) == ["a"]
    assert watch.overdue(["a", "b"], 12) == []  # said once
    assert watch.overdue(["b"], 20) == ["b"]


@pytest.fixture
def patient_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Ray that, like one whose answer was lost, does not begin a worker again by itself within the test."""
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "0")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _system_config={"worker_register_timeout_seconds": 3600},
    )
    yield
    ray.shutdown()


@pytest.mark.slow
def test_a_trial_whose_worker_never_starts_is_begun_again(
    tmp_path: Path, patient_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = tmp_path / "hung"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nmkdir "{hung}" 2>/dev/null && exec sleep 3600\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)

    def get(cache: Any, trainable: type) -> Any:
        return cache._cache.setdefault(trainable, ray.remote(runtime_env={"py_executable": str(python)})(trainable))

    monkeypatch.setattr(_ActorClassCache, "get", get)
    space = worlds.space(budget={"trials": 2, "per_round": 2})
    events: list[str] = []
    ledger = Ledger(space, seed=0)
    tune_study(
        ledger,
        space,
        tmp_path / "tune",
        on_change=lambda event, trial: events.append(event),
        callbacks=[Unstarted(patience=3, every=0.2)],
    )
    assert hung.is_dir()
    assert "lost" in events
    assert ledger.count("done") == 2


class SlowToSetUp(tune.Trainable):  # type: ignore[misc]
    """Fetches its shards, say."""

    def setup(self, config: dict[str, Any]) -> None:
        (Path(config["folder"]) / "begun").touch()
        while not (Path(config["folder"]) / "go").exists():
            time.sleep(0.05)


@pytest.mark.slow
def test_an_actor_in_its_setup_has_its_worker(tmp_path: Path, patient_ray: None) -> None:
    actor = ray.remote(num_cpus=1)(SlowToSetUp).remote({"folder": str(tmp_path)})
    ready = actor.__ray_ready__.remote()
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    assert without_worker() == []
    (tmp_path / "go").touch()
    ray.get(ready)
