"""Losses of a proxy on held-out text: mean and standard error per eval domain, always on the same sequences.

Letters: M eval domains.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from raymix.corpus.shards import Corpus
from raymix.proxy.head import token_losses
from raymix.proxy.model import autocast, head_weight, hidden_states
from raymix.space import SearchSpace

CPU_TOKENS = 1024  # at once: activations stay in the cache of a core
GPU_TOKENS = 1 << 16


class EvalLoss(NamedTuple):
    """Nats per token, with the standard error over sequences."""

    mean: float
    error: float


def held_out(corpus: Corpus, space: SearchSpace) -> dict[str, NDArray[np.int64]]:
    """Per eval domain (sequences, context + 1) tokens, spread evenly over its held-out text.

    About `recipe.eval_tokens` tokens; where less text is held out, all of it.
    """
    return {
        name: _spread(corpus.eval(name), space.recipe.context, space.recipe.eval_tokens) for name in space.eval_names
    }


def _spread(tokens: NDArray[Any], context: int, eval_tokens: int) -> NDArray[np.int64]:
    context = min(context, len(tokens) - 1)  # a short text is one short sequence
    held = (len(tokens) - 1) // context
    starts = (
        np.linspace(0, held - 1, min(held, max(1, round(eval_tokens / context)))).round().astype(np.int64) * context
    )
    return np.stack([tokens[start : start + context + 1].astype(np.int64) for start in starts])


def evaluate(
    model: Any, sequences: dict[str, NDArray[np.int64]], device: torch.device, dtype: torch.dtype
) -> dict[str, EvalLoss]:
    """Loss per eval domain on the given sequences."""
    return {name: _loss(model, tokens, device, dtype) for name, tokens in sequences.items()}


@torch.no_grad()
def _loss(model: Any, tokens: NDArray[np.int64], device: torch.device, dtype: torch.dtype) -> EvalLoss:
    rows = max(1, (CPU_TOKENS if device.type == "cpu" else GPU_TOKENS) // (tokens.shape[1] - 1))
    means = [_sequence_means(model, tokens[i : i + rows], device, dtype) for i in range(0, len(tokens), rows)]
    per_sequence = np.concatenate(means)
    error = per_sequence.std(ddof=1) / len(per_sequence) ** 0.5 if len(per_sequence) > 1 else float("nan")
    return EvalLoss(float(per_sequence.mean()), float(error))


def _sequence_means(
    model: Any, tokens: NDArray[np.int64], device: torch.device, dtype: torch.dtype
) -> NDArray[np.float64]:
    batch = torch.from_numpy(tokens).to(device)
    with autocast(device, dtype):
        hidden = hidden_states(model, batch[:, :-1].contiguous())
    losses = token_losses(hidden.flatten(0, 1), head_weight(model), batch[:, 1:].flatten(), dtype)
    return np.asarray(losses.view(len(batch), -1).mean(1).cpu().numpy(), dtype=np.float64)
