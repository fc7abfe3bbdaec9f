"""What a trial takes where its rung does not say: a core, or a GPU, or a part of one where small proxies can share it.

As many share a GPU as its memory holds and as it has time for: a small proxy's kernels take less time than starting
them, so that the GPU is idle in between, and another process may use it then (time-sliced; never at the same moment).
A compiled step leaves no such gaps, and a large proxy or a stack of small ones (raymix/on_ray/stacking.py) has the GPU
to itself. All figures are assumptions, not yet measured on a GPU; `resources` of a rung says otherwise.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raymix.on_ray.demand import Default, bundle
from raymix.proxy import ProxyShape, resolve
from raymix.proxy.compiled import GPU_LAYER, GPU_RATE, worth_compiling
from raymix.proxy.evaluate import GPU_TOKENS
from raymix.proxy.head import GPU_ROWS
from raymix.space import SearchSpace
from raymix.study.stacks import Sizes

log = logging.getLogger(__name__)

MOST = 4  # trials on one GPU
MARGIN = 1.25  # on the estimate of memory
PROCESS = 1.5e9  # bytes: CUDA's own, its libraries' and the allocator's
STATE = 22  # bytes per parameter: weights, gradients, two moments and the average in float32, a copy in bf16
PATIENCE = 60.0  # seconds for a node to say how large its GPUs are


def default_resources(space: SearchSpace, vocab: int, stacks: Sizes | None = None) -> Default:
    """What a trial, or a stack of them, takes of this Ray by its size, where its rung does not say."""
    stacked = {scale.n_params for scale, size in (stacks or {}).items() if size > 1}
    have = ray.cluster_resources()
    n_gpus = have.get("GPU", 0)
    if n_gpus < 1:
        if not have.get("CPU") and any(rung.resources is None for rung in space.ladder):
            log.warning(
                "no worker is up yet, so a trial takes one core, also of nodes that will have GPUs: say "
                "`resources: {gpu: 1}` in the ladder to train on those"
            )
        return {"cpu": 1}
    memory = None if all(rung.resources for rung in space.ladder) else gpu_memory()
    if memory is None:
        return {"cpu": 1, "gpu": 1}
    cores = have.get("CPU", 1) / n_gpus

    def by_size(n_params: float) -> Mapping[str, float]:
        if n_params in stacked:
            return {"cpu": 1, "gpu": 1}
        rung = min(space.ladder, key=lambda rung: abs(math.log(rung.n_params / n_params)))
        shape = resolve(space.recipe, n_params, rung.n_tokens, vocab, space.folder)
        return {"cpu": 1, "gpu": 1 / at_once(shape, space.recipe.compile, memory, cores)}

    return by_size


def at_once(shape: ProxyShape, compiling: str, memory: float, cores: float) -> int:
    """How many trials of a shape share a GPU of `memory` bytes with `cores` CPU cores to it: 1, 2 or 4."""
    if worth_compiling(compiling, shape, torch.device("cuda")):
        return 1
    computing = shape.flops_per_token * shape.tokens_per_step / GPU_RATE
    fit = memory / (MARGIN * bytes_of(shape))
    most = min(MOST, fit, cores, GPU_LAYER * shape.n_layers / computing)
    return max(n for n in (1, 2, 4) if n <= max(most, 1))


def bytes_of(shape: ProxyShape, stack: int = 1) -> float:
    """The most memory of a GPU that a trial holds: states, the head, and the activations of a batch or of evaluation.

    34 bytes per token, layer and width of a batch, as raymix/proxy/loop.py counts them; evaluation keeps one layer. The
    head's block of logits is there in float32 and twice in bf16. A stack of P proxies has P times the states and the
    batch's activations, and is evaluated proxy by proxy; the block of logits is as large as that of one.
    """
    params = stack * (shape.n_params + (shape.vocab + shape.context) * shape.width)
    rows = stack * (shape.micro_batch or shape.batch)
    batch = 34.0 * rows * shape.context * shape.width * shape.n_layers
    evaluation = 34.0 * GPU_TOKENS * shape.width
    head = 8.0 * min(GPU_ROWS, max(rows * shape.context, 1)) * shape.vocab + 8.0 * stack * shape.vocab * shape.width
    return PROCESS + STATE * params + max(batch, evaluation) + head


def trials_at_a_time(space: SearchSpace, default: Default) -> int:
    """How many trials of the rung that takes least this Ray holds."""
    have = ray.cluster_resources()
    asked = [bundle(space, rung.n_params, default) for rung in space.ladder]
    least = min((each["GPU"] for each in asked if each.get("GPU")), default=None)
    return int(have.get("GPU", 0) / least + 1e-6) if least else int(have.get("CPU", 1))


def gpu_memory() -> float | None:
    """Bytes of the smallest GPU of this Ray; None where a node does not say."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) > 0]
    ask = ray.remote(num_cpus=0, num_gpus=0.001, max_retries=0)(device_memory)
    there = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    asked = [ask.options(scheduling_strategy=node).remote() for node in there]
    try:
        found: list[Any] = ray.get(asked, timeout=PATIENCE)
    except (GetTimeoutError, RayError) as error:
        log.warning("how large the GPUs are could not be asked (%s): every trial takes a whole one", error)
        for each in asked:
            ray.cancel(each, force=True)
        return None
    return min(map(float, found)) if all(found) else None


def device_memory() -> int:
    """Bytes of this process's GPU; 0 where there is none to be seen."""
    return int(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else 0
