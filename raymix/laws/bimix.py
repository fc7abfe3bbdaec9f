"""BiMix (arXiv 2405.14908): L = A r_own^-alpha (B D^-beta + C) per eval domain; it needs to know its own domain.

Two power laws, in the share of the domain an eval domain was held out from and in tokens, multiplied; the shares of
the other domains have no effect. As its terms are fitted: (A B) (r + e)^-alpha d^-beta + (A C) (r + e)^-alpha. Convex
in r. Where we differ: r + e with a fitted offset e, because the paper's law is infinite at a share of 0. An eval
domain without a known own domain keeps the law in D alone, with a note.
"""

import numpy as np

from raymix.laws.base import Array, Ints, Table
from raymix.laws.exposure import Points
from raymix.laws.separable import Normal, SeparableLaw, Slopes, Term, level, power_law, product

SHARE_POWER, OFFSET = (np.log(0.15), 0.7), (np.log(0.02), 1.5)  # log alpha, log e; as in the effective data law
REST = (np.log(0.7), 0.5)  # log A C, added to log median L: the part no D removes


class BiMix(SeparableLaw):
    """L = A (r_own + e)^-alpha (B d^-beta + C)."""

    name = "bimix"
    convex = True
    reads = ("mixture", "n_tokens")
    has_floor = False  # A C takes its place
    alone = "so the shares have no effect"

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        rest: Normal = (log_median_M + REST[0], REST[1])
        return [*self._data_prior(log_median_M), rest, SHARE_POWER, OFFSET]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        share = power_of_share(theta_MP, 3, at, self.own_M_[active_A])
        return [product(power_law(theta_MP, 0, at.log_d_B[None]), share), product(level(theta_MP, 2), share)]


def power_of_share(theta_MP: Array, at_power: int, at: Points, own_M: Ints) -> Term:
    """(r_own + e)^-alpha, log alpha and log e side by side; 1 where there is no own domain."""
    power_M1, offset_M1 = np.exp(theta_MP[:, at_power, None]), np.exp(theta_MP[:, at_power + 1, None])
    known_M1 = (own_M >= 0).astype(np.float64)[:, None]
    moved_MB = at.rows(at.share_QK.T[own_M]) + offset_M1
    z_MB = -known_M1 * power_M1 * np.log(moved_MB)

    def by_theta() -> Slopes:
        return [(at_power, z_MB), (at_power + 1, -known_M1 * power_M1 * offset_M1 / moved_MB)]

    def by_share() -> Array:
        own_MK = np.eye(at.share_QK.shape[1])[own_M] * known_M1
        return np.asarray(-(power_M1 / moved_MB)[..., None] * own_MK[:, None, :])

    return Term(z_MB, by_theta, by_share)
