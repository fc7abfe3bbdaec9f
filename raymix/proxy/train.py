"""Train one proxy on one mixture and say its losses: shards + mixture -> rows of the observation table.

The loop is plain: no trainer, no scheduler objects, no logits kept. On a CPU two runs with the same arguments,
threads and attention give the same bits.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from raymix.corpus.shards import Corpus
from raymix.proxy import model as models
from raymix.proxy.evaluate import evaluate, held_out
from raymix.proxy.head import loss_and_gradients
from raymix.proxy.plan import Batches
from raymix.proxy.recipe import ProxyShape, resolve
from raymix.simplex import Array, as_mixture
from raymix.space import SearchSpace

log = logging.getLogger(__name__)

BETAS = (0.9, 0.95)  # GPT-3 (arXiv 2005.14165, appendix B), as are weight decay and clipping
WEIGHT_DECAY = 0.1
CLIP = 1.0
AVERAGED = 0.1  # the last tenth before a checkpoint, in place of a decay of the learning rate
LOOK_EVERY = 20  # steps between looks at the loss; a look makes a GPU wait
WORSE_THAN_GUESSING = 0.5  # nats above log(vocab): the run has diverged


class Diverged(RuntimeError):  # noqa: N818 (a verdict on the run, as StopIteration is)
    """The training loss is not finite, or worse than guessing."""


def train_proxy(
    corpus: Corpus,
    space: SearchSpace,
    mixture_K: Array,
    n_params: float,
    n_tokens: float,
    seed: int,
    device: str | None = None,
    threads: int | None = None,
    attention: str | None = None,
) -> Iterator[dict[str, float]]:
    """One row per checkpoint, as soon as it is reached, keyed by columns of the observation table.

    Args:
        corpus: the tokens, from `raymix.corpus.prepare`.
        space: names, recipe and target.
        mixture_K: shares in the order of `space.domains`, sum 1.
        n_params: size asked for; the rows carry the model's real count.
        n_tokens: length of the whole run.
        seed: of weights and data.
        device: "cpu", "cuda", "cuda:1"; a GPU where there is one if left out.
        threads: CPU threads; as torch finds them if left out. Sets the process's number.
        attention: "eager" or "sdpa"; the faster of the two, measured, if left out.

    Raises:
        Diverged: the loss is not finite or worse than guessing; the message is the reason for the record.
    """
    started = time.perf_counter()
    if threads is not None:
        torch.set_num_threads(threads)
    shape = resolve(space.recipe, n_params, n_tokens, corpus.vocab)
    batches = Batches.of(corpus, space, as_mixture(mixture_K, space.domain_names), seed, shape)
    run = Run(shape, seed, models.pick_device(device), attention)
    sequences = held_out(corpus, space)
    for step in range(shape.n_steps):
        run.step(step, batches[step])
        if step + 1 in shape.checkpoint_steps:
            run.look(step)
            yield {
                "n_params": float(shape.n_params),
                "n_tokens": float((step + 1) * shape.tokens_per_step),
                **_losses(run, sequences, corpus),
                **_by_domain("tokens", space, batches.drawn_K(step + 1)),
                **_by_domain("unique", space, batches.unique_K * shape.context),
                "seconds": time.perf_counter() - started,
                "flops": shape.flops_per_token * (step + 1) * shape.tokens_per_step,
            }


class Run:
    """Model, optimiser and averaged weights of a run, and how they take a step."""

    def __init__(self, shape: ProxyShape, seed: int, device: torch.device, attention: str | None) -> None:
        self.shape, self.device = shape, device
        self.dtype = models.fast_dtype(device)
        attention = attention or models.fastest_attention(shape, device, self.dtype)
        self.model: Any = models.build(shape, seed, attention).to(device)
        self.params: list[Tensor] = list(self.model.parameters())
        self.optimizer = _adamw(self.params, device)
        self.averaged: list[Tensor] = []
        self.n_averaged = 0
        self.losses: list[Tensor] = []

    def step(self, step: int, batch: Any) -> None:
        """Forward, backward, clip, update; average the weights where a checkpoint is near."""
        tokens = torch.from_numpy(batch)
        if self.device.type == "cuda":
            tokens = tokens.pin_memory().to(self.device, non_blocking=True)
        inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].flatten()
        with models.autocast(self.device, self.dtype):
            hidden = models.hidden_states(self.model, inputs).flatten(0, 1)
        weight = models.head_weight(self.model)
        loss, by_hidden, by_weight = loss_and_gradients(hidden, weight, targets, self.dtype)
        torch.autograd.backward(hidden, by_hidden.to(hidden.dtype))
        assert weight.grad is not None  # the embedding of the inputs is the same matrix
        weight.grad.add_(by_weight)
        nn.utils.clip_grad_norm_(self.params, CLIP, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.shape.learning_rate * min(1.0, (step + 1) / self.shape.warmup)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        self.losses.append(loss)
        self._average(step + 1)
        if (step + 1) % LOOK_EVERY == 0:
            self.look(step)

    def look(self, step: int) -> None:
        """Raise `Diverged` when the losses since the last look are not finite, or worse than guessing."""
        if not self.losses:
            return
        mean = float(torch.stack(self.losses).mean())
        self.losses = []
        where = f"at step {step + 1} of {self.shape.n_steps} ({(step + 1) * self.shape.tokens_per_step} tokens)"
        if not math.isfinite(mean):
            raise Diverged(f"the training loss is {mean} {where}, learning rate {self.shape.learning_rate:.3g}")
        log.debug("training loss %.4f %s", mean, where)
        if step >= self.shape.warmup and mean > math.log(self.shape.vocab) + WORSE_THAN_GUESSING:
            raise Diverged(
                f"the training loss is {mean:.2f} nats {where}, guessing gives {math.log(self.shape.vocab):.2f}; "
                f"learning rate {self.shape.learning_rate:.3g}"
            )

    def _average(self, done: int) -> None:
        """Running mean of the weights over the last tenth before the next checkpoint."""
        checkpoint = next(at for at in self.shape.checkpoint_steps if at >= done)
        first = checkpoint - int(AVERAGED * checkpoint)
        if done < first:
            return
        current = [param.detach() for param in self.params]
        if done == first:
            self.averaged, self.n_averaged = [param.clone() for param in current], 1
            return
        self.n_averaged += 1
        torch._foreach_lerp_(self.averaged, current, 1 / self.n_averaged)

    def swap(self) -> None:
        """Exchange the weights with their average (twice is the identity)."""
        for param, averaged in zip(self.params, self.averaged, strict=True):
            param.data, averaged.data = averaged.data, param.data


def _adamw(params: list[Tensor], device: torch.device) -> torch.optim.Optimizer:
    matrices, others = [p for p in params if p.ndim >= 2], [p for p in params if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=device.type in ("cpu", "cuda"))


def _losses(run: Run, sequences: dict[str, Any], corpus: Corpus) -> dict[str, float]:
    run.swap()
    found = evaluate(run.model, sequences, run.device, run.dtype)
    run.swap()
    row: dict[str, float] = {}
    for name, loss in found.items():
        if not math.isfinite(loss.mean):
            raise Diverged(f"the loss on eval domain {name!r} is {loss.mean}")
        row[f"loss/{name}"] = loss.mean
        row[f"loss_se/{name}"] = loss.error
        row[f"bpb/{name}"] = loss.mean / math.log(2) / corpus.bytes_per_token[name]
    return row


def _by_domain(prefix: str, space: SearchSpace, values_K: Any) -> dict[str, float]:
    return {f"{prefix}/{name}": float(value) for name, value in zip(space.domain_names, values_K, strict=True)}
