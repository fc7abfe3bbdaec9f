"""Scaling laws for optimal data mixtures (arXiv 2507.09404): Chinchilla with a mixture.

    apple_additive   L = E + 1 / sum_j C_j r_j^g_j + A n^-al + B d^-be
    apple_joint      L = E + 1 / sum_j C_j r_j^g_j + A(r) n^-al + B(r) d^-be,
                     A(r) = A (sum_j a_j r_j)^gA,   B(r) = B (sum_j b_j r_j)^gB

In the additive law the optimal mixture is the same at every scale; in the joint law it moves. Where we differ: g_j is
kept in (0, 1), so that the additive law is convex in r (the paper leaves it free), levels A and B stand apart from
the linear forms, and priors replace the paper's search over starts. gA and gB take either sign.
"""

import numpy as np

from raymix.laws.base import Array, Ints, Table
from raymix.laws.exposure import GRADIENT_FLOOR, Points, sigmoid
from raymix.laws.separable import Normal, SeparableLaw, Slopes, Term, power_law, product
from raymix.laws.union_forms import ANY_WEIGHT, OTHER_WEIGHT, SHARE_POWER, WEIGHT_SD, own_weights

MIX_LEVEL = np.log(0.2)  # of 1 / sum_j C_j r_j^g_j over median L, where the C_j of the own domain counts as 1
FORM_POWER = (-0.3, 0.5)  # gA, gB: useful shares lower the loss about as N and D do


class AppleAdditive(SeparableLaw):
    """L = E + 1 / sum_j C_j r_j^g_j + A n^-al + B d^-be."""

    name = "apple_additive"
    convex = True

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        weight_MK = own_weights(table.own_M, self.n_domains_, OTHER_WEIGHT, ANY_WEIGHT)
        level_M1 = -(log_median_M[:, None] + MIX_LEVEL)
        powers = (np.full_like(weight_MK, SHARE_POWER[0]), SHARE_POWER[1])
        scalars = self._size_prior(log_median_M) + self._data_prior(log_median_M)
        return [*scalars, (weight_MK + level_M1, WEIGHT_SD), powers]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        k = self.n_domains_
        size, data = power_law(theta_MP, 0, at.log_n_B[None]), power_law(theta_MP, 2, at.log_d_B[None])
        return [size, data, inverse_sum(theta_MP, slice(4, 4 + k), slice(4 + k, 4 + 2 * k), at)]


class AppleJoint(AppleAdditive):
    """L = E + 1 / sum_j C_j r_j^g_j + A (sum_j a_j r_j)^gA n^-al + B (sum_j b_j r_j)^gB d^-be."""

    name = "apple_joint"
    convex = False

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        weight_MK = own_weights(table.own_M, self.n_domains_, OTHER_WEIGHT, ANY_WEIGHT)
        forms: list[Normal] = [FORM_POWER, (weight_MK, WEIGHT_SD)]
        return super()._prior(log_median_M, table) + forms + forms

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        size, data, mixture = super()._terms(theta_MP, at, active_A)
        k, first = self.n_domains_, 4 + 2 * self.n_domains_
        return [
            product(size, power_of_form(theta_MP, first, slice(first + 1, first + 1 + k), at)),
            product(data, power_of_form(theta_MP, first + 1 + k, slice(first + 2 + k, first + 2 + 2 * k), at)),
            mixture,
        ]


def inverse_sum(theta_MP: Array, weights: slice, powers: slice, at: Points) -> Term:
    """1 / sum_j C_j r_j^g_j; log C in `weights`, logit g in `powers`."""
    weight_MK, g_MK = np.exp(theta_MP[:, weights]), sigmoid(theta_MP[:, powers])
    part_MKQ = np.exp(g_MK[:, :, None] * at.log_share_KQ) * at.present_KQ * weight_MK[:, :, None]
    whole_MQ = part_MKQ.sum(axis=1)

    def by_theta() -> Slopes:
        by_weight_MKQ = -part_MKQ / whole_MQ[:, None, :]
        by_power_MKQ = by_weight_MKQ * at.log_share_KQ * (g_MK * (1 - g_MK))[:, :, None]
        return [(weights, at.rows(by_weight_MKQ)), (powers, at.rows(by_power_MKQ))]

    def by_share() -> Array:
        log_floor_BK = np.log(np.maximum(at.share_QK, GRADIENT_FLOOR))
        steep_MBK = np.exp((g_MK[:, None, :] - 1) * log_floor_BK) * (weight_MK * g_MK)[:, None, :]
        return np.asarray(-steep_MBK / whole_MQ[..., None])

    return Term(at.rows(-np.log(whole_MQ)), by_theta, by_share)


def power_of_form(theta_MP: Array, power: int, weights: slice, at: Points) -> Term:
    """(sum_j a_j r_j)^g; g as it is in `power`, log a in `weights`."""
    power_M1, weight_MK = theta_MP[:, power, None], np.exp(theta_MP[:, weights])
    whole_MQ = weight_MK @ at.share_QK.T

    def by_theta() -> Slopes:
        by_weight_MKQ = (power_M1 / whole_MQ)[:, None, :] * weight_MK[:, :, None] * at.share_QK.T
        return [(power, at.rows(np.log(whole_MQ))), (weights, at.rows(by_weight_MKQ))]

    return Term(
        at.rows(power_M1 * np.log(whole_MQ)), by_theta, lambda: (power_M1 / whole_MQ)[..., None] * weight_MK[:, None, :]
    )
