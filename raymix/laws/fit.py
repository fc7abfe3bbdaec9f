"""The one solver of all laws: maximum a posteriori on log loss, every eval domain at once.

    minimise  sum_rows huber((log L^ - log L) / sig)  +  1/2 sum ((theta - mean) / sd)^2

by Levenberg-Marquardt (Levenberg 1944, doi 10.1090/qam/10666: damping by lambda I) with Huber weights,
from the prior mean, once: the priors make the problem well posed, so there are no random restarts
and the answer is a function of the data. The eval domains are independent problems that share the
arithmetic: arrays carry a leading axis M, and those already done leave the working set (A of M).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from raymix.laws.base import Array, Few, Flags, Ints
from raymix.laws.robust import tamed

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

Jacobian = Callable[[Few, Array], Array]  # d log L / d theta of a of A times weights of their rows (a, B): (a, P, B)
Expand = Callable[[Array, Ints], tuple[Array, Jacobian]]


@dataclass(frozen=True)
class Problem:
    """What a law supplies: predicted log loss with its Jacobian, and the data.

    `evaluate(params_AP, active_A, want_jacobian)` returns log_AB and jac_APB = d log L / d theta (or None).
    """

    evaluate: Callable[[Array, Ints, bool], tuple[Array, Array | None]]
    target_MB: Array  # log loss; any finite number where not used
    used_MB: Array  # 1 where the row counts for the eval domain, else 0
    in_steps: Expand | None = None
    """The same in two steps, where a law has it: log_AB, and what gives the Jacobian of some of A."""

    def expand(self, params_AP: Array, active_A: Ints) -> tuple[Array, Jacobian]:
        """`in_steps`, or made of `evaluate`: a step that is not kept needs no Jacobian."""
        if self.in_steps is not None:
            return self.in_steps(params_AP, active_A)

        def jacobian(few: Few, weight_aB: Array) -> Array:
            _, jac_aPB = self.evaluate(params_AP[few], active_A[few], True)
            assert jac_aPB is not None
            return jac_aPB * weight_aB[:, None, :]

        return self.evaluate(params_AP, active_A, False)[0], jacobian


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
    problem: Problem, prior: Prior, pooled_P: Ints | None = None, pooled_first_P: Ints | None = None, few: bool = False
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


@dataclass
class Search:
    """Levenberg-Marquardt at fixed noise, of the eval domains A that are still on their way."""

    active_A: Ints
    target_AB: Array
    scale_AB: Array  # 1 / sig, 0 where the row is not used
    mean_AP: Array
    precision_AP: Array
    params_AP: Array
    cost_A: Array
    slope_AP: Array  # of the cost
    hessian_APP: Array  # Gauss-Newton
    damping_A: Array
    tries_A: Ints  # of lambda in this iteration
    n_iter_A: Ints

    def take(self, some: Flags) -> "Search":
        """Those of A named."""
        return Search(*(getattr(self, f.name)[some] for f in fields(self)))


def solve(problem: Problem, prior: Prior, sig_M: Array, start_MP: Array) -> Solution:
    """Levenberg-Marquardt at fixed noise; `hessian_MPP` is left at zero (see `fit_map`)."""
    n_eval, n_params = start_MP.shape
    params_MP, converged_M, n_iter = start_MP.copy(), np.zeros(n_eval, dtype=bool), 0
    with np.errstate(over="ignore", invalid="ignore"):
        search = _start(problem, prior, sig_M, start_MP)
        while len(search.active_A):
            done_A, stuck_A = _try(problem, search)
            ends_A = done_A | stuck_A
            if ends_A.any():
                params_MP[search.active_A[ends_A]] = search.params_AP[ends_A]
                converged_M[search.active_A[done_A]] = True
                n_iter = max(n_iter, int(search.n_iter_A.max()))
                search = search.take(~ends_A)
    return Solution(params_MP, converged_M, n_iter, sig_M, np.zeros((n_eval, n_params, n_params)), prior)


def _start(problem: Problem, prior: Prior, sig_M: Array, start_MP: Array) -> Search:
    """Every eval domain, nothing tried yet."""
    n_eval, n_params = start_MP.shape
    model = (start_MP, np.empty(n_eval), np.empty_like(start_MP), np.empty((n_eval, n_params, n_params)))
    counts = (np.full(n_eval, DAMPING), np.zeros(n_eval, dtype=np.int64), np.zeros(n_eval, dtype=np.int64))
    given = (problem.target_MB, problem.used_MB / sig_M[:, None], prior.mean_MP, prior.sd_MP**-2)
    search = Search(np.arange(n_eval), *given, *model, *counts)
    log_MB, jacobian = problem.expand(start_MP, search.active_A)
    search.cost_A, z_MB = _cost(search, start_MP, log_MB)
    _model(search, slice(None), z_MB, jacobian)
    return search


def _try(problem: Problem, search: Search) -> tuple[Flags, Flags]:
    """One step of every eval domain, kept where it lowers the cost: who is done, who is stuck.

    An iteration of an eval domain ends with a step kept or with `MAX_TRIES`, whatever the others do.
    """
    step_AP, gain_A = _damped_step(search.slope_AP, search.hessian_APP, search.damping_A)
    tried_AP = search.params_AP + step_AP
    log_AB, jacobian = problem.expand(tried_AP, search.active_A)
    cost_A, z_AB = _cost(search, tried_AP, log_AB)
    drop_A = search.cost_A - cost_A
    better_A = drop_A > 0
    done_A = np.where(better_A, drop_A, np.abs(gain_A)) <= TOLERANCE * np.maximum(search.cost_A, 1e-12)
    search.params_AP = np.where(better_A[:, None], tried_AP, search.params_AP)
    search.cost_A = np.where(better_A, cost_A, search.cost_A)
    search.damping_A *= np.where(better_A, 1 / DAMPING_STEP, DAMPING_STEP)
    search.tries_A += 1
    last_A = search.tries_A == MAX_TRIES
    ended_A = better_A | done_A | last_A
    search.tries_A[ended_A] = 0
    search.n_iter_A += ended_A
    stuck_A = last_A & ~better_A & (search.damping_A > MAX_DAMPING) | (search.n_iter_A == MAX_ITERATIONS)
    moved_A = better_A & ~(done_A | stuck_A)
    if moved_A.all():
        _model(search, slice(None), z_AB, jacobian)
    elif moved_A.any():
        _model(search, np.flatnonzero(moved_A), z_AB, jacobian)
    return done_A, stuck_A & ~done_A


def _damped_step(slope_AP: Array, hessian_APP: Array, damping_A: Array) -> tuple[Array, Array]:
    """-(H + lambda I)^-1 g, clipped, and the decrease that the quadratic model promises for it."""
    damped_APP = hessian_APP.copy()
    np.einsum("app->ap", damped_APP)[...] += damping_A[:, None]
    step_AP = -np.linalg.solve(damped_APP, slope_AP[..., None])[..., 0]
    step_AP = np.minimum(np.maximum(step_AP, -MAX_STEP), MAX_STEP)
    curved_AP = np.matmul(hessian_APP, step_AP[..., None])[..., 0]
    return step_AP, -np.sum(step_AP * (slope_AP + 0.5 * curved_AP), axis=1)


def _cost(search: Search, params_AP: Array, log_AB: Array) -> tuple[Array, Array]:
    """The cost, infinite where it is no number, and the residuals (A, B) in units of sig, 0 where not used."""
    z_AB = (log_AB - search.target_AB) * search.scale_AB
    off_AP = params_AP - search.mean_AP
    cost_A = _huber(z_AB).sum(axis=1) + 0.5 * (search.precision_AP * off_AP**2).sum(axis=1)
    return np.where(np.isfinite(cost_A), cost_A, np.inf), z_AB


def _model(search: Search, few: Few, z_AB: Array, jacobian: Jacobian) -> None:
    """Gradient and Gauss-Newton Hessian of `few` where they are now, prior included; z are their residuals there."""
    z_aB, precision_aP = z_AB[few], search.precision_AP[few]
    root_aB = np.sqrt(huber_weight(z_aB))
    jac_aPB = jacobian(few, root_aB * search.scale_AB[few])
    off_aP = search.params_AP[few] - search.mean_AP[few]
    search.slope_AP[few] = np.matmul(jac_aPB, (root_aB * z_aB)[..., None])[..., 0] + precision_aP * off_aP
    hessian_aPP = np.matmul(jac_aPB, jac_aPB.transpose(0, 2, 1))
    np.einsum("app->ap", hessian_aPP)[...] += precision_aP
    search.hessian_APP[few] = hessian_aPP


def _huber(z: Array) -> Array:
    """z^2 / 2 up to HUBER, linear beyond."""
    size = np.abs(z)
    inner = np.minimum(size, HUBER)
    return inner * (size - 0.5 * inner)


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
    least_M = np.full(len(freedom_M), SIG_RANGE[0])
    rss_M = np.nansum(tamed_residuals(problem, solution, least_M) ** 2, axis=1)
    return np.asarray(np.clip(np.sqrt(rss_M / freedom_M), *SIG_RANGE))


def residuals(problem: Problem, solution: Solution) -> Array:
    """log L^ - log L (M, B); any number where a row is not used."""
    log_MB, _ = problem.evaluate(solution.params_MP, np.arange(len(solution.params_MP)), False)
    return log_MB - problem.target_MB


def tamed_residuals(problem: Problem, solution: Solution, least_M: Array) -> Array:
    """Residuals without what is absurd in them (see `tamed`), NaN where a row is not used."""
    return tamed(np.where(problem.used_MB > 0, residuals(problem, solution), np.nan), least_M)


def freedom(count: Array, n_params: int) -> Array:
    """Residuals that are left to tell the noise: priors decide about half of the parameters."""
    return np.maximum(count - n_params / 2, 0.3 * count)


def with_curvature(problem: Problem, solution: Solution) -> Solution:
    """The solution with its Hessian."""
    search = _start(problem, solution.prior, solution.sig_M, solution.params_MP)
    return replace(solution, hessian_MPP=search.hessian_APP)
