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

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raymix.laws.base import Array, Ints
from raymix.laws.exposure import Factor, Points, factor, log_factor, log_factor_slope, powers, sigmoid, times_tokens
from raymix.laws.fit import Prior
from raymix.laws.repetition import REPEAT_PRIOR, REPEAT_VALUE, Worth, worth

# Priors as (mean, sd) of each parameter; means marked + are added to m = log median L of the eval domain.
# Chosen by cross-validation over published proxy runs (no parameter of a law is fitted there).
FLOOR = (0.0, 1.5)  # logit of E / (.98 min L)
SIZE_LEVEL, DATA_LEVEL, EXTRA_LEVEL = (np.log(0.2), 1.0), (np.log(0.3), 1.0), (np.log(0.1), 1.5)  # +: A, B, C
SIZE_POWER, DATA_POWER = (np.log(0.3), 0.5), (np.log(0.35), 0.5)  # al, be; Chinchilla refits: .35, .37
SHARE_POWER, OFFSET = (1.0, 1.5), (np.log(0.02), 1.5)  # logit of b; e
WEIGHT_SD, SIZE_WEIGHT_SCALE = 1.5, 0.7  # sd of log t and log u; log u has .7 times the mean of log t
ANY_WEIGHT, OTHER_WEIGHT = np.log(0.3), np.log(0.15)  # log t without / with a known own domain (own: log 1), of
ANY_OF, OTHERS = 5, 6  # so many domains: their sum is what stays, as data cut finer is no more useful
ONE_SIZE_LEVEL, ONE_SIZE_POWER = (np.log(0.2), 0.25), (np.log(0.3), 0.2)  # A (+) and al, prior only
ONE_D_LEVEL, ONE_D_POWER = (np.log(0.2), 0.25), (np.log(0.35), 0.2)  # B (+) and be, prior only
MIX_POWER, ONE_D_MIX_POWER = (np.log(0.3), 0.7), (np.log(0.15), 0.7)  # q


class Form(Protocol):
    """A law's shape: which parameters, where they start, what they give."""

    @property
    def scalars(self) -> tuple[str, ...]: ...
    @property
    def n_domains(self) -> int: ...
    @property
    def one_d(self) -> bool: ...
    @property
    def repeats(self) -> bool: ...
    @property
    def n_params(self) -> int: ...
    def prior(self, log_median_M: Array, own_M: Ints) -> Prior: ...
    def evaluate(
        self, params_MP: Array, at: Points, cap_M: Array, want_jacobian: bool
    ) -> tuple[Array, Array | None]: ...
    def gradient(self, params_MP: Array, mix_BK: Array, at: Points, cap_M: Array) -> Array: ...


