"""The two shapes of the tied union as functions of their parameters, with Jacobian and priors.

Two factors (several sizes, unless one factor is asked for):
    L = E + A n^-al (e + sum_j u_j r_j^b)^-al + B d^-be (e + sum_j t_j r_j^b)^-be
One factor (one size, where the two cannot be told apart; or few trials beyond one size, where they hardly can):
    L = E + [A n^-al + B d^-be + C] (e + sum_j t_j r_j^b)^-q
with n = N/N0 and d = D/D0. It unites Chinchilla (arXiv 2203.15556 eq. 2) with effective exposure: a share r_j counts as
t_j r_j^b of useful data, and, in the size term, as u_j r_j^b of used capacity. With `fixed_offset` e is of tokens, not
of shares: e / d in place of e in the factor of tokens, as AutoScale has it (arXiv 2407.20177).
Parameters are logs, but for E = cap sigmoid(.) with cap = .98 min L, and b = sigmoid(.). Where runs repeated tokens, t
acts on what the shares are worth, r_j g_j(R*), and log R* is the last parameter (see `repetition`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raymix.laws.base import Array, Few, Ints
from raymix.laws.exposure import Factor, Points, log_factor_slope, sigmoid
from raymix.laws.fit import Jacobian, Prior
from raymix.laws.repetition import REPEAT_PRIOR, REPEAT_VALUE, Worth, worth

# Priors as (mean, sd) of each parameter; means marked + are added to m = log median L of the eval domain.
# Chosen by cross-validation over published proxy runs (no parameter of a law is fitted there).
FLOOR = (0.0, 1.5)  # logit of E / (.98 min L)
SIZE = (np.log(0.2), 1.0), (np.log(0.3), 0.5)  # A (+) and al; Chinchilla refits: .35
DATA = (np.log(0.3), 1.0), (np.log(0.35), 0.5)  # B (+) and be; Chinchilla refits: .37
EXTRA_LEVEL = (np.log(0.1), 1.5)  # C (+)
SHARE_POWER, OFFSET = (1.0, 1.5), (np.log(0.02), 1.5)  # logit of b; e
WEIGHT_SD, SIZE_WEIGHT_SCALE = 1.5, 0.7  # sd of log t and log u; log u has .7 times the mean of log t
ANY_WEIGHT, OTHER_WEIGHT = np.log(0.3), np.log(0.15)  # log t without / with a known own domain (own: log 1), of
ANY_OF, OTHERS = 5, 6  # so many domains: their sum is what stays, as data cut finer is no more useful
ONE_SIZE = (np.log(0.2), 0.25), (np.log(0.3), 0.2)  # A (+) and al, prior only
ONE_D = (np.log(0.2), 0.25), (np.log(0.35), 0.2)  # B (+) and be, prior only
MIX_POWER, ONE_D_MIX_POWER = (np.log(0.3), 0.7), (np.log(0.15), 0.7)  # q


class Form(ABC):
    """A law's shape: which parameters, where they start, what they give."""

    n_domains: int
    repeats: bool
    scalars: ClassVar[tuple[str, ...]]
    n_factors: ClassVar[int]
    """Each has a weight per training domain."""

    @property
    def n_params(self) -> int:
        """Scalars, weights, and log R*."""
        return len(self.scalars) + self.n_factors * self.n_domains + self.repeats

    @abstractmethod
    def prior(self, log_median_M: Array, own_M: Ints) -> Prior:
        """Priors of the parameters in this order."""

    @abstractmethod
    def expand(self, params_MP: Array, at: Points, cap_M: Array) -> tuple[Array, Jacobian]:
        """log L (M, B), and what gives the Jacobian (see `fit.Jacobian`)."""

    @abstractmethod
    def gradient(self, params_MP: Array, mix_BK: Array, at: Points, cap_M: Array) -> Array:
        """dL/dr (M, B, K)."""

    def evaluate(self, params_MP: Array, at: Points, cap_M: Array, want_jacobian: bool) -> tuple[Array, Array | None]:
        """log L (M, B) and d log L / d theta (M, P, B)."""
        log_MB, jacobian = self.expand(params_MP, at, cap_M)
        return log_MB, jacobian(slice(None), np.ones_like(log_MB)) if want_jacobian else None


