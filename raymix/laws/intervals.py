"""How sure a fitted law is: the covariance at its optimum, widened until it holds what was left out.

    sd^2 = f^2 (J V J' + sig^2),     V = ((H - P) / less + P)^-1,     f = q t(.95, nu) / 1.645

H is the MAP Hessian, P the prior precision; `less` counts the rows of a run as one, and lets a misfit beyond the
solver's sig count. q is what the data say about V and sig: the .9 quantile of |error| / sd over 1.645 (1 where both
are right) with each mixture left out in turn, without refitting: at the optimum H is known, so that of a least
squares fit without some rows is a solve of their number (Cook and Weisberg 1982, section 3.8). t (Student) stands
for the normal because sig itself is estimated, from nu = runs - P / 2 residuals. Outside the scales seen nothing
can be left out: there the factor is 1.5, chosen on published runs.

Of the difference between two mixtures at one scale, as of log L(r) - log L(r'), what both share cancels:

    sd^2 = f^2 ((J - J') V (J - J')' + sig^2 (1 - exp(-h^2 / 2 ell^2)))

The runs cannot tell noise from misfit, so half of sig^2 counts as misfit at either mixture, and misfits are alike where
mixtures are: h is Hellinger's distance between them, ell = .2. Linear in the parameters, as the interval of a loss is:
parameters drawn from V itself leave the region where the law is nearly linear, and with few runs give gains ten times
as wide as they err (benchmarks/LOG.md, "Gains without draws"). Letters: C mixtures with r rows each.
"""

import numpy as np
from scipy import stats

from raymix.laws.base import Array, Flags, Ints
from raymix.laws.fit import Problem, Solution, freedom, huber_weight, residuals, tamed_residuals
from raymix.laws.rows import NOMINAL, rows_of

SD_BEYOND = 1.5  # widening outside the scales seen
BETWEEN_BEYOND = 1.25  # the same of a difference: on published runs it holds .87 to .98, on simulated ones .91 (LOG.md)
Q_RANGE = (0.7, 3.0)  # of q: below, sig would be finer than its own least value; above, a handful of mixtures decides
MIN_FREEDOM = 3.0  # sig has a range of its own (fit.SIG_RANGE), which is worth a few residuals
Z90 = float(stats.norm.ppf(0.95))
ALIKE = 0.2  # ell: of .2 to .5, with none to all of sig^2, what held .9 of gains, published and simulated (LOG.md)


def misfit_sig(problem: Problem, solution: Solution) -> Array:
    """sd of the residuals (M,), at least the solver's sig, which is capped so that a misfit does not silence data."""
    used_MB = problem.used_MB > 0
    square_M = np.nansum(tamed_residuals(problem, solution, solution.sig_M) ** 2, axis=1)
    sd_M = np.sqrt(square_M / freedom(used_MB.sum(axis=1), solution.params_MP.shape[1]))
    return np.asarray(np.maximum(solution.sig_M, sd_M))


def clustered(solution: Solution, less_M: Array) -> Array:
    """The covariance V of the parameters (M, P, P)."""
    prior_MPP = np.stack([np.diag(sd_P**-2) for sd_P in solution.prior.sd_MP])
    return np.asarray(np.linalg.inv((solution.hessian_MPP - prior_MPP) / less_M[:, None, None] + prior_MPP))


def log_sd(jac_MPB: Array, covariance_MPP: Array, sig_M: Array) -> Array:
    """sqrt(J V J' + sig^2) (M, B)."""
    variance_MB = np.sum(jac_MPB * np.matmul(covariance_MPP, jac_MPB), axis=1)
    return np.asarray(np.sqrt(variance_MB + sig_M[:, None] ** 2))


def log_sd_between(jac_MPB: Array, other_MPB: Array, covariance_MPP: Array, sig_M: Array, alike_B: Array) -> Array:
    """sqrt((J - J') V (J - J')' + sig^2 (1 - alike)) (M, B)."""
    change_MPB = jac_MPB - other_MPB
    variance_MB = np.sum(change_MPB * np.matmul(covariance_MPP, change_MPB), axis=1)
    return np.asarray(np.sqrt(variance_MB + sig_M[:, None] ** 2 * (1 - alike_B)))


def alike(mix_BK: Array, other_BK: Array) -> Array:
    """How much of the misfit two mixtures share (B,): exp(-h^2 / 2 ell^2)."""
    square_B = ((np.sqrt(mix_BK) - np.sqrt(other_BK)) ** 2).sum(axis=1)
    return np.asarray(np.exp(-square_B / (2 * ALIKE**2)))