@dataclass(frozen=True)
class TwoFactors:
    """The general shape; `one_d` only says that be stands on its prior."""

    n_domains: int
    one_d: bool = False
    repeats: bool = False
    fixed_offset: bool = False
    scalars: tuple[str, ...] = ("E", "A", "al", "B", "be", "b", "e")

    @property
    def n_params(self) -> int:
        """Scalars, t and u, and log R*."""
        return len(self.scalars) + 2 * self.n_domains + self.repeats

    def prior(self, log_median_M: Array, own_M: Ints) -> Prior:
        """Priors of (E, A, al, B, be, b, e, t_1..K, u_1..K)."""
        scalars = [FLOOR, SIZE_LEVEL, SIZE_POWER, DATA_LEVEL, DATA_POWER, SHARE_POWER, OFFSET]
        weight_MK = _weight_means(own_M, self.n_domains)
        weights = [weight_MK, SIZE_WEIGHT_SCALE * weight_MK]
        return _prior(scalars, self.scalars, log_median_M, weights, self.repeats)

    def evaluate(self, params_MP: Array, at: Points, cap_M: Array, want_jacobian: bool) -> tuple[Array, Array | None]:
        """log L (M, B) and d log L / d theta (M, P, B)."""
        E, A, al, B, be, b, e = _scalars(params_MP, 7)
        t_MK, u_MK = np.split(np.exp(params_MP[:, 7 : 7 + 2 * self.n_domains]), 2, axis=1)
        share_M, b_M, offset_M = sigmoid(E), sigmoid(b), np.exp(e)
        al_M1, be_M1 = np.exp(al)[:, None], np.exp(be)[:, None]
        power_MQK = powers(b_M, at)
        data_at, worn = _worn(params_MP, at, self.repeats)
        data_power_MQK = power_MQK if worn is None else powers(b_M, data_at, worn)
        if self.fixed_offset:
            data_power_MQK, data_at = times_tokens(data_power_MQK, data_at)
        if want_jacobian:
            by_u = factor(power_MQK, u_MK, offset_M, b_M, at)
            by_t = factor(data_power_MQK, t_MK, offset_M, b_M, data_at, worn)
            log_u_MQ, log_t_MQ = by_u.log_MQ, by_t.log_MQ
        else:
            log_u_MQ, log_t_MQ = log_factor(power_MQK, u_MK, offset_M), log_factor(data_power_MQK, t_MK, offset_M)
        size_x_MB, data_x_MB = at.log_n_B + at.rows(log_u_MQ), data_at.rows(log_t_MQ)
        if not self.fixed_offset:
            data_x_MB = at.log_d_B + data_x_MB
        size_MB = np.exp(A[:, None] - al_M1 * size_x_MB)
        data_MB = np.exp(B[:, None] - be_M1 * data_x_MB)
        floor_M1 = (cap_M * share_M)[:, None]
        loss_MB = floor_M1 + size_MB + data_MB
        if not want_jacobian:
            return np.log(loss_MB), None
        size_MB /= loss_MB
        data_MB /= loss_MB
        jac_MPB = np.empty((*params_MP.shape, loss_MB.shape[1]))
        jac_MPB[:, 0] = floor_M1 * (1 - share_M)[:, None] / loss_MB
        jac_MPB[:, 1], jac_MPB[:, 3] = size_MB, data_MB
        size_slope_MB, data_slope_MB = -al_M1 * size_MB, -be_M1 * data_MB
        jac_MPB[:, 2], jac_MPB[:, 4] = size_slope_MB * size_x_MB, data_slope_MB * data_x_MB
        k = self.n_domains
        _through_factor(jac_MPB, data_slope_MB, by_t, data_at, slice(7, 7 + k), 5)
        _through_factor(jac_MPB, size_slope_MB, by_u, at, slice(7 + k, 7 + 2 * k), 5, add=True)
        if self.repeats:
            jac_MPB[:, -1] = _by_repeats(data_slope_MB, by_t)
        return np.log(loss_MB), jac_MPB

    def gradient(self, params_MP: Array, mix_BK: Array, at: Points, cap_M: Array) -> Array:
        """dL/dr (M, B, K)."""
        _, A, al, B, be, b, e = _scalars(params_MP, 7)
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
class OneFactor:
    """The shape for one size, or for several told apart by A and al alone (`sized`); with `one_d` also B, be stand on
    their priors (effective data law)."""

    n_domains: int
    one_d: bool = False
    repeats: bool = False
    sized: bool = False
    fixed_offset: bool = False
    scalars: tuple[str, ...] = ("E", "A", "al", "B", "be", "C", "q", "b", "e")

    @property
    def n_params(self) -> int:
        """Scalars, t, and log R*."""
        return len(self.scalars) + self.n_domains + self.repeats

    def prior(self, log_median_M: Array, own_M: Ints) -> Prior:
        """Priors of (E, A, al, B, be, C, q, b, e, t_1..K)."""
        data = (ONE_D_LEVEL, ONE_D_POWER) if self.one_d else (DATA_LEVEL, DATA_POWER)
        size = (SIZE_LEVEL, SIZE_POWER) if self.sized else (ONE_SIZE_LEVEL, ONE_SIZE_POWER)
        mix_power = ONE_D_MIX_POWER if self.one_d else MIX_POWER
        scalars = [FLOOR, *size, *data, EXTRA_LEVEL, mix_power, SHARE_POWER, OFFSET]
        weights = [_weight_means(own_M, self.n_domains)]
        return _prior(scalars, self.scalars, log_median_M, weights, self.repeats)

    def evaluate(self, params_MP: Array, at: Points, cap_M: Array, want_jacobian: bool) -> tuple[Array, Array | None]:
        """log L (M, B) and d log L / d theta (M, P, B)."""
        E, A, al, B, be, C, q, b, e = _scalars(params_MP, 9)
        t_MK = np.exp(params_MP[:, 9 : 9 + self.n_domains])
        share_M, b_M, offset_M = sigmoid(E), sigmoid(b), np.exp(e)
        al_M1, be_M1, q_M1 = np.exp(al)[:, None], np.exp(be)[:, None], np.exp(q)[:, None]
        at, worn = _worn(params_MP, at, self.repeats)
        power_MQK = powers(b_M, at, worn)
        if self.fixed_offset:
            power_MQK, at = times_tokens(power_MQK, at)
        if want_jacobian:
            by_t = factor(power_MQK, t_MK, offset_M, b_M, at, worn)
            log_F_MQ = by_t.log_MQ
        else:
            log_F_MQ = log_factor(power_MQK, t_MK, offset_M)
        if self.fixed_offset:
            log_F_MQ = log_F_MQ - at.log_d_B
        shrink_MQ = np.exp(-q_M1 * log_F_MQ)
        shrink_MB = at.rows(shrink_MQ)
        size_MB = np.exp(A[:, None] - al_M1 * at.log_n_B) * shrink_MB
        data_MB = np.exp(B[:, None] - be_M1 * at.log_d_B) * shrink_MB
        extra_MB = np.exp(C)[:, None] * shrink_MB
        floor_M1 = (cap_M * share_M)[:, None]
        loss_MB = floor_M1 + size_MB + data_MB + extra_MB
        if not want_jacobian:
            return np.log(loss_MB), None
        jac_MPB = np.empty((*params_MP.shape, loss_MB.shape[1]))
        jac_MPB[:, 0] = floor_M1 * (1 - share_M)[:, None] / loss_MB
        jac_MPB[:, 1], jac_MPB[:, 3], jac_MPB[:, 5] = size_MB / loss_MB, data_MB / loss_MB, extra_MB / loss_MB
        jac_MPB[:, 2] = -al_M1 * at.log_n_B * jac_MPB[:, 1]
        jac_MPB[:, 4] = -be_M1 * at.log_d_B * jac_MPB[:, 3]
        slope_MB = -q_M1 * (loss_MB - floor_M1) / loss_MB
        jac_MPB[:, 6] = slope_MB * at.rows(log_F_MQ)
        _through_factor(jac_MPB, slope_MB, by_t, at, slice(9, 9 + self.n_domains), 7)
        if self.repeats:
            jac_MPB[:, -1] = _by_repeats(slope_MB, by_t)
        return np.log(loss_MB), jac_MPB

    def gradient(self, params_MP: Array, mix_BK: Array, at: Points, cap_M: Array) -> Array:
        """dL/dr (M, B, K)."""
        _, A, al, B, be, C, q, b, e = _scalars(params_MP, 9)
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


