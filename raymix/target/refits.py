"""The rows of a study as a law reads them, and laws refitted to bootstrap samples of them: what the truth may be.

Letters: B rows, K training domains, M eval domains.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from raymix.laws import Law, bootstrap
from raymix.laws.base import Table, as_table
from raymix.laws.fit import SIG_RANGE
from raymix.laws.repetition import at_rows, stocked
from raymix.laws.robust import tamed
from raymix.observations import Observations
from raymix.space import SearchSpace
from raymix.target.objective import ObjectiveAtScale


def rows_of(space: SearchSpace, usable: Observations) -> Table:
    """What a law of the space is fitted to."""
    return as_table(usable.mix_BK, usable.scale_B2, usable.loss_BM, usable.run_B, space.own_M, usable.unique_BK)


def refits(
    objective: ObjectiveAtScale, space: SearchSpace, usable: Observations, rng: np.random.Generator
) -> Iterator[ObjectiveAtScale]:
    """The objective under one law after another, each fitted to whole trials drawn with replacement."""
    for law in bootstrap(objective.law, _tamed(rows_of(space, usable), objective.law), rng):
        yield replace(objective, law=stocked(law, space.available_K))


def _tamed(table: Table, law: Law) -> Table:
    """The table with no loss absurdly far from the law: drawn twice, one would carry a whole refit away."""
    pred_BM = at_rows(law, table).predict(table.mix_BK, table.scale_B2)
    log_MB = np.log(table.loss_BM / pred_BM).T
    near_MB = tamed(log_MB, np.full(len(log_MB), SIG_RANGE[0]))
    return replace(table, loss_BM=np.where(near_MB == log_MB, table.loss_BM.T, pred_BM.T * np.exp(near_MB)).T)