def of_blend(weight_F: Array, sd_FBM: Array, apart_FBM: Array) -> Array:
    """The sd of a blend (B, M): that of each of its laws, and how far they are from it."""
    return np.asarray(np.sqrt(np.tensordot(weight_F, sd_FBM**2 + apart_FBM**2, axes=1)))


def beyond(scale_B2: Array, seen_22: Array, widen: float, least: float = SD_BEYOND) -> Array:
    """The factor of each row (B,): `widen` at scales seen, `least` or more outside them, without a jump."""
    far_B = np.maximum(scale_B2 / seen_22[1], seen_22[0] / scale_B2).max(axis=1)
    return np.asarray(np.interp(far_B, (1.0, np.exp(NOMINAL)), (widen, max(least, widen))), dtype=np.float64)


def outside(scale_B2: Array, seen_22: Array) -> Flags:
    """Which rows (B,) are outside the least and greatest n_params and n_tokens seen."""
    return np.asarray(((scale_B2 < seen_22[0]) | (scale_B2 > seen_22[1])).any(axis=1))


def widening(
    problem: Problem, solution: Solution, covariance_MPP: Array, sig_M: Array, less_M: Array, mixture_B: Ints, runs: int
) -> float:
    """The factor f of a fit, one for all eval domains."""
    nu = max(float(freedom(np.array(runs), solution.params_MP.shape[1])), MIN_FREEDOM)
    student = float(stats.t.ppf(0.95, nu)) / Z90
    if mixture_B.max() == 0:  # nothing can be left out
        return student
    z_MB = np.abs(left_out(problem, solution, covariance_MPP, sig_M, less_M, mixture_B))
    residual_MB = residuals(problem, solution)
    judged_MB = tamed_residuals(problem, solution, solution.sig_M) == residual_MB  # an absurd loss judges no interval
    q = float(np.quantile(z_MB[judged_MB], 0.9)) / Z90
    return float(np.clip(q, *Q_RANGE)) * student


def left_out(
    problem: Problem, solution: Solution, covariance_MPP: Array, sig_M: Array, less_M: Array, mixture_B: Ints
) -> Array:
    """error / sd of every row (M, B), predicted without the rows of its mixture, to first order.

    With B = J H^-1 J' and D the weights of the rows left out, the error without them is (1 - B D)^-1 residual; their
    J V J' becomes (1 - J V J' D / less)^-1 J V J'.
    """
    everyone = np.arange(len(sig_M))
    _, jac_MPB = problem.evaluate(solution.params_MP, everyone, True)
    assert jac_MPB is not None
    residual_MB = residuals(problem, solution)
    weight_MB = problem.used_MB * huber_weight(residual_MB / solution.sig_M[:, None]) / solution.sig_M[:, None] ** 2
    inverse_MPP = np.asarray(np.linalg.inv(solution.hessian_MPP), dtype=np.float64)
    z_MB = np.zeros_like(residual_MB)
    for rows_Cr in _alike(mixture_B):
        jac_MCrP = np.moveaxis(jac_MPB[:, :, rows_Cr], 1, -1)
        weight_MC1r, one_rr = weight_MB[:, rows_Cr][:, :, None], np.eye(rows_Cr.shape[1])
        lever_MCrr = _between(jac_MCrP, inverse_MPP) * weight_MC1r
        error_MCr = np.linalg.solve(one_rr - lever_MCrr, residual_MB[:, rows_Cr][..., None])[..., 0]
        open_MCrr = _between(jac_MCrP, covariance_MPP)
        without_MCrr = np.linalg.solve(one_rr - open_MCrr * weight_MC1r / less_M[:, None, None, None], open_MCrr)
        variance_MCr = np.maximum(np.diagonal(without_MCrr, axis1=2, axis2=3), 0.0) + sig_M[:, None, None] ** 2
        z_MB[:, rows_Cr] = error_MCr / np.sqrt(variance_MCr)
    return z_MB


def _between(jac_MCrP: Array, matrix_MPP: Array) -> Array:
    return np.asarray(jac_MCrP @ matrix_MPP[:, None] @ np.swapaxes(jac_MCrP, 2, 3))


def _alike(group_B: Ints) -> list[Ints]:
    """The rows (C, r) of the groups, those of one size together."""
    groups = rows_of(group_B)
    sizes = sorted({len(rows) for rows in groups})
    return [np.array([rows for rows in groups if len(rows) == size]) for size in sizes]
