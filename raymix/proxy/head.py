"""Head and cross entropy in one pass, a block of rows at a time.

At vocabulary 4096 the head is more than half of a small proxy's step. Done as logits = h W', loss, backward, it
writes and reads the logits four times; here a block of rows goes through all its steps while it lies in the
cache, and the gradients come out with the loss. Same numbers up to rounding, 1.35 to 1.6 times as fast on a CPU.

With p = softmax(h W'), row by row: loss = -log p[target], dh = (p - onehot) W, dW = (p - onehot)' h.
"""

from __future__ import annotations

import torch
from torch import Tensor

CPU_ROWS = 128  # rows x 4096 x 4 bytes stay near the cores; measured best of 32 to 1024
GPU_ROWS = 8192


def loss_and_gradients(
    hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean cross entropy (nats per token) with its gradients.

    Args:
        hidden: (rows, width).
        weight: (vocab, width), the head.
        targets: (rows,) token ids.
        dtype: precision of the matrix products; softmax and sums are float32.

    Returns:
        The loss (0-d), the gradient by `hidden` (rows, width) and the gradient by `weight` (vocab, width).
    """
    hidden, weight = hidden.detach().to(dtype), weight.detach().to(dtype)
    by_hidden = torch.empty_like(hidden)
    by_weight = torch.zeros((hidden.shape[1], len(weight)), dtype=torch.float32, device=hidden.device)
    likelihood = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    minus_one = torch.full((len(hidden), 1), -1.0, device=hidden.device)
    for block in _blocks(hidden):
        column = targets[block, None]
        p = torch.mm(hidden[block], weight.t()).float()
        torch.softmax(p, -1, out=p)
        likelihood[block] = p.gather(1, column)[:, 0]
        p.scatter_add_(1, column, minus_one[block])
        p = p.to(dtype)
        torch.mm(p, weight, out=by_hidden[block])
        _add_product(by_weight, hidden[block].t(), p)
    scale = 1 / len(hidden)
    return -likelihood.log_().mean(), by_hidden.mul_(scale), by_weight.mul_(scale).t()


def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """Cross entropy (rows,) of each token, nats."""
    hidden, weight = hidden.detach().to(dtype), weight.detach().to(dtype)
    losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    for block in _blocks(hidden):
        logits = torch.mm(hidden[block], weight.t()).float()
        losses[block] = -torch.log_softmax(logits, -1).gather(1, targets[block, None])[:, 0]
    return losses


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if right.dtype == torch.float32:
        total.addmm_(left, right)
    else:
        total.add_(torch.mm(left, right))


def _blocks(hidden: Tensor) -> list[slice]:
    rows = CPU_ROWS if hidden.device.type == "cpu" else GPU_ROWS
    return [slice(start, start + rows) for start in range(0, len(hidden), rows)]
