"""The D-CPT law (arXiv 2406.01375) of continual pre-training on two corpora, general and domain.

    L = E + A n^-al + B r^eta d^-be + C (r + eps)^-gamma

r is the share of the corpus an eval domain was held out from, or of the second domain where that is not known.
eta > 0 lets the value of more tokens fall with the share already there; it may break convexity. The paper fits all
nine parameters by L-BFGS on Huber from many starts; here there are priors and one start.
"""

import numpy as np

from raymix.laws.base import Array, Ints, Table
from raymix.laws.bimix import power_of_share
from raymix.laws.exposure import GRADIENT_FLOOR, Points
from raymix.laws.separable import Normal, SeparableLaw, Slopes, Term, level, power_law, product

SHARE_LEVEL = (np.log(0.2), 1.0)  # log C, added to log median L
SHARE_POWER, OFFSET = (np.log(0.3), 0.7), (np.log(0.02), 1.5)  # log gamma, log eps
ETA = (np.log(0.3), 1.0)


class DCPT(SeparableLaw):
    """L = E + A n^-al + B r^eta d^-be + C (r + eps)^-gamma."""

    name = "dcpt"
    convex = False
    alone = "read as a function of the second share"

    def _look_at(self, table: Table) -> None:
        if table.mix_BK.shape[1] != 2:
            raise ValueError(f"dcpt is a law of two training domains, got {table.mix_BK.shape[1]}")
        super()._look_at(table)

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        share_level: Normal = (log_median_M + SHARE_LEVEL[0], SHARE_LEVEL[1])
        scalars = self._size_prior(log_median_M) + self._data_prior(log_median_M)
        return [*scalars, ETA, share_level, SHARE_POWER, OFFSET]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        own_M = np.where(self.own_M_[active_A] < 0, 1, self.own_M_[active_A])
        size, data = power_law(theta_MP, 0, at.log_n_B[None]), power_law(theta_MP, 2, at.log_d_B[None])
        return [
            size,
            product(data, _growing(theta_MP, 4, at, own_M)),
            product(level(theta_MP, 5), power_of_share(theta_MP, 6, at, own_M)),
        ]


def _growing(theta_MP: Array, eta: int, at: Points, own_M: Ints) -> Term:
    """r^eta, 0 at r = 0."""
    eta_M1, share_MB = np.exp(theta_MP[:, eta, None]), at.rows(at.share_QK.T[own_M])
    log_share_MB = np.log(np.maximum(share_MB, GRADIENT_FLOOR))
    z_MB = np.where(share_MB > 0, eta_M1 * log_share_MB, -np.inf)

    def by_theta() -> Slopes:
        return [(eta, eta_M1 * log_share_MB)]

    def by_share() -> Array:
        return (eta_M1 / np.maximum(share_MB, GRADIENT_FLOOR))[..., None] * np.eye(2)[own_M][:, None, :]

    return Term(z_MB, by_theta, by_share)
