"""Model, optimiser and averaged weights of one run, and how they take a step.

A step is: gradients of a batch (in parts, where it does not fit at once), clip, AdamW. On a CPU two runs with the
same arguments, threads and attention give the same bits, also when one of them was saved and loaded on the way.
"""

import logging
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raymix.proxy import model as models
from raymix.proxy.compiled import begin_step, compile_body
from raymix.proxy.distributed import ALONE, World
from raymix.proxy.head import loss_and_gradients
from raymix.proxy.shape import ProxyShape
from raymix.proxy.task import Example, example

log = logging.getLogger(__name__)

BETAS = (0.9, 0.95)  # GPT-3 (arXiv 2005.14165, appendix B), as are weight decay and clipping
WEIGHT_DECAY = 0.1
CLIP = 1.0
AVERAGED = 0.1  # the last tenth before a checkpoint, in place of a decay of the learning rate
LOOK_EVERY = 20  # steps between looks at the loss; a look makes a GPU wait
WORSE_THAN_GUESSING = 0.5  # nats above log(vocab): the run has diverged
MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # AdamW's state per parameter


class Diverged(RuntimeError):  # noqa: N818 (a verdict on the run, as StopIteration is)
    """The training loss is not finite, or worse than guessing."""


class Run:
    """One proxy in training."""

    def __init__(
        self,
        shape: ProxyShape,
        seed: int,
        device: torch.device,
        attention: str | None,
        compiled: bool = False,
        world: World = ALONE,
        gpu_share: float = 1.0,
    ) -> None:
        self.shape, self.seed, self.device, self.world = shape, seed, device, world
        self.compiled = compiled
        self.dtype = models.dtype_of(shape, device)
        self.attention = attention or models.fastest_attention(shape, device, self.dtype)
        self.model: Any = models.build(shape, seed, self.attention).to(device)
        if compiled:
            compile_body(self.model, device)
        self.named: dict[str, Tensor] = dict(self.model.named_parameters())
        self.params: list[Tensor] = list(self.named.values())
        for param in self.params:
            param.grad = torch.zeros_like(param)  # the run's own: memory of a CUDA graph is gone at its next step
        self.optimizer = adamw(self.params, device)
        self.rows_at_once = shape.micro_batch or rows_that_fit(shape, device, self.attention, gpu_share)
        self.averaged: list[Tensor] = []
        self.n_averaged = 0
        self.losses: list[Tensor] = []

    def step(self, step: int, batch: NDArray[np.int64]) -> None:
        """One update on tokens (batch, context + 1); looks at the losses now and then.

        Raises:
            Diverged: see `look`.
        """
        task = example(batch, self.shape.mask_token, self.shape.vocab - 1, (self.seed, step))
        begin_step(self.compiled)
        self.losses.append(self.world.mean(self.gradients(task.rows(self.world.rows(len(batch)))), self.params))
        self.update(self.shape.rate(step))
        self._average(step + 1)
        if (step + 1) % LOOK_EVERY == 0:
            self.look(step)

    def gradients(self, task: Example) -> Tensor:
        """Add the gradients of the mean loss over all targets to the parameters; returns that loss."""
        n_rows = len(task.inputs)
        starts = range(0, n_rows, self.rows_at_once)
        parts = [task.rows(slice(start, start + self.rows_at_once)) for start in starts]
        if len(parts) == 1:
            return self._backward(*models.on_device(task, self.device), share=1.0)
        losses = [
            self._backward(*models.on_device(part, self.device), share=len(part.inputs) / n_rows) for part in parts
        ]
        return torch.stack(losses).sum()

    def _backward(self, inputs: Tensor, places: Tensor | None, targets: Tensor, share: float) -> Tensor:
        """Gradients of `share` times the mean loss; returns `share` times the loss."""
        with models.autocast(self.device, self.dtype):
            hidden = models.before_head(self.model, inputs, places)
        weight, bias = models.head_weight(self.model), models.head_bias(self.model)
        loss, by = loss_and_gradients(hidden, weight, targets.flatten(), self.dtype, bias)
        if share != 1.0:
            loss, by = loss * share, by.scaled(share)
        torch.autograd.backward(hidden, by.hidden.to(hidden.dtype))
        for param, gradient in ((weight, by.weight), (bias, by.bias)):
            if param is not None and gradient is not None:
                assert param.grad is not None
                param.grad.add_(gradient)
        return loss

    def update(self, rate: float) -> None:
        """Clip, AdamW at this learning rate, gradients back to 0."""
        self.clip()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)

    def clip(self) -> None:
        """Scale the gradients down to a norm of at most CLIP."""
        nn.utils.clip_grad_norm_(self.params, CLIP, foreach=True)

    def look(self, step: int) -> None:
        """Raise `Diverged` when the losses since the last look are not finite, or worse than guessing."""
        if not self.losses:
            return
        mean = float(torch.stack(self.losses).mean())
        self.losses = []
        log.debug("training loss %.4f at step %d of %d", mean, step + 1, self.shape.n_steps)
        if (why := verdict(mean, step, self.shape)) is not None:
            raise Diverged(why)

    def _average(self, done: int) -> None:
        """Running mean of the weights over the last tenth before the next checkpoint, but not beyond the one before."""
        if self.shape.schedule != "constant":
            return
        checkpoint = next(at for at in self.shape.checkpoint_steps if at >= done)
        before = max((at for at in self.shape.checkpoint_steps if at < done), default=0)
        first = max(checkpoint - int(AVERAGED * checkpoint), before + 1)
        if done < first:
            return
        current = [param.detach() for param in self.params]
        if done == first:
            self.averaged, self.n_averaged = [param.clone() for param in current], 1
            return
        self.n_averaged += 1
        torch._foreach_lerp_(self.averaged, current, 1 / self.n_averaged)

    def swap(self) -> None:
        """Exchange the weights with their average (twice is the identity); nothing where none is kept."""
        if not self.averaged:
            return
        for param, averaged in zip(self.params, self.averaged, strict=True):
            param.data, averaged.data = averaged.data, param.data

    def state(self) -> dict[str, Tensor]:
        """All tensors beyond the weights that decide how the run goes on."""
        found = {"losses": torch.stack(self.losses) if self.losses else torch.zeros(0)}
        for name, param in self.named.items():
            found |= {f"{moment}/{name}": self.optimizer.state[param][moment] for moment in MOMENTS}
        found |= {f"averaged/{name}": mean for name, mean in zip(self.named, self.averaged, strict=False)}
        return found | {"n_averaged": torch.tensor(self.n_averaged)}

    def restore(self, weights: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """Take up `named` and `state` of another run with the same shape.

        Raises:
            KeyError: a tensor is missing.
        """
        with torch.no_grad():
            for name, param in self.named.items():
                param.copy_(weights[name])
                moments = {moment: state[f"{moment}/{name}"].to(self.device).clone() for moment in MOMENTS}
                self.optimizer.state[param] = moments
        kept = [name for name in self.named if f"averaged/{name}" in state]
        self.averaged = [state[f"averaged/{name}"].to(self.device).clone() for name in kept]
        self.n_averaged = int(state["n_averaged"])
        self.losses = list(state["losses"].to(self.device).unbind())


def verdict(mean: float, step: int, shape: ProxyShape) -> str | None:
    """Why a run with this mean loss (nats) up to `step` counts as diverged; None where it does not."""
    where = f"at step {step + 1} of {shape.n_steps} ({(step + 1) * shape.tokens_per_step} tokens)"
    if not math.isfinite(mean):
        return f"the training loss is {mean} {where}, learning rate {shape.learning_rate:.3g}"
    guessing = math.log(shape.vocab)
    if step < shape.warmup or mean <= guessing + WORSE_THAN_GUESSING:
        return None
    return (
        f"the training loss is {mean:.2f} nats {where}, guessing gives {guessing:.2f}; "
        f"learning rate {shape.learning_rate:.3g}"
    )


def adamw(params: list[Tensor], device: torch.device, stacked: bool = False) -> torch.optim.Optimizer:
    """Fused AdamW; matrices decay, vectors do not. `stacked`: there is a leading axis of proxies."""
    matrices = [p for p in params if p.ndim >= 2 + stacked]
    others = [p for p in params if p.ndim < 2 + stacked]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=device.type in ("cpu", "cuda"))


def rows_that_fit(shape: ProxyShape, device: torch.device, attention: str, gpu_share: float) -> int:
    """Sequences that this share of a GPU's memory holds at once; on a CPU all of them.

    34 bytes per token, layer and width for activations in bf16, and where attention is eager 5 per pair of places, head
    and layer (2205.05198, equation 1), in at most half of what is this run's: others may share the GPU.
    """
    if device.type != "cuda":
        return shape.batch
    pairs = 5 * shape.n_heads * shape.context**2 if attention == "eager" else 0
    per_row = (34 * shape.context * shape.width + pairs) * shape.n_layers
    fit = gpu_share * torch.cuda.get_device_properties(device).total_memory / 2 // per_row
    return max(1, min(shape.batch, int(fit)))
