"""Are the nodes of a cluster alike: what is installed on each, and what time it is there."""

import platform
import time
from collections.abc import Iterator
from importlib import metadata

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raymix import __version__
from raymix.clusters.finding import Finding

TRAINS = ("ray", "torch", "transformers", "numpy")
SKEW_SECONDS = 5.0
SECONDS = 15.0  # the longest any answer may take


def _installed() -> dict[str, str]:
    """Versions of what trains: another one may train otherwise, or fail."""
    packages = {name: metadata.version(name) for name in TRAINS}
    return {"python": platform.python_version(), "raymix": __version__, **packages}


def environments(node_ids: list[str]) -> Iterator[Finding]:
    """Whether every node can run raymix, and with what this machine has."""
    ask, here, remedy = ray.remote(_installed), _installed(), "give all nodes one image, or one environment"
    there = [NodeAffinitySchedulingStrategy(node_id, soft=False) for node_id in node_ids]
    asked = [ask.options(num_cpus=0, max_retries=0, scheduling_strategy=node).remote() for node in there]
    try:
        found: list[dict[str, str]] = ray.get(asked, timeout=SECONDS * 4)  # a worker has to start there first
    except ray.exceptions.RayError as error:
        why = str(error).strip().rpartition("\n")[2]
        yield Finding("error", "environments", f"a node cannot run raymix: {why}", remedy)
        return
    pairs = {(name, each[name]) for each in found for name in here}
    others = [f"{name} {version} and not {here[name]}" for name, version in sorted(pairs) if version != here[name]]
    if others:
        yield Finding("error", "environments", f"a node has {', '.join(others)}", remedy)
    else:
        yield Finding("ok", "environments", f"on {len(node_ids)} nodes as here")


def _now() -> float:
    return time.time()


def clocks(node_ids: list[str]) -> Iterator[Finding]:
    """How far each node's clock is from ours, less half the way there and back."""
    clock = ray.remote(_now)
    worst = 0.0
    for node_id in node_ids:
        here = clock.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False))
        ray.get(here.remote(), timeout=SECONDS * 4)  # a worker has to start there first
        before = time.time()
        there = ray.get(here.remote(), timeout=SECONDS)
        worst = max(worst, abs(there - (before + time.time()) / 2))
    good = worst < SKEW_SECONDS
    remedy = "" if good else "run chrony or ntpd on every node: tokens and object stores refuse requests with old times"
    yield Finding("ok" if good else "error", "clocks", f"at most {worst:.2f} s apart on {len(node_ids)} nodes", remedy)
