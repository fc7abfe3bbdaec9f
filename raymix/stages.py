"""Runs whose mixture changes from stage to stage, as rows of the observation table.

A run in stages is a run as any other: `n_tokens` counts from the start of the first stage and `mixture/<domain>` are
the cumulative shares seen up to there; a stage's start is the last stage's end. That keeps laws and checks as they
are, and gives up the order of the data, which a law over shares cannot see anyway.

Letters: K training domains.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from raymix.simplex import SUM_TOLERANCE, Array


class Stage(NamedTuple):
    """A part of a run: the mixture it draws from and the tokens it trains on."""

    mixture_K: Array
    n_tokens: float


def seen(stages: Sequence[Stage]) -> list[Stage]:
    """At the end of every stage, the cumulative mixture and the tokens since the start: rows of the table.

    Raises:
        ValueError: a mixture is none, or a stage has no tokens.
    """
    tokens_K, rows = np.zeros(len(stages[0].mixture_K)) if stages else np.zeros(0), []
    for i, stage in enumerate(stages):
        mix_K = _mixture(stage, len(tokens_K), f"stage {i}")
        if not 0 < stage.n_tokens < np.inf:
            raise ValueError(f"stage {i}: n_tokens is {stage.n_tokens}, it must be above 0")
        tokens_K = tokens_K + mix_K / mix_K.sum() * stage.n_tokens
        rows.append(Stage(tokens_K / tokens_K.sum(), float(tokens_K.sum())))
    return rows


def stages(rows: Sequence[Stage]) -> list[Stage]:
    """The stages behind cumulative rows: `seen`, backwards.

    Raises:
        ValueError: as `this_stage`.
    """
    before = [Stage(np.zeros_like(row.mixture_K), 0.0) for row in rows[:1]]
    return [this_stage(start, end) for start, end in zip([*before, *rows[:-1]], rows, strict=True)]


def this_stage(before: Stage, row: Stage) -> Stage:
    """What was trained on between two cumulative rows of a run, `before` first.

    Raises:
        ValueError: a mixture is none, tokens do not grow, or a domain's tokens fall.
    """
    n_tokens = row.n_tokens - before.n_tokens
    if not 0 < n_tokens < np.inf:
        raise ValueError(f"n_tokens goes from {before.n_tokens:g} to {row.n_tokens:g}: a stage must add tokens")
    drawn_K = _mixture(row, len(row.mixture_K), "the later row") * row.n_tokens
    if before.n_tokens > 0:
        drawn_K = drawn_K - _mixture(before, len(drawn_K), "the earlier row") * before.n_tokens
    if (drawn_K < -SUM_TOLERANCE * row.n_tokens).any():
        k = int(np.argmin(drawn_K))
        raise ValueError(f"domain {k} has {-drawn_K[k]:.4g} tokens less than before: these rows are not of one run")
    drawn_K = np.maximum(drawn_K, 0.0)
    return Stage(drawn_K / drawn_K.sum(), float(n_tokens))


def _mixture(stage: Stage, n_domains: int, which: str) -> Array:
    """Its shares (K,), checked."""
    mix_K = np.asarray(stage.mixture_K, float)
    if mix_K.shape != (n_domains,) or not (mix_K >= 0).all() or not abs(mix_K.sum() - 1) <= SUM_TOLERANCE:
        raise ValueError(f"{which}: {n_domains} shares from 0 to 1 that sum to 1 are needed, got {mix_K}")
    return mix_K
