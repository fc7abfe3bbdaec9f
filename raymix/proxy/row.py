"""A row of the observation table, from the losses of a proxy after some steps of its plan."""

import math
from collections.abc import Mapping
from typing import Any

from raymix.corpus.shards import Corpus
from raymix.proxy.evaluate import EvalLoss
from raymix.proxy.plan import Batches
from raymix.space import SearchSpace


def row_of(
    space: SearchSpace, corpus: Corpus, batches: Batches, n_steps: int, losses: Mapping[str, EvalLoss]
) -> dict[str, Any]:
    """Columns after `n_steps` steps, all but the seconds; `flops` without those of a run that this one goes on from."""
    shape, begun = batches.shape, batches.before
    n_tokens = n_steps * shape.tokens_per_step
    row: dict[str, Any] = {"n_params": float(shape.n_params), "n_tokens": float(n_tokens)}
    for name, loss in losses.items():
        row[f"loss/{name}"] = loss.mean
        row[f"loss_se/{name}"] = loss.error
        row[f"bpb/{name}"] = loss.mean / math.log(2) / corpus.bytes_per_token[name]
    row |= _by_domain("tokens", space, batches.drawn_K(n_steps))
    row |= _by_domain("unique", space, batches.unique_K * shape.context)
    if not space.recipe.stages and len(batches.stages) > 1 and n_steps:
        drawn_K = batches.drawn_K(n_steps)
        row |= _by_domain("mixture", space, drawn_K / drawn_K.sum())
    return {**row, "flops": shape.flops_per_token * (n_tokens - (begun.shape.n_tokens if begun else 0))}


def to_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON has it: no NaN."""
    return {key: None if value != value else value for key, value in row.items()}


def from_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row that `to_json` was given."""
    return {key: float("nan") if value is None else value for key, value in row.items()}


def _by_domain(prefix: str, space: SearchSpace, values_K: Any) -> dict[str, float]:
    return {f"{prefix}/{name}": float(value) for name, value in zip(space.domain_names, values_K, strict=True)}
