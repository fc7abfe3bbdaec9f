"""What designers see of a table, and the plain answers from it.

The default sees every usable row. A method that knows one scale sees the last row of every trial at the scale trained
most often; it answers with the optimum of a law fitted to those, or the mixture with the least objective so far.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from raymix import simplex
from raymix.design.base import Array, Observations, SearchSpace
from raymix.exchange import USABLE
from raymix.laws import Law
from raymix.laws.base import Table
from raymix.target.answer import MIN_TRIALS
from raymix.target.objective import objective_of, objective_values
from raymix.target.optimum import minimise


def usable_rows(space: SearchSpace, table: Observations) -> Table:
    """As `Observations.usable`, as a law takes them; `run_B` counts their trials 0, 1, ... in order of appearance.

    At thousands of rows these are taken in a third of the time.
    """
    rows = np.flatnonzero(table.good_BM.any(axis=1) & np.isin(table.status_B, USABLE))
    loss_BM = np.where(table.good_BM[rows], table.loss_BM[rows], np.nan)
    run_B = np.unique(table.run_B[rows], return_inverse=True)[1].astype(np.int64)
    return Table(table.mix_BK[rows], table.scale_B2[rows], loss_BM, run_B, space.own_M, table.unique_BK[rows])


def whole(rows: Table) -> Table:
    """Those with every loss."""
    return rows.take(np.flatnonzero(np.isfinite(rows.loss_BM).all(axis=1)))


def one_scale(space: SearchSpace, table: Observations) -> Observations:
    """Last rows with every loss that the objective reads, at the commonest size and length; of equals the largest."""
    last = table.usable().last()
    measured_B = np.isfinite(last.loss_BM[:, space.weights_M > 0]).all(axis=1) if len(last) else np.zeros(0, bool)
    last = last.select(np.asarray(measured_B))
    if not len(last):
        return last
    count = np.bincount(last.scale_group_B)
    return last.select(last.scale_group_B == len(count) - 1 - int(np.argmax(count[::-1])))


def enough(rows: Observations) -> bool:
    """Whether a law can be fitted on these rows: there are a few, and every eval domain was measured in some."""
    return len(rows) >= MIN_TRIALS and bool(np.isfinite(rows.loss_BM).any(axis=0).all())


def optimum_by(space: SearchSpace, rows: Observations, fit: Callable[[], Law], pull: float | None = None) -> Array:
    """The optimum (K,) at the target of a law fitted on these rows; the prior where they are too few."""
    if not enough(rows):
        return prior_inside(space)
    objective = objective_of(space, fit())
    return minimise(objective if pull is None else replace(objective, pull=pull), space.polytope()).mixture_K


def best_seen(space: SearchSpace, table: Observations) -> Array:
    """The mixture (K,) with the least objective among trials of one scale; the prior where there is none."""
    rows = one_scale(space, table)
    if not len(rows):
        return prior_inside(space)
    return simplex.project(space.polytope(), rows.mix_BK[int(np.argmin(objective_values(space, rows.loss_BM)))])


def prior_inside(space: SearchSpace) -> Array:
    """The prior moved into the polytope (K,)."""
    return simplex.project(space.polytope(), space.prior_K())
