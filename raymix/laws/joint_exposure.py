"""The joint law, "effective exposure": L = E + (N sum_j u_j r_j)^-al + (sum_j tau_j D'_j)^-be per eval domain.

D'_j are the effective tokens of domain j under repetition (arXiv 2305.16264): of n_j = r_j D tokens drawn
from U_j unique ones, D'_j = n_j up to U_j, and U_j (1 + R* (1 - exp(-(n_j / U_j - 1) / R*))) beyond. It nests
Chinchilla (fixed r) and AutoScale (tau diagonal). D'_j is concave in r_j, so L is convex in r, repetition included.
Here the levels of u and tau stand apart: A (n sum_j u_j r_j)^-al + B (sum_j tau_j D'_j / D0)^-be, the same surface.
Shares count linearly; where r is often exactly 0 the saturating shares of the union law predict better.
"""

from dataclasses import dataclass

import numpy as np

from raymix.laws.base import Array, Ints, Table
from raymix.laws.exposure import Points
from raymix.laws.repetition import REPEAT_VALUE, worth
from raymix.laws.separable import Normal, SeparableLaw, Slopes, Term, power_law
from raymix.laws.union_forms import ANY_WEIGHT, OTHER_WEIGHT, WEIGHT_SD, own_weights


@dataclass
class JointExposure(SeparableLaw):
    """L = E + A (n sum_j u_j r_j)^-al + B (sum_j tau_j D'_j / D0)^-be."""

    name = "joint"
    convex = True

    unique_K: tuple[float, ...] | None = None
    """Unique tokens of each training domain that a run can draw from; without it no token is a repeat."""
    repeat_value: float = REPEAT_VALUE
    """R* of the repetition law."""

    def _look_at(self, table: Table) -> None:
        super()._look_at(table)
        if self.unique_K is None:
            return
        if len(self.unique_K) != self.n_domains_ or not all(tokens > 0 for tokens in self.unique_K):
            raise ValueError(f"unique_K must be {self.n_domains_} numbers of tokens > 0, got {list(self.unique_K)}")

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        weight_MK = own_weights(table.own_M, self.n_domains_, OTHER_WEIGHT, ANY_WEIGHT)
        scalars = self._size_prior(log_median_M) + self._data_prior(log_median_M)
        return [*scalars, (weight_MK, WEIGHT_SD), (weight_MK, WEIGHT_SD)]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        k, share_BK = self.n_domains_, at.rows(at.share_QK.T).T
        tokens_BK, slope_BK = self._effective_tokens(share_BK, np.exp(at.log_d_B))
        return [
            _exposure(theta_MP, 0, slice(4, 4 + k), at.log_n_B, share_BK, np.ones_like(share_BK)),
            _exposure(theta_MP, 2, slice(4 + k, 4 + 2 * k), np.zeros_like(at.log_d_B), tokens_BK, slope_BK),
        ]

    def _effective_tokens(self, share_BK: Array, d_B: Array) -> tuple[Array, Array]:
        """D'_j / D0 and its slope in r_j (B, K)."""
        drawn_BK = share_BK * d_B[:, None]
        if self.unique_K is None:
            return drawn_BK, np.broadcast_to(d_B[:, None], drawn_BK.shape)
        epochs_BK = drawn_BK * self.origin_2_[1] / np.asarray(self.unique_K)
        worn = worth(epochs_BK, np.log([self.repeat_value]))
        return drawn_BK * np.exp(worn.log_MBK[0]), d_B[:, None] * worn.slope_MBK[0]


def _exposure(theta_MP: Array, at: int, weights: slice, log_x_B: Array, part_BK: Array, slope_BK: Array) -> Term:
    """The power law of e^log_x sum_j w_j part_j, where d part_j / dr_j = slope_j."""
    weight_MK = np.exp(theta_MP[:, weights])
    whole_MB = weight_MK @ part_BK.T

    def by_theta() -> Slopes:
        return [(weights, weight_MK[:, :, None] * part_BK.T / whole_MB[:, None, :])]

    return power_law(
        theta_MP,
        at,
        log_x_B + np.log(whole_MB),
        by_theta,
        lambda: weight_MK[:, None, :] * slope_BK / whole_MB[..., None],
    )
