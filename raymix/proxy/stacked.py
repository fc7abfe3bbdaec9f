"""Several proxies of one shape trained as one: every weight has a leading axis, one proxy per place on it.

Small proxies leave a GPU waiting for the next kernel; a stack gives each kernel as many proxies' work. Each proxy has
its own mixture, seed, clipping and losses, and no number of one touches another: the results are those of separate
runs up to rounding, and one that diverges does not harm the rest. Decoders only. On a CPU a stack is no faster than
its proxies one by one; on a GPU: not yet measured.

Letters: P proxies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from raymix.corpus.shards import Corpus
from raymix.proxy import model as models
from raymix.proxy.distributed import ALONE
from raymix.proxy.evaluate import evaluate, held_out
from raymix.proxy.head import stacked_loss_and_gradients
from raymix.proxy.loop import CLIP, WORSE_THAN_GUESSING, Run, adamw
from raymix.proxy.plan import Batches
from raymix.proxy.recipe import ProxyShape, resolve
from raymix.proxy.row import row_of
from raymix.simplex import Array, as_mixture
from raymix.space import SearchSpace


class Job(NamedTuple):
    """One proxy of a stack."""

    mixture_K: Array
    seed: int


class Result(NamedTuple):
    """A row of a proxy's table, or why it has none."""

    proxy: int
    """Its place among the jobs."""
    row: dict[str, Any]
    reason: str = ""


def train_stacked(
    corpus: Corpus,
    space: SearchSpace,
    jobs: Sequence[Job],
    n_params: float,
    n_tokens: float,
    device: str | None = None,
    attention: str | None = None,
) -> Iterator[Result]:
    """The rows that `train_proxy` would give for each of `jobs`, trained together.

    Raises:
        ValueError: the recipe is of an encoder, or starts from a trained model.
    """
    shape = resolve(space.recipe, n_params, n_tokens, corpus.vocab, space.folder)
    if shape.mask_token is not None or shape.init_from is not None:
        raise ValueError("only decoders from scratch are stacked: train the others one by one")
    mixtures = [as_mixture(job.mixture_K, space.domain_names) for job in jobs]
    plans = [Batches.of(corpus, space, mix_K, job.seed, shape) for mix_K, job in zip(mixtures, jobs, strict=True)]
    stack = Stack(shape, [job.seed for job in jobs], models.pick_device(device), attention)
    sequences, alive = held_out(corpus, space), set(range(len(jobs)))
    for step in range(shape.n_steps):
        stack.step(step, np.stack([plan[step] for plan in plans]))
        if step + 1 not in shape.checkpoint_steps:
            continue
        for index, reason in stack.diverged(step).items():
            if index in alive:
                alive.discard(index)
                yield Result(index, {}, reason)
        for index in sorted(alive):
            losses = evaluate(stack.member(index), sequences, stack.device, stack.dtype)
            yield Result(index, row_of(space, corpus, plans[index], step + 1, losses))


class Stack(Run):
    """A run whose parameters are those of P proxies, (P, ...)."""

    def __init__(self, shape: ProxyShape, seeds: Sequence[int], device: torch.device, attention: str | None) -> None:
        self.shape, self.device, self.dtype = shape, device, models.fast_dtype(device)
        self.compiled, self.world = False, ALONE
        self.attention = attention or models.fastest_attention(shape, device, self.dtype)
        members = [models.build(shape, seed, self.attention).to(device) for seed in seeds]
        stacked, self.buffers = stack_module_state(members)
        self.model: Any = members[0]  # lends its code to all of them
        self.named = dict(stacked)
        self.params = list(self.named.values())
        self.optimizer = adamw(self.params, device, stacked=True)
        self.head = next(name for name, p in self.model.named_parameters() if p is models.head_weight(self.model))
        self.averaged, self.n_averaged = [], 0
        self.losses = []

    def step(self, step: int, batch: Any) -> None:
        """One update of every proxy on tokens (P, batch, context + 1)."""
        tokens = torch.from_numpy(batch)
        if self.device.type == "cuda":
            tokens = tokens.pin_memory().to(self.device, non_blocking=True)
        with models.autocast(self.device, self.dtype):
            hidden = vmap(self._hidden)(self.named, self.buffers, tokens[..., :-1].contiguous())
        weight = self.named[self.head]
        loss_P, by_hidden, by_weight = stacked_loss_and_gradients(
            hidden, weight, tokens[..., 1:].flatten(1), self.dtype
        )
        torch.autograd.backward(hidden, by_hidden.to(hidden.dtype))
        assert weight.grad is not None  # the embedding of the inputs is the same matrix
        weight.grad.add_(by_weight)
        self.losses.append(loss_P)
        self.update(self.shape.rate(step))
        self._average(step + 1)

    def _hidden(self, params: Any, buffers: Any, tokens: Tensor) -> Any:
        return functional_call(_Body(self.model), (_inside(params), _inside(buffers)), (tokens,))

    def clip(self) -> None:
        """Each proxy by its own norm."""
        grads = [param.grad for param in self.params if param.grad is not None]
        norm_P = torch.stack([grad.flatten(1).square().sum(1) for grad in grads]).sum(0).sqrt()
        scale_P = (CLIP / (norm_P + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(scale_P.view(-1, *[1] * (grad.ndim - 1)))

    def diverged(self, step: int) -> dict[int, str]:
        """Which proxies have diverged since the last look, and in what words."""
        mean_P = torch.stack(self.losses).mean(0).tolist()
        self.losses = []
        limit = math.log(self.shape.vocab) + WORSE_THAN_GUESSING
        where = f"at step {step + 1} of {self.shape.n_steps}, learning rate {self.shape.learning_rate:.3g}"
        return {
            index: f"the training loss is {mean:.4g} {where}"
            for index, mean in enumerate(mean_P)
            if not math.isfinite(mean) or (step >= self.shape.warmup and mean > limit)
        }

    def member(self, index: int) -> Any:
        """One proxy as it is evaluated, until the next step."""
        weights = self.averaged or self.params
        with torch.no_grad():
            for (name, _), weight in zip(self.named.items(), weights, strict=True):
                self.model.get_parameter(name).data = weight[index].detach()
        return self.model


class _Body(torch.nn.Module):
    """Tokens to hidden states, as a module's forward: what functional_call can call."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, context) -> (rows, width)."""
        return models.before_head(self.model, tokens, None)


def _inside(named: Any) -> dict[str, Tensor]:
    return {f"model.{name}": tensor for name, tensor in named.items()}
