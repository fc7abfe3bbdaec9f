"""What a trial was really trained on, where its trainer tells the tokens that it drew of each domain.

A trainer may miss the shares that were proposed: it draws documents, or a domain ran out. The law is fitted to what was
seen. Shares that miss by less than a row may (1%) are those proposed, so that replicates stay replicates.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from raymix.exchange import SUM_ERROR
from raymix.space import SearchSpace
from raymix.study.trial import Trial

SAME_TOTAL = 0.05  # by which tokens drawn may miss those told in all


def tokens_drawn(space: SearchSpace, trial: Trial, row: Mapping[str, Any]) -> dict[str, float] | None:
    """Tokens by domain, where a row says them of every domain that was proposed; else None.

    Proxies of ours draw what was proposed, up to one sequence; stages draw another mixture on purpose.
    """
    if space.trains_proxies or space.recipe.stages:
        return None
    told = {name: row.get(f"tokens/{name}") for name in space.domain_names}
    known = {name: float(tokens) for name, tokens in told.items() if tokens is not None and _is_count(tokens)}
    whole = all(name in known for name, share in trial.mixture.items() if share > 0)
    return {name: known.get(name, 0.0) for name in told} if whole and sum(known.values()) > 0 else None


def mixture_drawn(
    space: SearchSpace, trial: Trial, row: Mapping[str, Any], n_tokens: float
) -> tuple[dict[str, float], str | None]:
    """The mixture that a row is of, and a sentence where that is not the one proposed or cannot be told."""
    drawn = tokens_drawn(space, trial, row)
    if drawn is None:
        return trial.mixture, None
    total = sum(drawn.values())
    shares = {name: tokens / total for name, tokens in drawn.items()}
    name = max(shares, key=lambda name: abs(shares[name] - trial.mixture[name]))
    if abs(shares[name] - trial.mixture[name]) <= SUM_ERROR:
        return trial.mixture, None
    added = n_tokens - trial.after[-1] if trial.after else n_tokens
    if min(abs(total / max(whole, 1.0) - 1) for whole in (n_tokens, added)) > SAME_TOTAL:
        said = f"tokens drawn sum to {total:.4g}, but n_tokens is {n_tokens:.4g}: its mixture counts as proposed"
        return trial.mixture, f"trial {trial.trial_id}: {said}"
    said = f"{shares[name]:.1%} of the tokens drawn were {name!r}, but {trial.mixture[name]:.1%} was proposed"
    return shares, f"trial {trial.trial_id}: {said}; its mixture counts as drawn"


def _is_count(tokens: Any) -> bool:
    return isinstance(tokens, int | float | np.number) and math.isfinite(tokens) and bool(tokens >= 0)
