"""One proxy trained while its mixture changes, and what a method may ask of it.

Sequences of a domain come in the order of the exact plan (raymix/proxy/plan.py): the i-th depends on the seed and
the domain alone, whatever the shares were on the way.

Letters: K training domains, T steps.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymix.corpus.shards import Corpus
from raymix.proxy import model as models
from raymix.proxy.evaluate import losses_of
from raymix.proxy.loop import LOOK_EVERY, Run
from raymix.proxy.plan import Batches
from raymix.proxy.recipe import resolve
from raymix.proxy.task import Example, example
from raymix.simplex import Array
from raymix.space import SearchSpace

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Answer:
    """What an online method ends with."""

    mixture_K: Array
    """Mean of its shares over the run."""
    path_TK: Array
    """Its shares, step by step."""
    flops: float
    """Spent on all its runs."""


class Session:
    """A run whose batches are drawn domain by domain."""

    def __init__(self, corpus: Corpus, space: SearchSpace, n_params: float, n_tokens: float, seed: int) -> None:
        self.space = space
        self.shape = resolve(space.recipe, n_params, n_tokens, corpus.vocab, space.folder)
        self.n_domains = len(space.domains)
        everything = np.full(self.n_domains, 1 / self.n_domains)
        self.batches = Batches.of(corpus, space, everything, seed, self.shape)
        self.run = Run(self.shape, seed, models.pick_device(None), None)
        self.seed = seed
        self._credit_K = np.zeros(self.n_domains)
        self._drawn_K = np.zeros(self.n_domains, dtype=np.int64)

    def draw(self, mixture_K: Array) -> dict[int, Ints]:
        """The next batch at these shares: domain -> tokens (sequences, context + 1); domains may be missing.

        What a domain is owed carries over, so that its total follows the sum of its shares.
        """
        self._credit_K += mixture_K * self.shape.batch
        counts = np.zeros(self.n_domains, dtype=np.int64)
        for _ in range(self.shape.batch):
            k = int(np.argmax(self._credit_K))
            counts[k] += 1
            self._credit_K[k] -= 1
        return {int(k): self._next(int(k), int(counts[k])) for k in np.flatnonzero(counts)}

    def draw_each(self) -> list[Ints]:
        """The next batch with the same number of sequences of every domain, at least one."""
        return self.set_aside(max(1, self.shape.batch // self.n_domains))

    def set_aside(self, n: int) -> list[Ints]:
        """The next `n` sequences of every domain, which no later draw holds until the domain is repeated."""
        return [self._next(k, n) for k in range(self.n_domains)]

    def task(self, tokens: Ints, step: int) -> Example:
        """What the model is asked on these tokens."""
        return example(tokens, self.shape.mask_token, self.shape.vocab - 1, (self.seed, step))

    def losses(self, task: Example, run: Run | None = None) -> Tensor:
        """Loss of every predicted token (nats), without gradients, under this run's model or another's."""
        run = run or self.run
        return losses_of(run.model, task, run.device, run.dtype)

    def gradient(self, task: Example) -> tuple[float, list[Tensor]]:
        """Mean loss of a task and its gradient by every parameter; the run's own gradients end at 0."""
        loss = float(self.run.gradients(task))
        found = [param.grad.clone() for param in self.run.params if param.grad is not None]
        self.run.optimizer.zero_grad(set_to_none=False)
        return loss, found

    def plain_step(self, step: int, mixture_K: Array) -> None:
        """An ordinary step on the next batch at these shares.

        Raises:
            Diverged: see `Run.look`.
        """
        self.run.step(step, np.concatenate(list(self.draw(mixture_K).values())))

    def weighted_step(self, step: int, parts: Iterable[tuple[float, float, list[Tensor]]]) -> None:
        """One update along the sum of weight x gradient; parts are (weight, loss, gradient), taken one at a time.

        Raises:
            Diverged: see `Run.look`.
        """
        total, loss = [torch.zeros_like(param) for param in self.run.params], 0.0
        for weight, part_loss, gradient in parts:
            torch._foreach_add_(total, gradient, alpha=weight)
            loss += weight * part_loss
        for param, value in zip(self.run.params, total, strict=True):
            param.grad = value
        self.run.update(self.shape.rate(step))
        self.run.losses.append(torch.tensor(loss))
        if (step + 1) % LOOK_EVERY == 0:
            self.run.look(step)

    def flops(self, passes: float = 1.0) -> float:
        """Of the tokens drawn so far; `passes` counts training passes (a forward alone is a third of one)."""
        return passes * self.shape.flops_per_token * int(self._drawn_K.sum()) * self.shape.context

    def _next(self, k: int, n: int) -> Ints:
        first = int(self._drawn_K[k])
        self._drawn_K[k] += n
        return self.batches.sequences(k, first, n)


def answer(session: Session, path: list[Array], flops: float) -> Answer:
    """From the shares of every step of a session that has ended.

    Raises:
        Diverged: see `Run.look`.
    """
    session.run.look(len(path) - 1)
    path_TK = np.stack(path)
    mean_K = path_TK.mean(0)
    return Answer(mean_K / mean_K.sum(), path_TK, flops)
