"""Several proxies of one shape trained as one: every weight has a leading axis, one proxy per place on it.

Small proxies leave a GPU waiting for the next kernel; a stack gives each kernel as many proxies' work. Each proxy has
its own mixture, seed, clipping and losses, and no number of one touches another: one that diverges does not harm the
rest, and the results are those of separate runs up to rounding (of which a run that is not stable makes more, as it
does between two ways to compute attention). Decoders only. On a CPU a stack is no faster than its proxies one by one;
on a GPU: not yet measured.

Letters: P proxies.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from raymix.proxy import model as models
from raymix.proxy.distributed import ALONE
from raymix.proxy.head import stacked_loss_and_gradients
from raymix.proxy.loop import CLIP, Run, adamw, verdict
from raymix.proxy.shape import ProxyShape


class Stack(Run):
    """A run whose parameters are those of P proxies, (P, ...)."""

    def __init__(self, shape: ProxyShape, seeds: Sequence[int], device: torch.device, attention: str | None) -> None:
        self.shape, self.device, self.dtype = shape, device, models.dtype_of(shape, device)
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
        """Which proxies have diverged since the last look, and in what words; those that had before, too."""
        if not self.losses:
            return {}
        mean_P = torch.stack(self.losses).mean(0).tolist()
        self.losses = []
        said = {index: verdict(mean, step, self.shape) for index, mean in enumerate(mean_P)}
        return {index: why for index, why in said.items() if why is not None}

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
