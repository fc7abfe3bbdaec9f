"""Data Mixing Laws (arXiv 2403.16952, section 3.2): losses exponential in the shares, at one scale.

    m1   L = c + sum_j k_j exp(t_j r_j)
    m2   L = c + k sum_j exp(t_j r_j)
    m3   L = c + k exp(T prod_j K r_j)            (the paper's prod_j t_j r_j: only the product of the t_j matters)
    m4   L = c + k exp(sum_j t_j r_j)             the paper's choice
    implicit   L = c + sum_h k_h exp(sum_j t_hj r_j), h hidden domains (its section 3.3)

k > 0, t of any sign. All but m3 are convex in r. On the simplex k and the t_j of m4 are degenerate (a constant added
to every t_j is a factor on k): the prior settles it. Where we differ: one MAP fit on log loss in place of Huber on
loss with thousands of starts of LBFGS. N and D have no place here: fit one scale.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raymix.laws.base import Array, Ints, Table
from raymix.laws.exposure import Points
from raymix.laws.separable import ONE, Normal, SeparableLaw, Slopes, Term

LEVEL, LEVEL_SD = np.log(0.5), 1.0  # of all terms together over median L; floor and level start even
SLOPE_SD = 3.0  # of t: e^3 = 20 times between shares of 0 and 1 is within reach
HIDDEN_START = -2.0  # mean of t of a hidden domain in the training domain it starts from: sets them apart


def exponential(theta_MP: Array, k: int, t: slice, at: Points) -> Term:
    """exp(log k + sum_j t_j r_j)."""
    t_MK = theta_MP[:, t]
    z_MB = theta_MP[:, k, None] + at.rows(t_MK @ at.share_QK.T)
    share_KB = at.rows(at.share_QK.T)
    return Term(z_MB, lambda: [(k, ONE), (t, share_KB)], lambda: t_MK[:, None, :])


def one_share(theta_MP: Array, k: int, t: int, j: int, at: Points) -> Term:
    """exp(log k + t r_j)."""
    share_B = at.rows(at.share_QK[:, j])
    unit_K = np.eye(at.share_QK.shape[1])[j]
    slope_M1 = theta_MP[:, t, None]
    return Term(
        theta_MP[:, k, None] + slope_M1 * share_B,
        lambda: [(k, ONE), (t, share_B[None])],
        lambda: slope_M1[..., None] * unit_K,
    )


@dataclass
class M1(SeparableLaw):
    """L = c + sum_j k_j exp(t_j r_j)."""

    name: ClassVar[str] = "m1"
    convex: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("mixture",)

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        n_domains = self.n_domains_
        level_MK = np.tile(log_median_M[:, None] + LEVEL - np.log(n_domains), n_domains)
        return [(level_MK, LEVEL_SD), (np.zeros_like(level_MK), SLOPE_SD)]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        return [one_share(theta_MP, j, self.n_domains_ + j, j, at) for j in range(self.n_domains_)]


@dataclass
class M2(SeparableLaw):
    """L = c + k sum_j exp(t_j r_j)."""

    name: ClassVar[str] = "m2"
    convex: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("mixture",)

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        slopes_MK = np.zeros((len(log_median_M), self.n_domains_))
        return [(log_median_M + LEVEL - np.log(self.n_domains_), LEVEL_SD), (slopes_MK, SLOPE_SD)]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        return [one_share(theta_MP, 0, 1 + j, j, at) for j in range(self.n_domains_)]


@dataclass
class M3(SeparableLaw):
    """L = c + k exp(T prod_j K r_j); blind to any mixture with a share of 0, as in the paper."""

    name: ClassVar[str] = "m3"
    convex: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ("mixture",)

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        return [(log_median_M + LEVEL, LEVEL_SD), (0.0, SLOPE_SD)]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        scaled_QK = self.n_domains_ * at.share_QK  # 1 at the uniform mixture, where the product is largest
        product_B = at.rows(scaled_QK.prod(axis=1))
        slope_M1 = theta_MP[:, 1:]

        def by_theta() -> Slopes:
            return [(0, ONE), (1, product_B[None])]

        def by_share() -> Array:
            left_QK = np.cumprod(np.column_stack([np.ones(len(scaled_QK)), scaled_QK[:, :-1]]), axis=1)
            right_QK = np.cumprod(np.column_stack([np.ones(len(scaled_QK)), scaled_QK[:, :0:-1]]), axis=1)[:, ::-1]
            return np.asarray(slope_M1[..., None] * (self.n_domains_ * left_QK * right_QK))

        return [Term(theta_MP[:, :1] + slope_M1 * product_B, by_theta, by_share)]


@dataclass
class M4(SeparableLaw):
    """L = c + k exp(sum_j t_j r_j)."""

    name: ClassVar[str] = "m4"
    convex: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("mixture",)

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        return [(log_median_M + LEVEL, LEVEL_SD), (np.zeros((len(log_median_M), self.n_domains_)), SLOPE_SD)]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        return [exponential(theta_MP, 0, slice(1, None), at)]


@dataclass
class Implicit(SeparableLaw):
    """L = sum_h s_h [c_h + k_h exp(sum_j t_hj r_j)] for an eval set that is a blend of hidden domains.

    s (on the simplex) cannot be told from c and k: the sum of s_h c_h is one floor, s_h k_h one level, so these are
    what is learned, and the surface is the paper's. Not convex in its parameters: hidden domains are alike but for
    where they start, each at one training domain, those first whose share tells most about the loss.
    """

    name: ClassVar[str] = "implicit"
    convex: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("mixture",)

    hidden: int | None = None
    """Number of hidden domains; as many as training domains if left out."""

    def __post_init__(self) -> None:
        if self.hidden is not None and self.hidden < 1:
            raise ValueError(f"hidden = {self.hidden}: there is at least one hidden domain")

    @property
    def n_hidden_(self) -> int:
        """Hidden domains in use."""
        return self.n_domains_ if self.hidden is None else self.hidden

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        level_MH = np.tile(log_median_M[:, None] + LEVEL - np.log(self.n_hidden_), self.n_hidden_)
        start_MHK = np.zeros((*level_MH.shape, self.n_domains_))
        order_MK = _telling(table)
        for h in range(self.n_hidden_):
            turn = 1 + h // self.n_domains_  # the second hidden domain of one training domain starts farther out
            start_MHK[np.arange(len(start_MHK)), h, order_MK[:, h % self.n_domains_]] = HIDDEN_START * turn
        return [(level_MH, LEVEL_SD), (start_MHK.reshape(len(start_MHK), -1), SLOPE_SD)]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        n_hidden, k = self.n_hidden_, self.n_domains_
        slots = [slice(n_hidden + h * k, n_hidden + (h + 1) * k) for h in range(n_hidden)]
        return [exponential(theta_MP, h, slots[h], at) for h in range(n_hidden)]


def _telling(table: Table) -> Ints:
    """Training domains of each eval domain (M, K), the largest |covariance| of share and log loss first."""
    log_BM = np.log(table.loss_BM)
    off_BM = np.where(np.isnan(log_BM), 0.0, log_BM - np.nanmean(log_BM, axis=0))
    pull_MK = off_BM.T @ (table.mix_BK - table.mix_BK.mean(axis=0))
    return np.argsort(-np.abs(pull_MK), axis=1, kind="stable")
