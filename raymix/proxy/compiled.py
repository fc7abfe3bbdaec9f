"""Whether a run's body is compiled, decided before its first step; torch.compile, with CUDA graphs on a GPU.

Compiling costs a time that a short trial does not earn back. On a CPU it was measured: 25 to 117 s, for steps 7% faster
(1.3M parameters). On a GPU the figures below are assumptions, not yet measured on a GPU; small proxies gain most,
because a graph starts all kernels of a step at once.
"""

from typing import Any

import torch

from raymix.proxy.shape import ProxyShape

CPU_RATE, CPU_GAIN, CPU_COST = 40e9, 1.07, 120.0  # FLOPs per second and thread, times faster, seconds
GPU_RATE, GPU_GAIN, GPU_COST = 150e12, 1.2, 90.0
GPU_LAYER = 4e-4  # seconds per layer and step that starting kernels one by one takes at least
SAFETY = 2.0  # the time saved must be this many times the cost


def worth_compiling(setting: str, shape: ProxyShape, device: torch.device) -> bool:
    """Whether to compile: as `recipe.compile` says, or by what the trial is expected to take without."""
    if setting != "auto":
        return setting == "always"
    flops = shape.flops_per_token * shape.tokens_per_step
    if device.type == "cuda":
        compute = flops / GPU_RATE
        saved = max(compute, GPU_LAYER * shape.n_layers) - compute / GPU_GAIN
        return shape.n_steps * saved > SAFETY * GPU_COST
    seconds = shape.n_steps * flops / (CPU_RATE * torch.get_num_threads())
    return seconds * (1 - 1 / CPU_GAIN) > SAFETY * CPU_COST


def compile_body(model: Any, device: torch.device) -> None:
    """Compile the model's body in place; the head has its own kernels."""
    mode = "reduce-overhead" if device.type == "cuda" else None
    model.base_model.compile(mode=mode, dynamic=False)


def begin_step(compiled: bool) -> None:
    """Tell CUDA graphs that the tensors of the last step are done with."""
    if compiled:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