@dataclass(frozen=True)
class TwoFactors(Form):
    """The general shape; `one_d` only says that be stands on its prior."""

    n_domains: int
    one_d: bool = False
    repeats: bool = False
    fixed_offset: bool = False
    scalars = ("E", "A", "al", "B", "be", "b", "e")
    n_factors = 2

    def prior(self, log_median_M: Array, own_M: Ints) -> Prior:
        """Priors of (E, A, al, B, be, b, e, t_1..K, u_1..K)."""
        scalars = [FLOOR, *SIZE, *DATA, SHARE_POWER, OFFSET]
        weight_MK = _weight_means(own_M, self.n_domains)
        weights = [weight_MK, SIZE_WEIGHT_SCALE * weight_MK]
        return _prior(scalars, self.scalars, log_median_M, weights, self.repeats)

    def expand(self, params_MP: Array, at: Points, cap_M: Array) -> tuple[Array, Jacobian]:
        E, A, al, B, be, b, e = params_MP[:, :7].T
        t_MK, u_MK = np.split(np.exp(params_MP[:, 7 : 7 + 2 * self.n_domains]), 2, axis=1)
        share_M, b_M, offset_M = sigmoid(E), sigmoid(b), np.exp(e)
        al_M1, be_M1 = np.exp(al)[:, None], np.exp(be)[:, None]
        data_at, worn = _worn(params_MP, at, self.repeats)
        by_u = Factor.of(at, b_M, u_MK, offset_M)
        by_t = Factor.of(data_at, b_M, t_MK, offset_M, worn, self.fixed_offset)
        size_x_MB = at.log_n_B + by_u.log_rows()
        data_x_MB = by_t.log_rows() if self.fixed_offset else at.log_d_B + by_t.log_rows()
        size_MB = np.exp(A[:, None] - al_M1 * size_x_MB)
        data_MB = np.exp(B[:, None] - be_M1 * data_x_MB)
        floor_M1 = (cap_M * share_M)[:, None]
        loss_MB = floor_M1 + size_MB + data_MB

        def jacobian(few: Few, weight_AB: Array) -> Array:
            k, over_AB = self.n_domains, weight_AB / loss_MB[few]
            jac_APB = np.empty((len(over_AB), params_MP.shape[1], over_AB.shape[1]))
            jac_APB[:, 0] = (floor_M1 * (1 - share_M)[:, None])[few] * over_AB
            jac_APB[:, 1], jac_APB[:, 3] = size_MB[few] * over_AB, data_MB[few] * over_AB
            size_slope_AB, data_slope_AB = -al_M1[few] * jac_APB[:, 1], -be_M1[few] * jac_APB[:, 3]
            jac_APB[:, 2], jac_APB[:, 4] = size_slope_AB * size_x_MB[few], data_slope_AB * data_x_MB[few]
            by_b_AB, by_e_AB, _ = by_u.slopes(few, size_slope_AB, jac_APB[:, 7 + k : 7 + 2 * k])
            more_b_AB, more_e_AB, by_repeats_AB = by_t.slopes(few, data_slope_AB, jac_APB[:, 7 : 7 + k])
            jac_APB[:, 5], jac_APB[:, 6] = by_b_AB + more_b_AB, by_e_AB + more_e_AB
            if self.repeats:
                jac_APB[:, -1] = by_repeats_AB
            return jac_APB

        return np.log(loss_MB), jacobian

    def gradient(self, params_MP: Array, mix_BK: Array, at: Points, cap_M: Array) -> Array:
        _, A, al, B, be, b, e = params_MP[:, :7].T
        t_MK, u_MK = np.split(np.exp(params_MP[:, 7 : 7 + 2 * self.n_domains]), 2, axis=1)
        slope_MBK = np.zeros((len(params_MP), *mix_BK.shape))
        _, worn = _worn(params_MP, at, self.repeats)
        size, data = (A, al, at.log_n_B, u_MK, None), (B, be, at.log_d_B, t_MK, worn)
        for level, power, log_x_B, weight_MK, repeated in (size, data):
            log_d_B = at.log_d_B if self.fixed_offset and weight_MK is t_MK else None
            log_F_MB, by_r_MBK = log_factor_slope(mix_BK, weight_MK, np.exp(e), sigmoid(b), repeated, log_d_B)
            if log_d_B is not None:
                log_F_MB = log_F_MB - log_d_B
            power_M1 = np.exp(power)[:, None]
            term_MB = np.exp(level[:, None] - power_M1 * (log_x_B + log_F_MB))
            slope_MBK -= (power_M1 * term_MB)[..., None] * by_r_MBK
        return slope_MBK


