"""What the data leave open, by refitting on resampled runs.

Whole runs are drawn with replacement (cluster bootstrap, Cameron, Gelbach and Miller 2008,
doi 10.1162/rest.90.3.414): the checkpoints of a run share its noise, so rows are not exchangeable, runs are.
A law's own `sd` and `sd_between` cost a tenth and cover better for intervals of losses and of
differences; refits are for what neither tells: the optimum, a rank.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from raymix.laws.base import Ints, Law, Table, fresh
from raymix.laws.hedged import HedgedUnion
from raymix.laws.rows import rows_of

MAX_REDRAWS = 100  # of a resample that leaves an eval domain without a row


def bootstrap(law: Law, table: Table, rng: np.random.Generator) -> Iterator[Law]:
    """Laws with the settings of `law`, one after another without end, each fitted to runs drawn with replacement.

    What they predict, stacked, is draws_SBM. Of a hedged law each has one of its offsets. Every fit starts at the
    prior mean, as the first did: a warm start could end in another optimum.
    """
    while True:
        rows = resample_runs(table, rng)
        yield rows.fit(law.resampled(rng) if isinstance(law, HedgedUnion) else fresh(law))


def resample_runs(table: Table, rng: np.random.Generator) -> Table:
    """As many runs as there are, drawn with replacement; one drawn twice counts as two.

    Raises:
        ValueError: an eval domain is measured in so few runs that it is left without a row again and again.
    """
    runs = rows_of(table.run_B)
    for _ in range(MAX_REDRAWS):
        chosen = rng.integers(len(runs), size=len(runs))
        rows_B = np.concatenate([runs[run] for run in chosen])
        if np.isfinite(table.loss_BM[rows_B]).any(axis=0).all():
            copy_B: Ints = np.repeat(np.arange(len(chosen)), [len(runs[run]) for run in chosen])
            return replace(table.take(rows_B), run_B=copy_B)
    raise ValueError("an eval domain is measured in too few runs to resample them")
