"""Causal attention in blocks of rows: what the mask hides is not computed. The way of decoders on CPUs.

Eager attention works out all pairs of places and throws half of them away; torch's fused kernel does not, but its
backward pass is slow in bfloat16 on a CPU (30 ms a layer of 8 x 4 x 256 x 256 pairs, where eager takes 12). Here a
block of queries meets the keys up to its own end, with the mask added within the matrix product.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

BLOCK = 128  # queries
LONGEST = 1024  # context: half of all pairs of places are kept for the way back
NAME = "causal_blocks"


def causal_blocks(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """softmax(query key' x scaling) value over places up to the query's own.

    Args:
        module: not read.
        query: (batch, heads, context, head), as key and value.
        attention_mask: not read: sequences are whole.
        options: `scaling`, the root of 1 / head if left out; no dropout.

    Returns:
        (batch, context, heads, head), and no weights: what transformers expects of an attention function.
    """
    batch, heads, context, head = query.shape
    scaling = options.get("scaling") or head**-0.5
    q, k, v = (part.reshape(batch * heads, context, head).to(value.dtype) for part in (query * scaling, key, value))
    found = []
    with torch.autocast(query.device.type, enabled=False):  # softmax sums in float32 also where it reads bfloat16
        for start in range(0, context, BLOCK):
            end = min(start + BLOCK, context)
            mask = _mask(end - start, end, q.dtype, q.device)
            weights = torch.softmax(torch.baddbmm(mask, q[:, start:end], k[:, :end].mT), -1)
            found.append(torch.bmm(weights, v[:, :end]))
    return torch.cat(found, 1).view(batch, heads, context, head).transpose(1, 2), None


@cache
def _mask(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(rows, columns): 0 where the last `rows` of `columns` places may look, -inf beyond."""
    hidden = torch.full((rows, columns), float("-inf"), dtype=dtype, device=device)
    return hidden.triu(columns - rows + 1)


def register() -> None:
    """Make it known to transformers by its name."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, causal_blocks)