@dataclass(frozen=True)
class OneFactor(Form):
    """The shape for one size, or for several told apart by A and al alone (`sized`); with `one_d` also B, be stand on
    their priors (effective data law)."""

    n_domains: int
    one_d: bool = False
    repeats: bool = False
    sized: bool = False
    fixed_offset: bool = False
    scalars = ("E", "A", "al", "B", "be", "C", "q", "b", "e")
    n_factors = 1

    def prior(self, log_median_M: Array, own_M: Ints) -> Prior:
        """Priors of (E, A, al, B, be, C, q, b, e, t_1..K)."""
        data, mix_power = (ONE_D, ONE_D_MIX_POWER) if self.one_d else (DATA, MIX_POWER)
        size = SIZE if self.sized else ONE_SIZE
        scalars = [FLOOR, *size, *data, EXTRA_LEVEL, mix_power, SHARE_POWER, OFFSET]
        weights = [_weight_means(own_M, self.n_domains)]
        return _prior(scalars, self.scalars, log_median_M, weights, self.repeats)

    def expand(self, params_MP: Array, at: Points, cap_M: Array) -> tuple[Array, Jacobian]:
        E, A, al, B, be, C, q, b, e = params_MP[:, :9].T
        t_MK = np.exp(params_MP[:, 9 : 9 + self.n_domains])
        share_M, b_M, offset_M = sigmoid(E), sigmoid(b), np.exp(e)
        al_M1, be_M1, q_M1 = np.exp(al)[:, None], np.exp(be)[:, None], np.exp(q)[:, None]
        worn_at, worn = _worn(params_MP, at, self.repeats)
        by_t = Factor.of(worn_at, b_M, t_MK, offset_M, worn, self.fixed_offset)
        log_F_MB = by_t.log_rows() - at.log_d_B if self.fixed_offset else by_t.log_rows()
        log_n_B, log_d_B = _once(at.log_n_B), _once(at.log_d_B)
        size_MB, data_MB = np.exp(A[:, None] - al_M1 * log_n_B), np.exp(B[:, None] - be_M1 * log_d_B)
        extra_M1, floor_M1 = np.exp(C)[:, None], (cap_M * share_M)[:, None]
        shrink_MB = np.exp(-q_M1 * log_F_MB)
        loss_MB = floor_M1 + (size_MB + data_MB + extra_M1) * shrink_MB

        def jacobian(few: Few, weight_AB: Array) -> Array:
            over_AB, floor_A1 = weight_AB / loss_MB[few], floor_M1[few]
            shrink_AB = shrink_MB[few] * over_AB
            jac_APB = np.empty((len(over_AB), params_MP.shape[1], over_AB.shape[1]))
            jac_APB[:, 0] = floor_A1 * (1 - share_M[few])[:, None] * over_AB
            for index, part_MB in ((1, size_MB), (3, data_MB), (5, extra_M1)):
                jac_APB[:, index] = part_MB[few] * shrink_AB
            jac_APB[:, 2] = -al_M1[few] * log_n_B * jac_APB[:, 1]
            jac_APB[:, 4] = -be_M1[few] * log_d_B * jac_APB[:, 3]
            slope_AB = -q_M1[few] * (weight_AB - floor_A1 * over_AB)
            jac_APB[:, 6] = slope_AB * log_F_MB[few]
            jac_APB[:, 7], jac_APB[:, 8], by_repeats_AB = by_t.slopes(few, slope_AB, jac_APB[:, 9 : 9 + self.n_domains])
            if self.repeats:
                jac_APB[:, -1] = by_repeats_AB
            return jac_APB

        return np.log(loss_MB), jacobian

    def gradient(self, params_MP: Array, mix_BK: Array, at: Points, cap_M: Array) -> Array:
        _, A, al, B, be, C, q, b, e = params_MP[:, :9].T
        t_MK, (_, worn) = np.exp(params_MP[:, 9 : 9 + self.n_domains]), _worn(params_MP, at, self.repeats)
        log_F_MB, by_r_MBK = log_factor_slope(
            mix_BK, t_MK, np.exp(e), sigmoid(b), worn, at.log_d_B if self.fixed_offset else None
        )
        if self.fixed_offset:
            log_F_MB = log_F_MB - at.log_d_B
        size_MB = np.exp(A[:, None] - np.exp(al)[:, None] * at.log_n_B)
        data_MB = np.exp(B[:, None] - np.exp(be)[:, None] * at.log_d_B)
        q_M1 = np.exp(q)[:, None]
        part_MB = (size_MB + data_MB + np.exp(C)[:, None]) * np.exp(-q_M1 * log_F_MB)
        return np.asarray(-(q_M1 * part_MB)[..., None] * by_r_MBK)


