"""The log-linear law of Olmix (arXiv 2602.12237): L = c + exp(sum_j a_j r_j) per eval domain, at one scale.

The function of m4 (`exponential`) with the level inside the a_j, which on the simplex is no restriction; the prior is
a ridge around the level of the losses. `floor=False` is the plain log-linear regression, log L = sum_j a_j r_j.
Convex in r. Where we differ: one MAP fit on log loss; Olmix fits Huber on loss from 300 starts.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raymix.laws.base import Array, Ints, Table
from raymix.laws.exponential import SLOPE_SD
from raymix.laws.exposure import Points
from raymix.laws.separable import Normal, SeparableLaw, Term


@dataclass
class LogLinear(SeparableLaw):
    """L = c + exp(sum_j a_j r_j)."""

    name: ClassVar[str] = "log_linear"
    convex: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("mixture",)

    floor: bool = True
    """Whether there is a c, as in the paper's code."""

    @property
    def has_floor(self) -> bool:
        """As the setting says."""
        return self.floor

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        level_M = log_median_M + (np.log(0.5) if self.floor else 0.0)  # floor and term start even
        return [(np.tile(level_M[:, None], self.n_domains_), SLOPE_SD)]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        share_KB = at.rows(at.share_QK.T)
        return [
            Term(
                at.rows(theta_MP @ at.share_QK.T),
                lambda: [(slice(None), share_KB)],
                lambda: theta_MP[:, None, :],
            )
        ]
