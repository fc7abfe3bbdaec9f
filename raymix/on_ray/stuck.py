"""Trials that have their place on a node and get no worker there: taken back, so that the searcher begins them again.

Ray asks a node for a worker once and sets no limit to that wait. Where the answer is lost (seen after another node had
died: an actor pending for minutes beside free cores) the trial would wait for ever, and the study with it.
"""

import logging
import time
from collections.abc import Iterable
from typing import Any

import ray
from ray import tune
from ray._private.state import actors  # the public listing needs a dashboard, which a study on one machine lacks

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 15 * 60.0  # Ray itself gives an environment of packages ten minutes to be installed
LOOK_SECONDS = 30.0


class Unstarted(tune.Callback):  # type: ignore[misc]
    """Kills actors of trials whose node has not begun them after `patience` seconds; their trials then count as lost.

    An actor that runs its setup (and fetches shards, say) has its worker and is left alone.
    """

    def __init__(self, patience: float = PATIENCE_SECONDS, every: float = LOOK_SECONDS) -> None:
        self.patience, self.every = patience, every
        self._next = time.monotonic() + every
        self._since: dict[str, float] = {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called at every turn of Tune's loop."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self.every
        for actor in self.overdue(without_worker(), now):
            log.warning("%s", sentence(actor, self.patience))
            take_back(actor)

    def overdue(self, waiting: Iterable[str], now: float) -> list[str]:
        """Those of the actors `waiting` now that have waited for longer than it may take; each is named once."""
        self._since = {actor: self._since.get(actor, now) for actor in waiting}
        found = [actor for actor, since in self._since.items() if now - since >= self.patience]
        for actor in found:
            self._since[actor] = now
        return found


def sentence(actor: str, patience: float) -> str:
    """What is said of an actor that is taken back."""
    return (
        f"a trial has its place on a node and no worker there after {patience:.0f} s; "
        f"it is taken back and begun again (Ray's actor {actor})"
    )


def without_worker() -> list[str]:
    """Ids of this driver's actors that were asked for and have no process yet."""
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    return [name for name, it in actors(job_id=job, actor_state_name="PENDING_CREATION").items() if not it["Pid"]]


def take_back(actor: str) -> None:
    """Give an actor up, whatever its node says: Tune learns that it died, and the searcher that its trial is lost."""
    ray._private.worker.global_worker.core_worker.kill_actor(ray.ActorID.from_hex(actor), True)
