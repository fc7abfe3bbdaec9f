"""The log-linear law of Olmix (arXiv 2602.12237): L = c + exp(sum_j a_j r_j) per eval domain, at one scale.

The function of m4 (`exponential`): the level k lies inside the a_j, which on the simplex is no restriction.
`floor=False` is the plain log-linear regression, log L = m + sum_j a_j (r_j - mean r_j) with a ridge on a. Convex in
r. Where we differ: one MAP fit on log loss; Olmix fits Huber on loss from 300 starts.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raymix.laws.base import Array, Ints, Table
from raymix.laws.exponential import M4, MEAN_SD, MEAN_SLOPE_SD
from raymix.laws.exposure import Points
from raymix.laws.separable import Normal, Term, level, product


@dataclass
class LogLinear(M4):
    """L = c + exp(sum_j a_j r_j)."""

    name: ClassVar[str] = "log_linear"
    convex: ClassVar[bool] = True

    floor: bool = True
    """Whether there is a c, as in the released code."""

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        if self.floor:
            return super()._prior(log_median_M, table)
        return [(log_median_M, MEAN_SD), (np.zeros((len(log_median_M), self.n_domains_)), MEAN_SLOPE_SD)]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        if self.floor:
            return super()._terms(theta_MP, at, active_A)
        a_MK, off_KB = theta_MP[:, 1:], at.rows((at.share_QK - self.center_K_).T)
        slopes = Term(a_MK @ off_KB, lambda: [(slice(1, None), off_KB)], lambda: a_MK[:, None, :])
        return [product(level(theta_MP, 0), slopes)]
