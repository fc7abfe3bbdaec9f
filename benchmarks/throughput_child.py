"""One variant of the throughput benchmark in a process of its own, so that each has its own allocator.

    python -m benchmarks.throughput_child VARIANT TOKENS

Reads a number of seconds per line, trains for as many CPU seconds, answers with a line of JSON: tokens trained on and
CPU seconds. One thread.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers import hf_trainer, nanogpt
from raymix.proxy.loop import Run
from raymix.proxy.model import dtype_of
from raymix.proxy.recipe import resolve
from raymix.proxy.shape import ProxyShape
from raymix.space import Recipe

BATCH, CONTEXT, VOCAB = 8, 256, 4096
N_PARAMS = 0.79e6  # without embeddings; 1.35M with them
WARM = 3  # steps before the first measurement


def proxy_shape() -> ProxyShape:
    """4 layers of width 128: the peers are built to the same."""
    return resolve(Recipe(context=CONTEXT, batch=BATCH), N_PARAMS, 1e9, VOCAB)


def ours(tokens: Path) -> Callable[[], None]:
    """The step of a raymix trial, as it is."""
    run, data = Run(proxy_shape(), 0, torch.device("cpu"), None), np.memmap(tokens, dtype=np.uint16, mode="r")
    rng, done = np.random.default_rng(0), 0

    def step() -> None:
        nonlocal done
        starts = rng.integers(len(data) - CONTEXT - 1, size=BATCH)
        run.step(done, np.stack([data[i : i + CONTEXT + 1].astype(np.int64) for i in starts]))
        done += 1

    return step


class Bursts:
    """Measures as it is told to, from within any loop that calls it after each step."""

    def __init__(self) -> None:
        self.left = WARM
        self.seconds = self.started = 0.0
        self.steps = 0

    def __call__(self) -> bool:
        """True when there is nothing more to do."""
        if self.left:
            self.left -= 1
            return self._next() if self.left == 0 else False
        self.steps += 1
        spent = time.process_time() - self.started
        if spent < self.seconds:
            return False
        print(json.dumps({"tokens": self.steps * BATCH * CONTEXT, "seconds": spent}), file=sys.__stdout__, flush=True)
        return self._next()

    def _next(self) -> bool:
        line = sys.stdin.readline()
        if not line.strip():
            return True
        self.seconds, self.steps, self.started = float(line), 0, time.process_time()
        return False


def main() -> None:
    """Serve one variant."""
    torch.set_num_threads(1)
    variant, tokens = sys.argv[1], Path(sys.argv[2])
    shape = proxy_shape()
    size = (shape.n_layers, shape.width, shape.n_heads, CONTEXT, VOCAB)
    bursts = Bursts()
    if variant == "hf_trainer":
        hf_trainer.train(size, BATCH, tokens, bursts)
        return
    if variant == "raymix":
        step = ours(tokens)
    else:
        precision = dtype_of(shape, torch.device("cpu"))
        step = nanogpt.stepper(size, BATCH, tokens, as_ours=precision if variant == "nanogpt_same" else None)
    while True:
        step()
        if bursts():
            return


if __name__ == "__main__":
    main()
