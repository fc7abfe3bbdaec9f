"""The training loop of nanoGPT (github.com/karpathy/nanoGPT), re-implemented from its settings.

As shipped, on a CPU (its README: --device=cpu --compile=False): float32, no dropout, no biases, exact GELU, sdpa, tied
head, batches drawn at random from a memory-mapped file of uint16, AdamW .9/.95 with weight decay .1 on matrices and
not fused (it fuses on CUDA alone), clipping at 1, the learning rate set every step, the loss read every 10 steps.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raymix.proxy.model import autocast

LOG_EVERY = 10


class Block(nn.Module):
    """Attention and MLP, each behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, context, width) -> the same."""
        batch, context, width = x.shape
        q, k, v = self.qkv(self.norms[0](x)).split(width, dim=2)
        split = (batch, context, self.heads, width // self.heads)
        q, k, v = (part.view(split).transpose(1, 2) for part in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, context, width))
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


class Model(nn.Module):
    """Tokens and targets to the mean loss."""

    def __init__(self, layers: int, width: int, heads: int, context: int, vocab: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, param in self.named_parameters():
            if param.ndim > 1:
                scale = (2 * layers) ** -0.5 if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(param, std=0.02 * scale)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """(batch, context) twice -> ()."""
        x = self.tokens(inputs) + self.places(torch.arange(inputs.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = functional.linear(self.norm(x), self.tokens.weight)
        return functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1), ignore_index=-1)


def stepper(
    shape: tuple[int, int, int, int, int], batch: int, tokens: Path, as_ours: torch.dtype | None = None
) -> Callable[[], None]:
    """A function that takes one training step; `as_ours`: AdamW in one kernel and autocast to this precision."""
    torch.manual_seed(0)
    model, context = Model(*shape), shape[3]
    params = list(model.parameters())
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), **({"fused": True} if as_ours else {}))
    cast = autocast(torch.device("cpu"), as_ours or torch.float32)
    steps = 0

    def drawn() -> tuple[Tensor, Tensor]:
        data = np.memmap(tokens, dtype=np.uint16, mode="r")
        starts = torch.randint(len(data) - context, (batch,))
        rows = [torch.from_numpy(data[int(i) : int(i) + context + 1].astype(np.int64)) for i in starts]
        return torch.stack([row[:-1] for row in rows]), torch.stack([row[1:] for row in rows])

    def step() -> None:
        nonlocal steps
        for group in optimizer.param_groups:
            group["lr"] = 6e-4
        with cast:
            loss = model(*drawn())
        loss.backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1
        if steps % LOG_EVERY == 0:
            loss.item()

    return step
