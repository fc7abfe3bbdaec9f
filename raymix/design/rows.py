"""The usable rows of a table as a law takes them, once per call: at thousands of rows a selected table costs more."""

import numpy as np

from raymix.design.base import Observations, SearchSpace
from raymix.exchange import USABLE
from raymix.laws.base import Table


def usable_rows(space: SearchSpace, table: Observations) -> Table:
    """As `Observations.usable`; `run_B` counts trials with such a row 0, 1, ... in order of first appearance."""
    rows = np.flatnonzero(table.good_BM.any(axis=1) & np.isin(table.status_B, USABLE))
    loss_BM = np.where(table.good_BM[rows], table.loss_BM[rows], np.nan)
    run_B = np.unique(table.run_B[rows], return_inverse=True)[1].astype(np.int64)
    return Table(table.mix_BK[rows], table.scale_B2[rows], loss_BM, run_B, space.own_M, table.unique_BK[rows])


def whole(rows: Table) -> Table:
    """Those with every loss."""
    return rows.take(np.flatnonzero(np.isfinite(rows.loss_BM).all(axis=1)))
