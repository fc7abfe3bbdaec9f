"""The one solver of all laws: maximum a posteriori on log loss, every eval domain at once.

    minimise  sum_rows huber((log L^ - log L) / sig)  +  1/2 sum ((theta - mean) / sd)^2

by Levenberg-Marquardt (Levenberg 1944, doi 10.1090/qam/10666: damping by lambda I) with Huber weights,
from the prior mean, once: the priors make the problem well posed, so there are no random restarts
and the answer is a function of the data. The eval domains are independent problems that share the
arithmetic: arrays carry a leading axis M, and those already done leave the working set (A of M).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from raymix.laws.base import Array, Flags, Ints

HUBER = 1.5  # in units of sig; 96% efficient under normal errors (Huber 1981)
DAMPING = 1e-2  # first lambda; damping by diag H needs 3-10 times the iterations in the flat valleys of b, e, u
DAMPING_STEP = 4.0  # lambda / 4 on success, x 4 on failure
MAX_TRIES = 12  # of lambda per iteration
MAX_DAMPING = 1e8  # no step this short lowers the cost: stuck. Easy ground may have led lambda to 1e-10
MAX_STEP = 2.0  # per parameter and iteration; parameters are logs or logits
MAX_ITERATIONS = 200  # 60 is enough for 19 in 20 eval domains; the rest then reach the optimum too
TOLERANCE = 1e-7  # relative decrease of the cost
FIRST_SIG = 0.02  # log loss; the size of run-to-run noise plus misfit in published proxy runs
SIG_RANGE = (0.004, 0.03)  # log loss; below is finer than seed noise, above a misfit would silence the data
NOISE_PASSES = 2
LEAST_FREEDOM = 0.15  # of the rows are left to tell the noise, however many parameters they decide
POOLED_SD_MIN = 0.15  # pooling never ties the eval domains closer than this


@dataclass(frozen=True)
class Problem:
    """What a law supplies: predicted log loss with its Jacobian, and the data.

    `evaluate(params_AP, active_A, want_jacobian)` returns log_AB and jac_APB = d log L / d theta (or None).
    """

    evaluate: Callable[[Array, Ints, bool], tuple[Array, Array | None]]
    target_MB: Array  # log loss; any finite number where not used
    used_MB: Array  # 1 where the row counts for the eval domain, else 0


@dataclass(frozen=True)
class Prior:
    """Independent normal priors."""

    mean_MP: Array
    sd_MP: Array


@dataclass(frozen=True)
class Solution:
    """The optimum of every eval domain."""

    params_MP: Array
    converged_M: Flags
    n_iter: int
    sig_M: Array
    hessian_MPP: Array  # Gauss-Newton, prior included
    prior: Prior


def fit_map(
    problem: Problem,
    prior: Prior,
    pooled_P: Ints | None = None,
    pooled_first_P: Ints | None = None,
    few: bool = False,
) -> Solution:
    """The optimum with the noise level re-estimated, twice, each time from the last point, and with pooled priors.

    Pooling sets the prior of the parameters named to mean and sd over eval domains and refits: of `pooled_first_P`
    before the noise is estimated, of `pooled_P` after it. With `few` runs to expect the noise is that of the evidence
    (`noise_by_evidence`), else `noise`.
    """
    estimate = noise_by_evidence if few else noise
    n_eval = len(problem.target_MB)
    solution = solve(problem, prior, np.full(n_eval, FIRST_SIG), prior.mean_MP)
    solution = _pooled(problem, solution, pooled_first_P)
    for _ in range(NOISE_PASSES):
        solution = solve(problem, solution.prior, estimate(problem, solution), solution.params_MP)
    return with_curvature(problem, _pooled(problem, solution, pooled_P))


def _pooled(problem: Problem, solution: Solution, pooled_P: Ints | None) -> Solution:
    if pooled_P is None or not len(pooled_P):
        return solution
    prior = pool(solution.prior, solution.params_MP, pooled_P)
    return solve(problem, prior, solution.sig_M, solution.params_MP)


def pool(prior: Prior, params_MP: Array, pooled_P: Ints) -> Prior:
    """The prior with `pooled_P` centred on the eval domains' mean, sd clipped to [POOLED_SD_MIN, prior sd]."""
    mean_MP, sd_MP = prior.mean_MP.copy(), prior.sd_MP.copy()
    mean_MP[:, pooled_P] = params_MP[:, pooled_P].mean(axis=0)
    spread_P = params_MP[:, pooled_P].std(axis=0, ddof=1)
    sd_MP[:, pooled_P] = np.clip(spread_P, np.minimum(POOLED_SD_MIN, sd_MP[:, pooled_P]), sd_MP[:, pooled_P])
    return Prior(mean_MP, sd_MP)


