"""Tune's real controller over simulated workers: its actor manager is a heap of timers, all else as shipped."""

import heapq
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import numpy as np
import ray
from ray import tune
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.tune.execution import tune_controller

from raymix.search import MixtureSearch
from raymix.study.ledger import Ledger
from raymix.study.trial import Trial

DOMAINS = tuple(f"domain{k}" for k in range(5))
IDLE_SECONDS = 0.02  # the longest Tune's loop is held when nothing happens
CHECKPOINTS = 2


class Idle(tune.Trainable):  # type: ignore[misc]
    """Never constructed: Tune only needs a class."""


def run_tune(workers: "Workers", folder: Path) -> None:
    """The study that `workers.ledger` has proposed, on simulated slots, through `tune.Tuner.fit`."""
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}  # as raymix.on_ray.run does
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    actors: list[SimulatedActors] = []

    def simulated(resource_manager: Any) -> SimulatedActors:
        actors.append(SimulatedActors(workers))
        return actors[-1]

    try:
        with mock.patch.object(tune_controller, "RayActorManager", simulated):
            tune.Tuner(
                tune.with_resources(Idle, {"cpu": 0, "gpu": 1}),
                tune_config=tune.TuneConfig(
                    search_alg=MixtureSearch(ledger=workers.ledger, rounds=True),
                    num_samples=-1,
                    max_concurrent_trials=workers.slots,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="trials",
                    storage_path=str(folder / "tune"),
                    verbose=0,
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            ).fit()
    finally:
        ray.shutdown()


class Handle:
    """Stands for an actor handle, of which Tune asks where it runs."""

    def __init__(self) -> None:
        self.get_auto_filled_metrics = self

    def remote(self, **details: Any) -> dict[str, Any]:
        """Nowhere."""
        return {"hostname": "simulated", "pid": 0, "node_ip": "127.0.0.1"}


class SimulatedActors:
    """What TuneController asks of RayActorManager, answered by timers."""

    def __init__(self, workers: "Workers") -> None:
        self._workers, self._timer, self._patience = workers, Timer(), IDLE_SECONDS
        self._live_actors_to_ray_actors_resources: dict[TrackedActor, tuple[Any, Any]] = {}
        self._pending: list[TrackedActor] = []
        self._pace: dict[TrackedActor, tuple[Any, float, int]] = {}
        self.num_actor_tasks = 0

    def next(self, timeout: float | None = None) -> bool:
        """Handle one event."""
        return self._timer.due(min(timeout or self._patience, self._patience))

    def add_actor(
        self, cls: Any, kwargs: Any, resource_request: Any, on_start: Any, on_stop: Any, on_error: Any
    ) -> Any:
        """An actor starts at once where a slot is free."""
        actor = TrackedActor(uuid4().int, on_start=on_start, on_stop=on_stop, on_error=on_error)
        self._pace[actor] = (kwargs["config"], 0.0, 0)
        self._pending.append(actor)
        self._timer.at(time.monotonic(), self._start_some)
        return actor

    def _start_some(self) -> None:
        while self._pending and len(self._live_actors_to_ray_actors_resources) < self._workers.slots:
            actor = self._pending.pop(0)
            self._live_actors_to_ray_actors_resources[actor] = (Handle(), None)
            self._workers.first_start = self._workers.first_start or time.monotonic()
            actor._on_start(actor)

    def schedule_actor_task(
        self, tracked_actor: Any, method_name: str, args: Any = None, kwargs: Any = None,
        on_result: Callable[..., None] | None = None, on_error: Any = None, _return_future: bool = False,
    ) -> Any:  # fmt: skip
        """train: a row after its share of the trial's time; reset: the next trial; stop: nothing."""
        if method_name == "reset":
            self._pace[tracked_actor] = (args[0], 0.0, 0)
            self._answer(time.monotonic(), tracked_actor, on_result, True)
        if method_name == "train":
            config, duration, done = self._pace[tracked_actor]
            duration = duration or self._workers.duration()
            self._pace[tracked_actor] = (config, duration, done + 1)
            trial = self._workers.ledger.trials[config["trial_id"]]
            result = self._workers.losses(trial, (done + 1) / CHECKPOINTS)
            result |= {"done": done + 1 == CHECKPOINTS, "training_iteration": done + 1, "time_total_s": duration}
            result |= {"status": "done" if result["done"] else "checkpoint", "time_this_iter_s": duration / CHECKPOINTS}
            self._answer(time.monotonic() + duration / CHECKPOINTS, tracked_actor, on_result, result)
        return None

    def _answer(self, when: float, actor: Any, on_result: Callable[..., None] | None, result: Any) -> None:
        self.num_actor_tasks += 1

        def act() -> None:
            self.num_actor_tasks -= 1
            if isinstance(result, dict) and result["done"]:
                self._workers.last_end = time.monotonic()
            if on_result is not None:
                on_result(actor, result)

        self._timer.at(when, act)

    def remove_actor(self, tracked_actor: Any, kill: bool = False, stop_future: Any = None) -> bool:
        """The slot is free again."""
        if tracked_actor in self._pending:
            self._pending.remove(tracked_actor)
            return False
        self._live_actors_to_ray_actors_resources.pop(tracked_actor, None)

        def stopped() -> None:
            if tracked_actor._on_stop is not None:  # Tune forgets an actor it no longer needs to hear of
                tracked_actor._on_stop(tracked_actor)
            self._start_some()

        self._timer.at(time.monotonic(), stopped)
        return True

    def is_actor_started(self, tracked_actor: Any) -> bool:
        """Whether it has a slot."""
        return tracked_actor in self._live_actors_to_ray_actors_resources

    def is_actor_failed(self, tracked_actor: Any) -> bool:
        """Simulated workers do not fail."""
        return False

    def clear_actor_task_futures(self, tracked_actor: Any) -> None:
        """A task is over before the next begins."""

    def cleanup(self) -> None:
        """Nothing is held."""

    def get_live_actors_resources(self) -> dict[str, float]:
        """Slots in use."""
        return {"GPU": float(self.num_live_actors)}

    @property
    def num_live_actors(self) -> int:
        """Slots in use."""
        return len(self._live_actors_to_ray_actors_resources)

    @property
    def num_pending_actors(self) -> int:
        """Actors without a slot."""
        return len(self._pending)

    @property
    def num_total_actors(self) -> int:
        """Both."""
        return self.num_live_actors + self.num_pending_actors


class Workers:
    """Simulated slots under Tune's real controller."""

    def __init__(self, slots: int, seconds: float, jitter: float, ledger: Ledger) -> None:
        self.slots, self.seconds, self.ledger = slots, seconds, ledger
        self.first_start = self.last_end = 0.0
        self.durations: list[float] = []
        self._jitter = jitter
        self._rng = np.random.default_rng(0)

    def duration(self) -> float:
        """How long the next trial takes: uniform within the jitter."""
        value = self.seconds * float(self._rng.uniform(1 - self._jitter, 1 + self._jitter))
        self.durations.append(value)
        return value

    def losses(self, trial: Trial, fraction: float) -> dict[str, Any]:
        """A row at a fraction of the trial's tokens."""
        mix_K = np.asarray([trial.mixture[name] for name in DOMAINS])
        loss_M = 2.0 + (mix_K + 0.05) ** -0.2 * (0.5 + 0.5 / fraction**0.1)
        row = {f"loss/{name}": float(loss) for name, loss in zip(DOMAINS, loss_M, strict=True)}
        return row | {"n_tokens": trial.n_tokens * fraction}


class Timer:
    """Things to happen later, in order of time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do it then."""
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, action))

    def due(self, patience: float) -> bool:
        """Wait for the next action, at most `patience` seconds, and do it; whether there was one."""
        left = (self._heap[0][0] - time.monotonic()) if self._heap else patience
        if left > 0:
            time.sleep(min(left, patience))
        if not self._heap or self._heap[0][0] > time.monotonic():
            return False
        heapq.heappop(self._heap)[2]()
        return True
