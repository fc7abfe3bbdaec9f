"""Losses of a proxy on held-out text: mean and standard error per eval domain, always on the same sequences.

An encoder is asked for the same masked tokens of them every time; the masks follow from the eval domain's name.

Letters: M eval domains.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymix.corpus.shards import Corpus
from raymix.proxy.head import token_losses
from raymix.proxy.model import autocast, before_head, head_bias, head_weight, on_device
from raymix.proxy.task import Example, example
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
    names = [eval_domain.name for eval_domain in space.eval_domains]
    return {name: _spread(corpus.eval(name), space.recipe.context, space.recipe.eval_tokens) for name in names}


def _spread(tokens: NDArray[Any], context: int, eval_tokens: int) -> NDArray[np.int64]:
    context = min(context, len(tokens) - 1)  # a short text is one short sequence
    held = (len(tokens) - 1) // context
    starts = (
        np.linspace(0, held - 1, min(held, max(1, round(eval_tokens / context)))).round().astype(np.int64) * context
    )
    return np.stack([tokens[start : start + context + 1].astype(np.int64) for start in starts])


def evaluate(
    model: Any,
    sequences: dict[str, NDArray[np.int64]],
    device: torch.device,
    dtype: torch.dtype,
    mask_token: int | None = None,
    alive: Callable[[], None] = lambda: None,
) -> dict[str, EvalLoss]:
    """Loss per eval domain on the given sequences; calls `alive` after each."""
    vocab = len(head_weight(model)) - 1
    tasks = {name: example(tokens, mask_token, vocab, _key(name)) for name, tokens in sequences.items()}
    found = {}
    for name, task in tasks.items():
        found[name] = _loss(model, task, device, dtype)
        alive()
    return found


def not_finite(losses: dict[str, EvalLoss]) -> str | None:
    """Which loss makes the run one that diverged, in words; None where all are finite."""
    bad = (name for name, loss in losses.items() if not math.isfinite(loss.mean))
    return next((f"the loss on eval domain {name!r} is {losses[name].mean}" for name in bad), None)


def _key(eval_domain: str) -> list[int]:
    return list(hashlib.sha256(f"eval/{eval_domain}".encode()).digest())


@torch.no_grad()
def losses_of(model: Any, task: Example, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Loss (rows,) of every predicted token, nats."""
    inputs, places, targets = on_device(task, device)
    with autocast(device, dtype):
        hidden = before_head(model, inputs, places)
    return token_losses(hidden, head_weight(model), targets.flatten(), dtype, head_bias(model))


def _loss(model: Any, task: Example, device: torch.device, dtype: torch.dtype) -> EvalLoss:
    n_sequences, context = task.inputs.shape
    rows = max(1, (CPU_TOKENS if device.type == "cpu" else GPU_TOKENS) // context)
    parts = [task.rows(slice(start, start + rows)) for start in range(0, n_sequences, rows)]
    means = [losses_of(model, part, device, dtype).view(len(part.inputs), -1).mean(1) for part in parts]
    per_sequence = torch.cat(means).double().cpu().numpy()
    error = per_sequence.std(ddof=1) / len(per_sequence) ** 0.5 if len(per_sequence) > 1 else float("nan")
    return EvalLoss(float(per_sequence.mean()), float(error))