def solve(problem: Problem, prior: Prior, sig_M: Array, start_MP: Array) -> Solution:
    """Levenberg-Marquardt at fixed noise; `hessian_MPP` is left at zero (see `fit_map`)."""
    params_MP = start_MP.copy()
    damping_M = np.full(len(params_MP), DAMPING)
    converged_M = np.zeros(len(params_MP), dtype=bool)
    active_A = np.arange(len(params_MP))
    n_iter = 0
    with np.errstate(over="ignore", invalid="ignore"):
        while len(active_A) and n_iter < MAX_ITERATIONS:
            n_iter += 1
            done_A, stuck_A = _iterate(problem, prior, sig_M, params_MP, damping_M, active_A)
            converged_M[active_A[done_A]] = True
            active_A = active_A[~(done_A | stuck_A)]
    n_params = params_MP.shape[1]
    return Solution(params_MP, converged_M, n_iter, sig_M, np.zeros((len(params_MP), n_params, n_params)), prior)


def _iterate(
    problem: Problem, prior: Prior, sig_M: Array, params_MP: Array, damping_M: Array, active_A: Ints
) -> tuple[Flags, Flags]:
    """One step of the active eval domains, in place in `params_MP` and `damping_M`: who is done, who is stuck."""
    cost_A, slope_AP, hessian_APP = _expand(problem, prior, sig_M, params_MP, active_A)
    done_A, moved_A = np.zeros(len(active_A), dtype=bool), np.zeros(len(active_A), dtype=bool)
    trying = np.arange(len(active_A))
    for _ in range(MAX_TRIES):
        domain = active_A[trying]
        step, gain = _damped_step(slope_AP[trying], hessian_APP[trying], damping_M[domain])
        tried = params_MP[domain] + step
        drop = cost_A[trying] - _cost(problem, prior, sig_M, tried, domain)
        better = drop > 0
        params_MP[domain[better]] = tried[better]
        damping_M[domain] *= np.where(better, 1 / DAMPING_STEP, DAMPING_STEP)
        small = TOLERANCE * np.maximum(cost_A[trying], 1e-12)
        done_A[trying] = np.where(better, drop <= small, np.abs(gain) <= small)
        moved_A[trying] = better
        trying = trying[~(better | done_A[trying])]
        if not len(trying):
            break
    return done_A, ~moved_A & ~done_A & (damping_M[active_A] > MAX_DAMPING)


def _damped_step(slope_AP: Array, hessian_APP: Array, damping_A: Array) -> tuple[Array, Array]:
    """-(H + lambda I)^-1 g, clipped, and the decrease that the quadratic model promises for it."""
    damped_APP = hessian_APP.copy()
    np.einsum("app->ap", damped_APP)[...] += damping_A[:, None]
    step_AP = -np.linalg.solve(damped_APP, slope_AP[..., None])[..., 0]
    step_AP = np.clip(step_AP, -MAX_STEP, MAX_STEP)
    curved_AP = np.matmul(hessian_APP, step_AP[..., None])[..., 0]
    return step_AP, -np.sum(step_AP * (slope_AP + 0.5 * curved_AP), axis=1)


