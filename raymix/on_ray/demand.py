"""What trials take of a cluster: by rung, so that the autoscaler sees exactly the nodes that a round needs.

All trials of a round are pending in Tune at once (`max_concurrent_trials` is the round's size), each with a placement
group of its own: that is the autoscaler's demand, for the whole round and never one node at a time; a trial that ends
takes its part of it along, and a round that waits asks for nothing. `ray.autoscaler.sdk.request_resources` would say
the same and is not used: a request outlives a driver that is killed, and machines would be paid for with nobody there.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray import tune
from ray.util import placement_group_table

from raymix.space import SearchSpace, SpaceError

log = logging.getLogger(__name__)

Bundle = dict[str, float]
Default = Mapping[str, float] | Callable[[float], Mapping[str, float]]
"""What a trial takes where its rung does not say, or that by its n_params."""
SAY_SECONDS = 30.0  # between two sentences about what is waited for
STARTING = "starting on nodes that are there: {} (a worker process, its imports, the token shards if a node has none)"
REMEDY = "; where none that may come has, change `resources` in the ladder: the same study continues"
TYPE_SHARE = 0.001  # Ray's way to ask for a GPU type: a little of a resource that only such nodes have


def bundle(space: SearchSpace, n_params: float, default: Default) -> Bundle:
    """What a trial of this size takes, by Ray's names: as its rung says (the nearest in size), else `default`."""
    rung = min(space.ladder, key=lambda rung: abs(math.log(rung.n_params / n_params)))
    if rung.resources is None:
        given = default(n_params) if callable(default) else default
        return {key.upper() if key in ("cpu", "gpu") else key: value for key, value in given.items()}
    asked = rung.resources
    out: Bundle = {"CPU": asked.cpu, "GPU": asked.gpu, **asked.custom}
    if asked.accelerator is not None:
        out[f"accelerator_type:{asked.accelerator}"] = TYPE_SHARE
    return {key: value for key, value in out.items() if value}


def placement(space: SearchSpace, default: Default) -> Any:
    """For `tune.with_resources`: what each trial takes, by its config."""
    if not callable(default) and all(rung.resources is None for rung in space.ladder):
        return dict(default)
    return lambda config: tune.PlacementGroupFactory([bundle(space, config["n_params"], default)])


def check_fits(space: SearchSpace, default: Default) -> None:
    """Refuse a trial that this Ray, which cannot grow, would wait for in vain.

    Raises:
        SpaceError: a rung takes more than there is.
    """
    have = ray.cluster_resources()
    for rung in space.ladder:
        for name, amount in bundle(space, rung.n_params, default).items():
            if amount > have.get(name, 0):
                raise SpaceError(
                    f"ladder: a trial of {rung.n_params:.3g} parameters takes {name} {amount:g}, this machine has "
                    f"{have.get(name, 0):g}; change its resources, or run on a cluster (RAY_ADDRESS, raymix submit)"
                )


class Waiting(tune.Callback):  # type: ignore[misc]
    """Says, now and then, what trials wait for: a node that has what they take, or a worker that starts on theirs.

    While others run, trials that wait for those to end are no news.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self._say = say or log.warning
        self._next = time.monotonic() + SAY_SECONDS

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called at every turn of Tune's loop."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SAY_SECONDS
        waiting = [dict(t.placement_group_factory.bundles[0]) for t in trials if t.status == "PENDING"]
        running = sum(trial.status == "RUNNING" for trial in trials)
        starting = min(max(placed() - running, 0), len(waiting))
        if waiting and (missing(waiting) or starting or not running):
            self._say(waiting_for(waiting, starting))


def placed() -> int:
    """How many trials of this driver have their place on a node."""
    job = ray.get_runtime_context().get_job_id()  # ids of what it makes end in its own
    groups = placement_group_table().items()
    return sum(name.endswith(job) and group["state"] == "CREATED" for name, group in groups)


def missing(bundles: list[Bundle]) -> list[str]:
    """What of these no node that is there has: a resource by name, with the amount where nodes have less of it."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]] if ray.is_initialized() else []
    found: set[str] = set()
    for bundle in bundles:
        if any(all(node.get(name, 0) >= amount for name, amount in bundle.items()) for node in nodes):
            continue
        most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in bundle}
        lacks = [name for name, amount in bundle.items() if most[name] < amount] or list(bundle)  # or never together
        found |= {f"{name} {bundle[name]:g}" if most[name] else name for name in lacks}
    return sorted(found)


def waiting_for(bundles: list[Bundle], starting: int = 0) -> str:
    """One sentence: how many trials wait, what each takes, what there is of it; `starting` of them have their node."""
    if starting == len(bundles):
        return STARTING.format(starting)
    have = ray.cluster_resources() if ray.is_initialized() else {}
    kinds = Counter(tuple(sorted(bundle.items())) for bundle in bundles)
    words = [f"{count} with {', '.join(f'{key} {value:g}' for key, value in kind)}" for kind, count in kinds.items()]
    names = sorted({key for bundle in bundles for key in bundle})
    there = ", ".join(f"{name} {have.get(name, 0):g}" for name in names)
    none = missing(bundles)
    why = f"no node has {', '.join(none)} yet{REMEDY}" if none else "all of it is in use"
    begun = f"; {STARTING.format(starting)}" if starting else ""
    return f"waiting for nodes: {'; '.join(words)} (the cluster has {there}: {why}){begun}"
