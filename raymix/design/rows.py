"""The usable rows of a table as matrices, once per call: at thousands of rows taking them from the table costs more."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raymix.design.base import Array, Observations
from raymix.exchange import USABLE


@dataclass(frozen=True)
class Rows:
    """Rows with at least one loss; `run_B` counts their trials 0, 1, ... in order of first appearance."""

    mix_BK: Array
    scale_B2: Array
    loss_BM: Array
    run_B: NDArray[np.int64]
    unique_BK: Array
    """Unique tokens that the run could draw from; NaN where not known."""

    @classmethod
    def of(cls, table: Observations) -> "Rows":
        """As `Observations.usable`, as matrices."""
        positive_BM = np.isfinite(table.loss_BM) & (table.loss_BM > 0)
        rows = np.flatnonzero(positive_BM.any(axis=1) & np.isin(table.status_B, USABLE))
        loss_BM = np.where(positive_BM[rows], table.loss_BM[rows], np.nan)
        _, run_B = np.unique(table.run_B[rows], return_inverse=True)
        run_B, unique_BK = np.asarray(run_B, dtype=np.int64), table.unique_BK[rows]
        return cls(table.mix_BK[rows], table.scale_B2[rows], loss_BM, run_B, unique_BK)

    @property
    def n_trials(self) -> int:
        """Trials with a row."""
        return int(self.run_B.max(initial=-1)) + 1

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Rows":
        """The rows of an index array or a mask; trials keep their numbers."""
        parts = self.mix_BK[rows], self.scale_B2[rows], self.loss_BM[rows], self.run_B[rows], self.unique_BK[rows]
        return Rows(*parts)

    def whole(self) -> "Rows":
        """Those with every loss."""
        return self.take(np.asarray(np.isfinite(self.loss_BM).all(axis=1)))

    def last(self) -> "Rows":
        """The row with the most tokens of each trial."""
        order = np.lexsort((self.scale_B2[:, 1], self.run_B))
        ends = np.flatnonzero(np.append(np.diff(self.run_B[order]) != 0, True)) if len(order) else order
        return self.take(order[ends])
