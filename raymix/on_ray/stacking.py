"""How many trials of a rung are trained as one, where its `stack` is auto: measured on a GPU before the first trial.

Steps are timed of a proxy as it trains alone and of stacks of 2, 4, ..., in a Ray task that takes what a trial takes.
The fastest stack is chosen, if it trains more tokens in a second than the trials that would share a GPU otherwise
(raymix/on_ray/sharing.py) could at the very best: each at the pace of one that has the GPU to itself. No stack is so
large that GPUs stay idle in a round. What was measured is recorded, and a study goes on with it; where no GPU answers,
nothing is, and trials are trained one by one. Tested with made-up rates alone: not yet measured on a GPU.
"""

import gc
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayError

from raymix.on_ray.demand import SAY_SECONDS, bundle
from raymix.on_ray.sharing import MARGIN, at_once, bytes_of, device_memory
from raymix.proxy import ProxyShape, resolve
from raymix.proxy.compiled import worth_compiling
from raymix.proxy.timing import seconds_per_step
from raymix.space import Scale, SearchSpace
from raymix.space_study import alone_because
from raymix.study.ledger import Ledger

log = logging.getLogger(__name__)

STACKS = (2, 4, 8, 16)
TIMED_STEPS = 10
PATIENCE = 600.0  # seconds for all rungs: a node may have to be started, and torch to be loaded there


def stack_sizes(space: SearchSpace, ledger: Ledger, vocab: int) -> dict[Scale, int]:
    """How many trials of each rung are trained as one: as it says, as recorded, or as measured (and recorded) now."""
    found = {rung.scale: rung.stack for rung in space.ladder if isinstance(rung.stack, int)}
    have = ray.cluster_resources()
    n_gpus = int(have.get("GPU", 0))
    sizes = [size for size in STACKS if size <= space.budget.per_round // max(n_gpus, 1)]
    asked: dict[Scale, tuple[ProxyShape, Any, bool]] = {}
    for rung in space.ladder:
        takes = bundle(space, rung.n_params, {"cpu": 1, "gpu": 1} if n_gpus else {"cpu": 1})
        alone = alone_because(rung, space.ladder, space.recipe, space.budget, space.metrics)
        if rung.scale in found or takes.get("GPU") != 1 or alone is not None:
            continue
        if rung.scale in ledger.stacks:
            found[rung.scale] = ledger.stacks[rung.scale]
        elif sizes:
            shape = resolve(space.recipe, *rung.scale, vocab, space.folder)
            task = task_with(takes).remote(shape, sizes, space.recipe.compile)
            asked[rung.scale] = shape, task, rung.resources is None
    until = time.monotonic() + PATIENCE
    _say_if_slow([task for _, task, _ in asked.values()])
    for scale, (shape, task, shares) in asked.items():
        memory, rates = answer(task, until)
        if not rates:
            continue
        cores = have.get("CPU", 1) / max(n_gpus, 1)
        sharing = at_once(shape, space.recipe.compile, memory, cores) if shares else 1
        found[scale] = choose(rates, sharing)
        said = {"tokens_per_second": {str(size): rate for size, rate in rates.items()}, "sharing": sharing}
        ledger.note("stack", {**scale._asdict(), "size": found[scale], **said})
    return found


def choose(rates: Mapping[int, float], sharing: int) -> int:
    """The size of the fastest stack; 1 where `sharing` trials beside each other might be as fast.

    Args:
        rates: tokens per second by the size of a stack; 1 is a proxy alone.
        sharing: trials that would share the GPU otherwise.
    """
    best = max(rates, key=lambda size: rates[size])
    return best if best > 1 and rates[best] > sharing * rates[1] else 1


def task_with(takes: Mapping[str, float]) -> Any:
    """`measured` as a Ray task that takes what a trial takes."""
    custom = {name: amount for name, amount in takes.items() if name not in ("CPU", "GPU")}
    options = {"num_cpus": takes.get("CPU", 0), "num_gpus": takes["GPU"], "resources": custom, "max_retries": 0}
    return ray.remote(**options)(measured)


def answer(task: Any, until: float) -> tuple[float, dict[int, float]]:
    """What a task of `measured` found; no rates, and a warning, where it has not by then (of the monotonic clock)."""
    try:
        memory, rates = ray.get(task, timeout=max(0.0, until - time.monotonic()))
        why = "its worker sees no GPU, or not even one proxy fits"
    except (GetTimeoutError, RayError) as error:
        memory, rates, why = 0.0, {}, str(error)
        ray.cancel(task, force=True)
    if not rates:
        log.warning("stacks could not be timed (%s): trials are trained one by one, unless `stack` says more", why)
    return memory, rates


def _say_if_slow(tasks: list[Any]) -> None:
    """A warning, where they take so long that a person wonders."""
    if tasks and ray.wait(tasks, num_returns=len(tasks), timeout=min(SAY_SECONDS, PATIENCE))[1]:
        log.warning("stacks of trials are timed before the first: waiting for a GPU, %.0f s at most", PATIENCE)


def measured(shape: ProxyShape, sizes: Sequence[int], compiling: str) -> tuple[float, dict[int, float]]:
    """Bytes of this process's GPU, and tokens per second by the size of a stack, up to the first that does not fit."""
    memory, rates = float(device_memory()), dict[int, float]()
    compiled = worth_compiling(compiling, shape, torch.device("cuda"))
    for size in (1, *sizes) if memory else ():
        if size > 1 and MARGIN * bytes_of(shape, size) > memory:
            break
        try:
            seconds = seconds_per_step(shape, TIMED_STEPS, stack=size, compiled=compiled and size == 1)
        except torch.OutOfMemoryError:
            break
        rates[size] = size * shape.tokens_per_step / seconds
        gc.collect()
        torch.cuda.empty_cache()
    return memory, rates
