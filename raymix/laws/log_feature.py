"""Log-feature laws: losses exponential in phi_j = log((r_j + eps) / eps), found for this project.

    log_feature         L = c + exp(b + sum_j a_j phi_j)                               at one scale
    log_feature_joint   L = E + A n^-al exp(sum_j u_j phi_j) + B d^-be exp(sum_j t_j phi_j)

m4 with logarithms of the shares: it fits better where shares are often exactly 0, as losses bend most there.
(The division by eps only moves the level b.) eps is chosen from EPS_GRID by leaving each mixture out, in closed form
at the optimum: residuals r of a mixture's rows become (I - H)^-1 r, H their block of the hat matrix. Not convex in r
where an a_j is above 0, that is where a domain hurts.
"""

from dataclasses import dataclass, field

import numpy as np

from raymix.laws.base import Array, Ints, Table
from raymix.laws.exponential import M4, MEAN_SD, PART, bent
from raymix.laws.exposure import Points
from raymix.laws.fit import Prior, Problem, Solution, fit_map, huber_weight
from raymix.laws.rows import rows_of
from raymix.laws.separable import Normal, SeparableLaw, Term, power_law, product

EPS_GRID = (0.02, 0.03, 0.05)  # published runs of 5-17 domains prefer .02-.05
RIDGE_SD = 0.6  # of a_j: a ridge of 1e-3 on squared log loss at its usual noise of .02 (.02 / sqrt(1e-3))


@dataclass
class ChosenEps(SeparableLaw):
    """A law with features phi at an eps."""

    eps: float | None = None
    """Where phi turns from linear to logarithmic; chosen by leave-one-out if left out."""
    eps_: Array = field(init=False, repr=False)

    def _solve(self, problem: Problem, prior: Prior, at: Points) -> Solution:
        """The optimum at the given eps, or at the one whose left-out error is least."""
        tried = []
        for value in EPS_GRID if self.eps is None else (self.eps,):
            self.eps_ = np.array(value)
            solution = fit_map(problem, prior)
            tried.append((left_out_error(problem, solution, at), value, solution))
        _, best, solution = min(tried, key=lambda one: one[:2])
        self.eps_ = np.array(best)
        return solution


@dataclass
class LogFeature(M4, ChosenEps):
    """L = c + exp(b + sum_j a_j phi_j), through its value and slopes at the mean mixture as m4."""

    name = "log_feature"
    convex = False
    extra = ("center_K_", "eps_")

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        return [(log_median_M, MEAN_SD), PART, (np.zeros((len(log_median_M), self.n_domains_)), RIDGE_SD)]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        eps = float(self.eps_)
        phi_KQ = (np.log(at.share_QK + eps) - np.log(self.center_K_ + eps)).T
        return bent(theta_MP, at.rows(phi_KQ), lambda: 1 / (at.share_QK + eps))


class LogFeatureJoint(ChosenEps):
    """L = E + A n^-al exp(sum_j u_j phi_j) + B d^-be exp(sum_j t_j phi_j)."""

    name = "log_feature_joint"
    convex = False
    extra = ("eps_",)

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        scalars = self._size_prior(log_median_M) + self._data_prior(log_median_M)
        zeros_MK = np.zeros((len(log_median_M), self.n_domains_))
        return [*scalars, (zeros_MK, RIDGE_SD), (zeros_MK, RIDGE_SD)]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        k, eps = self.n_domains_, float(self.eps_)
        return [
            product(power_law(theta_MP, 0, at.log_n_B[None]), features(theta_MP, slice(4, 4 + k), at, eps)),
            product(power_law(theta_MP, 2, at.log_d_B[None]), features(theta_MP, slice(4 + k, 4 + 2 * k), at, eps)),
        ]


def features(theta_MP: Array, a: slice, at: Points, eps: float) -> Term:
    """exp(sum_j a_j phi_j)."""
    a_MK, phi_KQ = theta_MP[:, a], np.log1p(at.share_QK / eps).T
    return Term(at.rows(a_MK @ phi_KQ), lambda: [(a, at.rows(phi_KQ))], lambda: a_MK[:, None, :] / (at.share_QK + eps))


def left_out_error(problem: Problem, solution: Solution, at: Points) -> float:
    """Sum of squared log-loss errors, each mixture's predicted from the others (linearised at the optimum)."""
    everyone = np.arange(len(problem.used_MB))
    log_MB, jac_MPB = problem.evaluate(solution.params_MP, everyone, True)
    assert jac_MPB is not None
    residual_MB = problem.used_MB * (problem.target_MB - log_MB)
    root_MB = np.sqrt(huber_weight(residual_MB / solution.sig_M[:, None])) * problem.used_MB
    scaled_MPB = jac_MPB * (root_MB / solution.sig_M[:, None])[:, None]
    lever_MPB = np.linalg.solve(solution.hessian_MPP, scaled_MPB)
    total = 0.0
    for rows in rows_of(np.arange(len(at.share_QK)) if at.mixture_B is None else at.mixture_B):
        hat_Mbb = np.matmul(scaled_MPB[:, :, rows].transpose(0, 2, 1), lever_MPB[:, :, rows])
        error_Mb = np.linalg.solve(np.eye(len(rows)) - hat_Mbb, residual_MB[:, rows, None])[..., 0]
        total += float((error_Mb**2).sum())
    return total