def _once(x_B: Array) -> Array:
    """Its one value (1,) where all rows have the same."""
    return x_B[:1] if (x_B == x_B[0]).all() else x_B


def _worn(params_MP: Array, at: Points, repeats: bool) -> tuple[Points, Worth | None]:
    """What shares are worth, if any token is a repeat, with R* as fitted, else as published."""
    if at.epochs_BK is None:
        return at, None
    log_repeats_M = params_MP[:, -1] if repeats else np.full(len(params_MP), np.log(REPEAT_VALUE))
    return at.apart(), worth(at.epochs_BK, log_repeats_M)


def _weight_means(own_M: Ints, n_domains: int) -> Array:
    """Prior means of log t (M, K)."""
    other = OTHER_WEIGHT + np.log(OTHERS / max(n_domains - 1, 1))
    return own_weights(own_M, n_domains, other, ANY_WEIGHT + np.log(ANY_OF / n_domains))


def own_weights(own_M: Ints, n_domains: int, other: float, unknown: float) -> Array:
    """Prior means of logs (M, K): 0 for the own training domain, `other` beside it, `unknown` where there is none."""
    mean_MK = np.full((len(own_M), n_domains), unknown)
    known = np.flatnonzero(own_M >= 0)
    mean_MK[known] = other
    mean_MK[known, own_M[known]] = 0.0
    return mean_MK


def _prior(
    scalars: list[tuple[float, float]], names: tuple[str, ...], log_median_M: Array, weights: list[Array], repeats: bool
) -> Prior:
    level_P = np.array([name in ("A", "B", "C") for name in names], dtype=np.float64)
    mean_MP = np.array([mean for mean, _ in scalars]) + log_median_M[:, None] * level_P
    sd_MP = np.tile([sd for _, sd in scalars], (len(log_median_M), 1))
    wide = np.concatenate(weights, axis=1)
    last_Mr2 = np.tile(REPEAT_PRIOR, (len(log_median_M), int(repeats), 1))
    return Prior(
        np.concatenate([mean_MP, wide, last_Mr2[..., 0]], axis=1),
        np.concatenate([sd_MP, np.full(wide.shape, WEIGHT_SD), last_Mr2[..., 1]], axis=1),
    )
