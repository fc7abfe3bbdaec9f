"""The Gaussian process of a law's residuals: its covariance, and the hyper-parameters that residuals make likely.

`residual` says what it is for. Kernel and slopes between all pairs of sites are what a fit of the process costs, so
what does not depend on the hyper-parameters is computed once. Letters: R rows of the process, H hyper-parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import linalg, optimize

from raymix.laws.base import Array, Flags, Ints
from raymix.laws.exposure import sigmoid
from raymix.laws.fitted import chunks
from raymix.laws.rows import patterns

SHARE_SCALE = 0.02  # phi is linear in shares below, logarithmic above: where published curves bend
# Of log ell, log w, logit w0, log ellN, log ellD, log nu, log noise:
PRIOR_MEAN_H = np.array([0.0, np.log(0.1), 0.5, 0.0, 0.0, np.log(0.1), np.log(0.05)])
PRIOR_SD_H = np.array([0.7, 1.0, 1.5, 0.7, 0.7, 1.2, 1.5])
WIDEST = 4.0  # prior sds that a hyper-parameter may be from its prior mean
LEAST = 0.1  # of the usual effect, added to that of every domain: a law may overlook one
ITERATIONS = 8  # of L-BFGS: the prior mean is near, and more changes predictions by less than the noise
MIN_VARIANCE = 1e-12  # of R: a perfect fit (one row) has nothing left over
ROOT5 = float(np.sqrt(5.0))
AT_ONCE = 2**16  # numbers of a work array: half a megabyte


@dataclass(frozen=True)
class Sites:
    """Where residuals were seen: features, log scales and runs of R rows."""

    phi_RK: Array
    log_scale_R2: Array
    run_R: Ints

    def take(self, rows: Ints) -> "Sites":
        """The rows named."""
        return Sites(self.phi_RK[rows], self.log_scale_R2[rows], self.run_R[rows])


def features(mix_BK: Array) -> Array:
    """phi in [0, 1]."""
    return np.asarray(np.log1p(mix_BK / SHARE_SCALE) / np.log1p(1 / SHARE_SCALE))


def distance(one_BK: Array, other_RK: Array) -> Array:
    square_BR = (one_BK**2).sum(1)[:, None] + (other_RK**2).sum(1) - 2 * one_BK @ other_RK.T
    return np.asarray(np.sqrt(np.maximum(square_BR, 0.0)))


def mixture_kernel(one_BK: Array, other_RK: Array, hyper_H: Array) -> Array:
    ell, w = np.exp(hyper_H[:2])
    s_BR = distance(one_BK, other_RK) / ell
    matern_BR = (1 + ROOT5 * s_BR + 5 / 3 * s_BR**2) * np.exp(-ROOT5 * s_BR)
    return np.asarray(matern_BR + w * one_BK @ other_RK.T)


def scale_kernel(one_B2: Array, other_R2: Array, hyper_H: Array) -> Array:
    w0 = sigmoid(hyper_H[2])
    gaps = [((one_B2[:, None, i] - other_R2[None, :, i]) * np.exp(-hyper_H[3 + i])) ** 2 for i in range(2)]
    return np.asarray(w0 + (1 - w0) * np.exp(-0.5 * np.sum(gaps, axis=0)))


@dataclass(frozen=True)
class Pairs:
    """What the hyper-parameters act on, between R sites."""

    distance_RR: Array
    product_RR: Array  # phi.phi'
    square_2RR: Array  # dlogN^2 and dlogD^2; (2, 1, 1) where there is one scale
    same_RR: Flags  # of one run

    @classmethod
    def of(cls, sites: Sites) -> "Pairs":
        """All pairs of the sites."""
        phi_RK, log_2R = sites.phi_RK, sites.log_scale_R2.T
        if (log_2R == log_2R[:, :1]).all():
            log_2R = log_2R[:, :1]
        square_2RR = (log_2R[:, :, None] - log_2R[:, None, :]) ** 2
        return cls(distance(phi_RK, phi_RK), phi_RK @ phi_RK.T, square_2RR, sites.run_R[:, None] == sites.run_R)

    def take(self, rows: Ints) -> "Pairs":
        """Those between the sites named."""
        if len(rows) == len(self.same_RR):
            return self
        at = np.ix_(rows, rows)
        square_2RR = self.square_2RR if self.square_2RR.shape[1] == 1 else self.square_2RR[:, at[0], at[1]]
        return Pairs(self.distance_RR[at], self.product_RR[at], square_2RR, self.same_RR[at])


@dataclass(frozen=True)
class Covariance:
    """k between R sites, run noise and row noise included, with what its slopes are made of."""

    whole_RR: Array
    by_ell_RR: Array  # of the mixture part
    mixture_RR: Array
    near_RR: Array  # exp(-dlogN^2 / 2 ellN^2 - dlogD^2 / 2 ellD^2), or (1, 1)
    scale_RR: Array

    @classmethod
    def of(cls, pairs: Pairs, hyper_H: Array) -> "Covariance":
        """At some values of the hyper-parameters."""
        (ell, w), w0, (nu, noise) = np.exp(hyper_H[:2]), sigmoid(hyper_H[2]), np.exp(hyper_H[5:])
        s_RR = pairs.distance_RR * (ROOT5 / ell)
        decay_RR, bent_RR = np.exp(-s_RR), s_RR**2 / 3
        s_RR += 1
        mixture_RR = (s_RR + bent_RR) * decay_RR + w * pairs.product_RR
        near_RR = np.exp(-0.5 * np.tensordot(np.exp(-2 * hyper_H[3:5]), pairs.square_2RR, axes=1))
        scale_RR = w0 + (1 - w0) * near_RR
        whole_RR = mixture_RR * scale_RR + nu * pairs.same_RR
        np.einsum("rr->r", whole_RR)[...] += noise
        return cls(whole_RR, bent_RR * s_RR * decay_RR, mixture_RR, near_RR, scale_RR)

    def traces(self, lever_RR: Array, pairs: Pairs, hyper_H: Array) -> Array:
        """tr[lever dk / d hyper] (H,)."""
        w, w0, (nu, noise) = np.exp(hyper_H[1]), sigmoid(hyper_H[2]), np.exp(hyper_H[5:])
        by_mixture_RR, by_scale_RR = lever_RR * self.scale_RR, lever_RR * self.mixture_RR
        by_near_RR = by_scale_RR * self.near_RR
        by_gap_2 = (1 - w0) * np.exp(-2 * hyper_H[3:5]) * [_dot(by_near_RR, each_RR) for each_RR in pairs.square_2RR]
        return np.array(
            [
                _dot(by_mixture_RR, self.by_ell_RR),
                w * _dot(by_mixture_RR, pairs.product_RR),
                w0 * (1 - w0) * (by_scale_RR.sum() - by_near_RR.sum()),
                *by_gap_2,
                nu * lever_RR[pairs.same_RR].sum(),
                noise * np.trace(lever_RR),
            ]
        )


def _dot(one_RR: Array, other_RR: Array) -> float:
    """Sum of products."""
    return float(np.einsum("rs,rs->", one_RR, other_RR))


def choose_hyper(sites: Sites, residual_MR: Array, used_MR: Flags) -> Array:
    """MAP of the shared hyper-parameters, from the prior mean."""
    options = {"maxiter": ITERATIONS}
    reach_H = WIDEST * PRIOR_SD_H  # runs that repeat each other exactly take the noise to 0: k would be singular
    bounds = list(zip(PRIOR_MEAN_H - reach_H, PRIOR_MEAN_H + reach_H, strict=True))
    cost = partial(hyper_cost, parts=by_rows_used(sites, residual_MR, used_MR), n_eval=len(used_MR))
    found = optimize.minimize(cost, PRIOR_MEAN_H, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(found.x, dtype=np.float64)


def by_rows_used(sites: Sites, residual_MR: Array, used_MR: Flags) -> list[tuple[Pairs, Array]]:
    """Pairs of rows, and the residuals (R, m) of the eval domains that use just these."""
    pairs = Pairs.of(sites)
    pattern_CR, which_M = patterns(used_MR)
    groups = [(np.flatnonzero(on_R), np.flatnonzero(which_M == c)) for c, on_R in enumerate(pattern_CR)]
    return [(pairs.take(rows), residual_MR[np.ix_(domains, rows)].T) for rows, domains in groups if len(rows)]


def hyper_cost(hyper_H: Array, parts: Sequence[tuple[Pairs, Array]], n_eval: int) -> tuple[float, Array]:
    """Mean over eval domains of R/2 log(amplitude^2) + 1/2 log det k, plus the prior; with its gradient.

    amplitude^2 = R' k^-1 R / rows; gradient 1/2 tr[(k^-1 - mean_m alpha_m alpha_m' / amplitude^2) dk].
    """
    off_H = (hyper_H - PRIOR_MEAN_H) / PRIOR_SD_H
    cost, slope_H = 0.5 * float(off_H @ off_H), off_H / PRIOR_SD_H
    for pairs, residual_Rm in parts:
        k, (n_rows, n_here) = Covariance.of(pairs, hyper_H), residual_Rm.shape
        chol = linalg.cho_factor(k.whole_RR, lower=True)
        alpha_Rm = linalg.cho_solve(chol, residual_Rm)
        variance_m = np.maximum((residual_Rm * alpha_Rm).sum(axis=0) / n_rows, MIN_VARIANCE)
        log_det = 2 * float(np.log(np.diag(chol[0])).sum())
        cost += n_here / n_eval * 0.5 * (n_rows * float(np.log(variance_m).mean()) + log_det)
        lever_RR = _inverse(chol[0]) - (alpha_Rm / variance_m) @ alpha_Rm.T / n_here
        slope_H = slope_H + n_here / n_eval * 0.5 * k.traces(lever_RR, pairs, hyper_H)
    return cost, slope_H


def _inverse(root_RR: Array) -> Array:
    """k^-1 from its lower Cholesky factor: a third of the work of solving for the identity."""
    inverse_RR, _ = linalg.lapack.dpotri(root_RR, lower=1)
    lower_RR = np.tril(inverse_RR)
    return np.asarray(lower_RR + np.tril(lower_RR, -1).T)


def stretches(effect_MK: Array) -> Array:
    """How far apart each eval domain sees mixtures along each phi (M, K), mean square 1.

    Of the size of what a domain does to the log loss, says the law: where it moves a loss, there it can be wrong.
    """
    usual_M1 = np.sqrt(np.mean(effect_MK**2, axis=1, keepdims=True))
    raised_MK = effect_MK / np.maximum(usual_M1, np.finfo(np.float64).tiny) + LEAST
    return np.asarray(raised_MK / np.sqrt(np.mean(raised_MK**2, axis=1, keepdims=True)))


def feature_slope(mix_BK: Array) -> Array:
    """d phi / d r (B, K)."""
    return np.asarray(1 / ((mix_BK + SHARE_SCALE) * np.log1p(1 / SHARE_SCALE)))


def solve(sites: Sites, hyper_H: Array, residual_MR: Array, used_MR: Flags, stretch_MK: Array) -> Array:
    """alpha = k^-1 R per eval domain (R, M), 0 on rows it does not use."""
    alpha_RM = np.zeros(residual_MR.T.shape)
    for m, (used_R, stretch_K) in enumerate(zip(used_MR, stretch_MK, strict=True)):
        rows = np.flatnonzero(used_R)
        if len(rows):
            seen = Sites(sites.phi_RK[rows] * stretch_K, sites.log_scale_R2[rows], sites.run_R[rows])
            chol = linalg.cho_factor(Covariance.of(Pairs.of(seen), hyper_H).whole_RR, lower=True)
            alpha_RM[rows, m] = linalg.cho_solve(chol, residual_MR[m, rows])
    return alpha_RM


@dataclass(frozen=True)
class Mean:
    """What the process expects, g = k alpha, and its slope, for all eval domains at once.

    Each eval domain m stretches phi by v_m, so it has a kernel of its own; but all inner products come of one product
    of matrices, (v_m^2 phi) . phi', and where all stretch alike one kernel serves all of them. Only so many queries are
    read at a time as stay near the processor. Letters: C kernels (M, or 1 where all stretch alike).
    """

    sites: Sites
    hyper_H: Array
    stretch_MK: Array
    alpha_RM: Array

    def value(self, phi_BK: Array, log_scale_B2: Array) -> Array:
        """g (B, M); a new run shares no run noise with those seen."""
        return self._read(phi_BK, log_scale_B2, False)[0]

    def value_and_slope(self, phi_BK: Array, log_scale_B2: Array) -> tuple[Array, Array]:
        """g (B, M) and dg/dphi (B, M, K)."""
        return self._read(phi_BK, log_scale_B2, True)

    def _read(self, phi_BK: Array, log_scale_B2: Array, slope: bool) -> tuple[Array, Array]:
        (n_rows, n_eval), K = self.alpha_RM.shape, phi_BK.shape[1]
        square_CK = self.stretch_MK**2
        if (square_CK == square_CK[:1]).all():
            square_CK = square_CK[:1]
        length_CR = square_CK @ (self.sites.phi_RK**2).T
        g_BM, slope_BMK = np.empty((len(phi_BK), n_eval)), np.empty((len(phi_BK), n_eval, K if slope else 0))
        for few in chunks(len(phi_BK), max(1, AT_ONCE // (n_rows * (n_eval if slope else len(square_CK))))):
            near_BR = scale_kernel(log_scale_B2[few], self.sites.log_scale_R2, self.hyper_H)
            dot_BCR, s_BCR = self._apart(phi_BK[few], square_CK, length_CR)
            decay_BCR = np.exp(-s_BCR)
            g_BM[few] = self._value(dot_BCR, s_BCR, decay_BCR, near_BR)
            if slope:
                slope_BMK[few] = square_CK * self._pulls(phi_BK[few], s_BCR, decay_BCR, near_BR)
        return g_BM, slope_BMK

    def _apart(self, phi_BK: Array, square_CK: Array, length_CR: Array) -> tuple[Array, Array]:
        """phi . phi' and root5 |phi - phi'| / ell, stretched (B, C, R)."""
        scaled_BCK = phi_BK[:, None] * square_CK
        dot_BCR = (scaled_BCK.reshape(-1, phi_BK.shape[1]) @ self.sites.phi_RK.T).reshape(*scaled_BCK.shape[:2], -1)
        square_BCR = (phi_BK[:, None] * scaled_BCK).sum(axis=2)[..., None] + length_CR
        square_BCR -= 2 * dot_BCR
        np.maximum(square_BCR, 0.0, out=square_BCR)
        return dot_BCR, np.sqrt(square_BCR, out=square_BCR) * (ROOT5 / np.exp(self.hyper_H[0]))

    def _value(self, dot_BCR: Array, s_BCR: Array, decay_BCR: Array, near_BR: Array) -> Array:
        """g (B, M): Matern kernel and linear part (`process.mixture_kernel`), times alpha."""
        kernel_BCR = (1 + s_BCR + s_BCR**2 / 3) * decay_BCR
        kernel_BCR += np.exp(self.hyper_H[1]) * dot_BCR
        kernel_BCR *= near_BR[:, None]
        if kernel_BCR.shape[1] == 1:
            return np.asarray(kernel_BCR[:, 0] @ self.alpha_RM)
        return np.asarray(np.einsum("bmr,rm->bm", kernel_BCR, self.alpha_RM))

    def _pulls(self, phi_BK: Array, s_BCR: Array, decay_BCR: Array, near_BR: Array) -> Array:
        """dg/dphi (B, M, K) before stretching: the Matern part has -5/3 (1 + s) exp(-s) (phi - phi') / ell^2."""
        ell, w = np.exp(self.hyper_H[:2])
        weight_BMR = near_BR[:, None] * self.alpha_RM.T
        pull_BMR = (-5 / 3 / ell**2) * (1 + s_BCR) * decay_BCR * weight_BMR
        weight_BMR *= w
        weight_BMR -= pull_BMR
        towards_BMK = weight_BMR.reshape(-1, len(self.alpha_RM)) @ self.sites.phi_RK
        return np.asarray(
            pull_BMR.sum(axis=2)[..., None] * phi_BK[:, None] + towards_BMK.reshape(*pull_BMR.shape[:2], -1)
        )