def _expand(
    problem: Problem, prior: Prior, sig_M: Array, params_MP: Array, active_A: Ints
) -> tuple[Array, Array, Array]:
    """Cost, gradient and Gauss-Newton Hessian (prior included) at the current point."""
    log_AB, jac_APB = problem.evaluate(params_MP[active_A], active_A, True)
    assert jac_APB is not None
    inv_A1 = 1 / sig_M[active_A, None]
    z_AB = (log_AB - problem.target_MB[active_A]) * inv_A1 * problem.used_MB[active_A]
    weight_AB = huber_weight(z_AB) * problem.used_MB[active_A]
    precision_AP = prior.sd_MP[active_A] ** -2
    off_AP = params_MP[active_A] - prior.mean_MP[active_A]
    slope_AP = np.matmul(jac_APB, (weight_AB * z_AB * inv_A1)[..., None])[..., 0] + precision_AP * off_AP
    scaled_APB = jac_APB * (np.sqrt(weight_AB) * inv_A1)[:, None, :]
    hessian_APP = np.matmul(scaled_APB, scaled_APB.transpose(0, 2, 1))
    np.einsum("app->ap", hessian_APP)[...] += precision_AP
    return _huber(z_AB).sum(1) + 0.5 * (precision_AP * off_AP**2).sum(1), slope_AP, hessian_APP


def _cost(problem: Problem, prior: Prior, sig_M: Array, params_AP: Array, active_A: Ints) -> Array:
    log_AB, _ = problem.evaluate(params_AP, active_A, False)
    z_AB = (log_AB - problem.target_MB[active_A]) / sig_M[active_A, None] * problem.used_MB[active_A]
    off_AP = (params_AP - prior.mean_MP[active_A]) / prior.sd_MP[active_A]
    cost_A = _huber(z_AB).sum(axis=1) + 0.5 * (off_AP**2).sum(axis=1)
    return np.where(np.isfinite(cost_A), cost_A, np.inf)


def _huber(z: Array) -> Array:
    size = np.abs(z)
    return np.where(size <= HUBER, 0.5 * z**2, HUBER * size - 0.5 * HUBER**2)


def huber_weight(z: Array) -> Array:
    """How much a row counts whose residual is `z` times sig."""
    return np.asarray(HUBER / np.maximum(np.abs(z), HUBER))


def noise(problem: Problem, solution: Solution) -> Array:
    """sig (M,) = sqrt(RSS / max(rows - P/2, .3 rows)), within SIG_RANGE."""
    rows_M = problem.used_MB.sum(axis=1)
    return _sig(problem, solution, freedom(rows_M, solution.params_MP.shape[1]))


def noise_by_evidence(problem: Problem, solution: Solution) -> Array:
    """sig (M,) = sqrt(RSS / max(rows - g, .15 rows)), within SIG_RANGE.

    g = P - tr(H^-1 diag(sd^-2)) parameters are decided by the data, the others by their priors (MacKay 1992,
    doi 10.1162/neco.1992.4.3.415). Where rows are about as many as parameters P/2 is far off.
    """
    hessian_MPP = with_curvature(problem, solution).hessian_MPP
    by_prior_M = np.einsum("mpp,mp->m", np.linalg.inv(hessian_MPP), solution.prior.sd_MP**-2)
    rows_M = problem.used_MB.sum(axis=1)
    decided_M = solution.params_MP.shape[1] - by_prior_M
    return _sig(problem, solution, np.maximum(rows_M - decided_M, LEAST_FREEDOM * rows_M))


def _sig(problem: Problem, solution: Solution, freedom_M: Array) -> Array:
    log_MB, _ = problem.evaluate(solution.params_MP, np.arange(len(solution.params_MP)), False)
    rss_M = np.sum(problem.used_MB * (log_MB - problem.target_MB) ** 2, axis=1)
    return np.asarray(np.clip(np.sqrt(rss_M / freedom_M), *SIG_RANGE))


def freedom(count: Array, n_params: int) -> Array:
    """Residuals that are left to tell the noise: priors decide about half of the parameters."""
    return np.maximum(count - n_params / 2, 0.3 * count)


def with_curvature(problem: Problem, solution: Solution) -> Solution:
    """The solution with its Hessian."""
    everyone = np.arange(len(solution.params_MP))
    _, _, hessian_MPP = _expand(problem, solution.prior, solution.sig_M, solution.params_MP, everyone)
    return replace(solution, hessian_MPP=hessian_MPP)
