"""What the data leave open, by refitting on resampled runs.

Whole runs are drawn with replacement (cluster bootstrap, Cameron, Gelbach and Miller 2008,
doi 10.1162/rest.90.3.414): the checkpoints of a run share its noise, so rows are not exchangeable, runs are.
A law's own `sd` and `sd_between` cost a tenth and cover better for intervals of losses and of
differences; draws are for what neither tells: the optimum, a rank.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from raymix.laws.base import Array, Ints, Law, Table, as_table
from raymix.laws.rows import rows_of

MAX_REDRAWS = 100  # of a resample that leaves an eval domain without a row


def bootstrap(
    law: Law,
    mix_BK: ArrayLike,
    scale_B2: ArrayLike,
    loss_BM: ArrayLike,
    run_B: ArrayLike | None,
    own_M: ArrayLike | None,
    n_draws: int,
    rng: np.random.Generator,
    unique_BK: ArrayLike | None = None,
) -> list[Law]:
    """`n_draws` laws with the settings of `law`, each fitted from scratch on runs drawn with replacement.

    A run drawn twice counts as two runs. `law` itself is not touched and need not be fitted. Every fit
    starts at the prior mean, as the first did: a warm start could end in another optimum.
    """
    table = as_table(mix_BK, scale_B2, loss_BM, run_B, own_M, unique_BK)
    return [resample_runs(table, rng).fit(fresh(law)) for _ in range(n_draws)]


def draws(laws: Sequence[Law], mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
    """Predicted losses of every law (S, B, M), nats per token."""
    if not laws:
        raise ValueError("draws needs at least one law")
    return np.stack([law.predict(mix_BK, scale_B2) for law in laws])


def resample_runs(table: Table, rng: np.random.Generator) -> Table:
    """As many runs as there are, drawn with replacement; every eval domain keeps at least one row."""
    runs = rows_of(table.run_B)
    for _ in range(MAX_REDRAWS):
        chosen = rng.integers(len(runs), size=len(runs))
        rows_B = np.concatenate([runs[run] for run in chosen])
        if np.isfinite(table.loss_BM[rows_B]).any(axis=0).all():
            copy_B: Ints = np.repeat(np.arange(len(chosen)), [len(runs[run]) for run in chosen])
            return replace(table.take(rows_B), run_B=copy_B)
    raise ValueError("an eval domain is measured in too few runs to resample them")


def fresh(law: Law) -> Law:
    """An unfitted law with the same settings."""
    settings: Any = law  # every law is a dataclass of its settings
    copy: Law = replace(settings)
    return copy