def _scalars(params_MP: Array, n: int) -> tuple[Array, ...]:
    return tuple(params_MP[:, i] for i in range(n))


def _through_factor(
    jac_MPB: Array, slope_MB: Array, by: Factor, at: Points, weights: slice, power: int, add: bool = False
) -> None:
    """Write d log L / d(log weights, logit b, log e, log R*) given slope = d log L / d log F; `power` + 1 is e."""
    jac_MPB[:, weights] = slope_MB[:, None, :] * at.rows(by.by_weight_MKQ)
    for index, by_MQ in ((power, by.by_power_MQ), (power + 1, by.by_offset_MQ)):
        value_MB = slope_MB * at.rows(by_MQ)
        jac_MPB[:, index] = jac_MPB[:, index] + value_MB if add else value_MB


def _by_repeats(slope_MB: Array, by: Factor) -> Array | float:
    """d log L / d log R*; 0 where no token is a repeat."""
    return 0.0 if by.by_repeats_MQ is None else slope_MB * by.by_repeats_MQ


def _worn(params_MP: Array, at: Points, repeats: bool) -> tuple[Points, Worth | None]:
    """What shares are worth, if any token is a repeat, with R* as fitted, else as published."""
    if at.epochs_BK is None:
        return at, None
    log_repeats_M = params_MP[:, -1] if repeats else np.full(len(params_MP), np.log(REPEAT_VALUE))
    return at.apart(), worth(at.epochs_BK, log_repeats_M)


def _weight_means(own_M: Ints, n_domains: int) -> Array:
    """Prior means of log t (M, K)."""
    mean_MK = np.full((len(own_M), n_domains), ANY_WEIGHT + np.log(ANY_OF / n_domains))
    known = np.flatnonzero(own_M >= 0)
    mean_MK[known] = OTHER_WEIGHT + np.log(OTHERS / max(n_domains - 1, 1))
    mean_MK[known, own_M[known]] = 0.0
    return mean_MK


def _prior(
    scalars: list[tuple[float, float]],
    names: tuple[str, ...],
    log_median_M: Array,
    weights: list[Array],
    repeats: bool,
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
