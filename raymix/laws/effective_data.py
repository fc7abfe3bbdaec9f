"""The effective data law: L = c + A (e + sum_j s_j r_j^b)^-g per eval domain, at one scale.

A share r_j counts as s_j r_j^b of useful data (0 < b <= 1: the first tokens of a domain count most), and the loss is
a power law of the sum. s, e, A, g > 0, so L is convex in r: one optimum, and a certificate. It is the union law at
one size and one D, without its pooling and without its reserve of N and D; found for this project.
"""

import numpy as np

from raymix.laws.base import Array, Ints, Table
from raymix.laws.exposure import Factor, Points, log_factor_slope, sigmoid
from raymix.laws.separable import ONE, Normal, SeparableLaw, Slopes, Term, power_law
from raymix.laws.union_forms import own_weights

# Priors as (mean, sd); the level is added to log median L.
LEVEL, POWER = (np.log(0.5), 1.5), (np.log(0.15), 0.7)  # log A, log g
SHARE_POWER, OFFSET = (1.0, 1.5), (np.log(0.02), 1.5)  # logit b, log e
OTHER_WEIGHT, WEIGHT_SD = np.log(0.05), 2.0  # log s; 0 for the own training domain


class EffectiveData(SeparableLaw):
    """L = c + A (e + sum_j s_j r_j^b)^-g."""

    name = "effective_data"
    convex = True
    reads = ("mixture",)

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        weight_MK = own_weights(table.own_M, self.n_domains_, OTHER_WEIGHT, OTHER_WEIGHT)
        return [(log_median_M + LEVEL[0], LEVEL[1]), POWER, SHARE_POWER, OFFSET, (weight_MK, WEIGHT_SD)]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        b_M, offset_M, weight_MK = sigmoid(theta_MP[:, 2]), np.exp(theta_MP[:, 3]), np.exp(theta_MP[:, 4:])
        factor = Factor.of(at, b_M, weight_MK, offset_M)

        def by_theta() -> Slopes:
            by_weight_MKB = np.empty((*weight_MK.shape, len(at.log_n_B)))
            by_power_MB, by_offset_MB, _ = factor.slopes(slice(None), ONE, by_weight_MKB)
            return [(2, by_power_MB), (3, by_offset_MB), (slice(4, None), by_weight_MKB)]

        def by_share() -> Array:
            return log_factor_slope(at.share_QK, weight_MK, offset_M, b_M)[1]

        return [power_law(theta_MP, 0, factor.log_rows(), by_theta, by_share)]
