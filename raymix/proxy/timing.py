"""How long a proxy's step takes on this machine: a few real steps on random tokens."""

import time

import numpy as np
import torch

from raymix.proxy import model as models
from raymix.proxy.loop import Run
from raymix.proxy.shape import ProxyShape
from raymix.proxy.stacked import Stack


def seconds_per_step(shape: ProxyShape, n_steps: int, stack: int = 1, compiled: bool = False) -> float:
    """Median seconds of `n_steps` training steps after two to warm up; on a CPU with one thread.

    `stack`: of so many proxies trained as one; a step is then one of each. `compiled`: of one proxy alone, compiled.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    device, size = models.pick_device(), (shape.batch, shape.context + 1)
    run = Run(shape, 0, device, None, compiled) if stack == 1 else Stack(shape, range(stack), device, None)
    tokens = np.random.default_rng(0).integers(shape.vocab, size=size if stack == 1 else (stack, *size))
    seconds = []
    for step in range(n_steps + 2):
        started = time.perf_counter()
        run.step(step % shape.n_steps, tokens)
        if run.device.type == "cuda":
            torch.cuda.synchronize(run.device)
        seconds.append(time.perf_counter() - started)
    torch.set_num_threads(before)
    return float(np.median(seconds[2:]))
