"""Many one-dimensional power laws at once, L = E + B x^-power: step laws and size laws of a nested fit.

Each curve is a maximum a posteriori fit on log loss (`fit`), the floor E = .98 min(L) sigmoid(.) as in the union law.
A curve with too few points is the mean curve of the others of its kind, times a factor.
Letters: G curves, C points of a curve, Q points asked for.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from raymix.laws.base import Array, Flags, Ints
from raymix.laws.exposure import sigmoid
from raymix.laws.fit import Prior, Problem, fit_map
from raymix.laws.fitted import FLOOR_CAP
from raymix.laws.rows import SAME_SCALE
from raymix.laws.union_forms import FLOOR

Normal = tuple[float, float]  # prior mean and sd


@dataclass(frozen=True)
class Habit:
    """What is known of a kind of curve before it is seen: priors of log B (over median L) and of log power."""

    level: Normal
    power: Normal
    alone_level: Normal  # of a curve with one point and no other curve to lean on
    alone_power: Normal
    enough: int  # points that a curve needs to stand for itself


@dataclass(frozen=True)
class Curves:
    """Fitted curves; a curve without points is NaN."""

    params_G3: Array  # logit of E / cap, log B, log power
    covariance_G33: Array
    cap_G: Array

    @classmethod
    def without_points(cls, n: int) -> Self:
        """n of them."""
        return cls(np.full((n, 3), np.nan), np.full((n, 3, 3), np.nan), np.full(n, np.nan))

    def predict(self, log_x_GQ: Array) -> Array:
        """Losses (G, Q); `log_x_GQ` may broadcast."""
        return np.exp(_log_loss(self.params_G3, self.cap_G, log_x_GQ, False)[0])

    def variance(self, log_x_GQ: Array) -> Array:
        """Variance of log loss (G, Q) that the points leave open, without the noise of a new run."""
        jac_G3Q = _log_loss(self.params_G3, self.cap_G, log_x_GQ, True)[1]
        assert jac_G3Q is not None
        return np.asarray(np.sum(jac_G3Q * np.matmul(self.covariance_G33, jac_G3Q), axis=1))


def fit_curves(log_x_GC: Array, loss_GC: Array, kind_G: Ints, habit: Habit) -> Curves:
    """One curve per row; losses are NaN where there is no point. Curves of one kind may lean on each other."""
    count_G = _distinct_points(log_x_GC, loss_GC)
    curves = Curves.without_points(len(loss_GC))
    enough_G = count_G >= habit.enough
    few = np.flatnonzero((count_G > 0) & ~enough_G)
    if not enough_G.any():
        _fit_into(curves, few, log_x_GC, loss_GC, habit)
        return curves
    _fit_into(curves, np.flatnonzero(enough_G), log_x_GC, loss_GC, habit)
    if len(few):
        _lean(curves, few, enough_G, kind_G, log_x_GC, loss_GC, habit)
    return curves


def _distinct_points(log_x_GC: Array, loss_GC: Array) -> Ints:
    """Points per curve; repeats at one x count once."""
    sorted_GC = np.sort(np.where(np.isfinite(loss_GC), log_x_GC, np.inf), axis=1)
    with np.errstate(invalid="ignore"):  # inf - inf where points are missing
        first_GC = np.diff(sorted_GC, axis=1, prepend=-np.inf) > SAME_SCALE
    return np.asarray((first_GC & np.isfinite(sorted_GC)).sum(axis=1))


def _fit_into(curves: Curves, rows: Ints, log_x_GC: Array, loss_GC: Array, habit: Habit) -> None:
    """Write the optimum of the curves `rows`, each with at least one point."""
    log_x_AC, loss_AC = log_x_GC[rows], loss_GC[rows]
    used_AC = np.isfinite(loss_AC)
    log_x_AC = np.where(used_AC, log_x_AC, 0.0)
    cap_A = FLOOR_CAP * np.nanmin(loss_AC, axis=1)
    problem = Problem(
        lambda params, active, jac: _log_loss(params, cap_A[active], log_x_AC[active], jac),
        np.log(np.where(used_AC, loss_AC, 1.0)),
        used_AC.astype(np.float64),
    )
    solution = fit_map(
        problem, _prior(np.log(np.nanmedian(loss_AC, axis=1)), _distinct_points(log_x_AC, loss_AC), habit)
    )
    curves.params_G3[rows], curves.cap_G[rows] = solution.params_MP, cap_A
    curves.covariance_G33[rows] = np.linalg.inv(solution.hessian_MPP)


def _prior(log_median_A: Array, count_A: Ints, habit: Habit) -> Prior:
    usual, alone = np.array([FLOOR, habit.level, habit.power]), np.array([FLOOR, habit.alone_level, habit.alone_power])
    normal_A32 = np.where((count_A <= 1)[:, None, None], alone, usual)
    return Prior(normal_A32[..., 0] + np.outer(log_median_A, [0, 1, 0]), normal_A32[..., 1])


def _lean(
    curves: Curves, few: Ints, enough_G: Flags, kind_G: Ints, log_x_GC: Array, loss_GC: Array, habit: Habit
) -> None:
    """Curves with too few points: the mean curve of those with enough, of their kind or else of all, times a factor."""
    kinds, kind_f = np.unique(kind_G[few], return_inverse=True)
    seen_GC = np.isfinite(loss_GC) & enough_G[:, None]
    grid_1C = np.linspace(log_x_GC[seen_GC].min(), log_x_GC[seen_GC].max(), max(habit.enough, loss_GC.shape[1]))[None]
    log_GC = np.log(curves.predict(grid_1C))
    like = [enough_G & (kind_G == kind) for kind in kinds]
    like = [mask_G if mask_G.any() else enough_G for mask_G in like]
    mean = Curves.without_points(len(kinds))
    mean_log_kC = np.stack([log_GC[mask_G].mean(axis=0) for mask_G in like])
    _fit_into(mean, np.arange(len(kinds)), np.broadcast_to(grid_1C, mean_log_kC.shape), np.exp(mean_log_kC), habit)
    own = Curves(mean.params_G3[kind_f], mean.covariance_G33[kind_f], mean.cap_G[kind_f])
    factor_f = np.nanmean(np.log(loss_GC[few]) - np.log(own.predict(log_x_GC[few])), axis=1)
    curves.params_G3[few] = own.params_G3 + np.outer(factor_f, [0, 1, 0])
    curves.cap_G[few] = own.cap_G * np.exp(factor_f)
    curves.covariance_G33[few] = np.stack([curves.covariance_G33[mask_G].mean(axis=0) for mask_G in like])[kind_f]


def _log_loss(params_G3: Array, cap_G: Array, log_x_GQ: Array, want: bool) -> tuple[Array, Array | None]:
    """log L (G, Q) and d log L / d params (G, 3, Q)."""
    share_G1, power_G1 = sigmoid(params_G3[:, :1]), np.exp(params_G3[:, 2:])
    floor_G1 = cap_G[:, None] * share_G1
    part_GQ = np.exp(params_G3[:, 1:2] - power_G1 * log_x_GQ)
    loss_GQ = floor_G1 + part_GQ
    if not want:
        return np.log(loss_GQ), None
    by_floor_GQ, by_level_GQ = floor_G1 * (1 - share_G1) / loss_GQ, part_GQ / loss_GQ
    by_power_GQ = -power_G1 * log_x_GQ * by_level_GQ
    return np.log(loss_GQ), np.stack([by_floor_GQ, by_level_GQ, by_power_GQ], axis=1)
