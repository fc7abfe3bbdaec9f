"""How well a law predicts what it has not seen: mixtures held out, sizes held out.

A mixture is held out whole: all its rows, whatever the size, seed or step, are in one fold.
Rows left in would tell the law the answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from raymix.laws.base import Array, Ints, Law, Table, as_table
from raymix.laws.repetition import at_rows
from raymix.laws.rows import SAME_SCALE, distinct, mixture_numbers

Make = Callable[[], Law]  # gives an unfitted law
Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class CVResult:
    """Held-out predictions beside what was measured; rows never held out are NaN."""

    pred_BM: Array
    sd_BM: Array  # of log loss
    loss_BM: Array
    fold_B: Ints  # -1 where never held out

    @property
    def error_BM(self) -> Array:
        """log L^ - log L of the held-out rows: about the relative error."""
        return np.log(self.pred_BM / self.loss_BM)

    @property
    def error_M(self) -> Array:
        """Mean |log L^ - log L| per eval domain."""
        return _mean(np.abs(self.error_BM))

    @property
    def coverage_M(self) -> Array:
        """Part of the held-out losses inside the 90% interval, per eval domain."""
        inside_BM = (np.abs(self.error_BM) <= stats.norm.ppf(0.95) * self.sd_BM).astype(np.float64)
        return _mean(np.where(np.isnan(self.error_BM), np.nan, inside_BM))

    def weighted_error(self, weight_M: ArrayLike) -> float:
        """Mean relative error of the weighted loss over the rows where every weighted loss is known."""
        pred_B, loss_B = _objective(self.pred_BM, weight_M), _objective(self.loss_BM, weight_M)
        return float(_mean(np.abs(pred_B / loss_B - 1)[:, None])[0])


def cross_validate(
    make: Make,
    mix_BK: ArrayLike,
    scale_B2: ArrayLike,
    loss_BM: ArrayLike,
    run_B: ArrayLike | None = None,
    own_M: ArrayLike | None = None,
    folds: int | Literal["loo"] = 5,
    seed: int = 0,
    unique_BK: ArrayLike | None = None,
) -> CVResult:
    """Held-out predictions with whole mixtures held out, in `folds` random parts or one by one."""
    table = as_table(mix_BK, scale_B2, loss_BM, run_B, own_M, unique_BK)
    fold_B = mixture_folds(table.mix_BK, folds, seed)
    splits = [(fold_B != fold, fold_B == fold) for fold in range(fold_B.max() + 1)]
    return _held_out(make, table, splits)


def cross_validate_sizes(
    make: Make,
    mix_BK: ArrayLike,
    scale_B2: ArrayLike,
    loss_BM: ArrayLike,
    run_B: ArrayLike | None = None,
    own_M: ArrayLike | None = None,
) -> CVResult:
    """Held-out predictions of each size from the smaller ones (at least two where there are three sizes)."""
    table = as_table(mix_BK, scale_B2, loss_BM, run_B, own_M)
    sizes = distinct(table.scale_B2[:, 0])
    if len(sizes) < 2:
        raise ValueError("holding a size out needs at least two sizes (n_params)")
    splits = []
    for size in sizes[min(2, len(sizes) - 1) :]:
        log_ratio_B = np.log(table.scale_B2[:, 0] / size)
        splits.append((log_ratio_B < -SAME_SCALE, np.abs(log_ratio_B) <= SAME_SCALE))
    return _held_out(make, table, splits)


def mixture_folds(mix_BK: Array, folds: int | Literal["loo"], seed: int) -> Ints:
    """The fold of every row: equal mixtures fall in the same fold, folds are as even as can be.

    The order of rows changes nothing, nor does that of domains unless two have all the same shares.

    Raises:
        ValueError: there are fewer than two distinct mixtures or folds.
    """
    mixture_B = mixture_numbers(mix_BK)
    n_mixtures = int(mixture_B.max()) + 1
    n_folds = n_mixtures if folds == "loo" else min(folds, n_mixtures)
    if n_folds < 2:
        raise ValueError(f"cross-validation needs two distinct mixtures and two folds, got {n_folds}")
    order_Q = np.random.default_rng(seed).permutation(n_mixtures)
    fold_Q = np.empty(n_mixtures, dtype=np.int64)
    fold_Q[order_Q] = np.arange(n_mixtures) % n_folds
    return fold_Q[mixture_B]


def rank_correlation(
    pred_BM: ArrayLike, loss_BM: ArrayLike, weight_M: ArrayLike | None = None, rows: ArrayLike | None = None
) -> float:
    """Spearman correlation of predicted and measured weighted loss over `rows`, best within one scale.

    Without `weight_M` both are objectives already (B,). NaN where fewer than 3 rows are known or all are equal.
    """
    pred, loss = np.asarray(pred_BM, dtype=np.float64), np.asarray(loss_BM, dtype=np.float64)
    if rows is not None:
        pred, loss = pred[np.asarray(rows)], loss[np.asarray(rows)]
    pred_B, loss_B = (pred, loss) if weight_M is None else (_objective(pred, weight_M), _objective(loss, weight_M))
    known_B = np.isfinite(pred_B) & np.isfinite(loss_B)
    if known_B.sum() < 3 or np.ptp(pred_B[known_B]) == 0 or np.ptp(loss_B[known_B]) == 0:
        return float("nan")
    return float(stats.spearmanr(pred_B[known_B], loss_B[known_B]).statistic)


def rank_within(pred_B: Array, loss_B: Array, group_B: Ints, least: int) -> float:
    """Rank correlation inside groups of at least so many rows, averaged by rows: between scales any law ranks well.

    Where no group has so many, of differences from the mean of the group, if there are as many as in one that had:
    rows predicted alike, replicates of one mixture, differ in nothing that was predicted. NaN where too few differ.
    """
    known_B = np.isfinite(pred_B) & np.isfinite(loss_B)
    groups = [np.flatnonzero((group_B == group) & known_B) for group in np.unique(group_B)]
    ranks = [(rank_correlation(pred_B[rows], loss_B[rows]), len(rows)) for rows in groups if len(rows) >= least]
    judged = [(rank, n) for rank, n in ranks if np.isfinite(rank)]  # replicates of one mixture have no order to predict
    if judged:
        return sum(rank * n for rank, n in judged) / sum(n for _, n in judged)
    different = [(rows, len(np.unique(pred_B[rows]))) for rows in groups]
    several = [rows for rows, n in different if n > 1]
    if sum(n - 1 for _, n in different if n) < least - 1:
        return float("nan")
    apart = [np.concatenate([of_B[rows] - of_B[rows].mean() for rows in several]) for of_B in (pred_B, loss_B)]
    return rank_correlation(*apart)


def noise_level(mix_BK: ArrayLike, scale_B2: ArrayLike, loss_BM: ArrayLike, pred_BM: ArrayLike | None = None) -> Array:
    """sd of log loss between runs that should agree (M,), from replicates of one mixture at one scale.

    Eval domains without replicates get the sd of log L - log `pred_BM` (misfit included), or NaN.
    """
    table = as_table(mix_BK, scale_B2, loss_BM, None, None)
    log_BM = np.log(table.loss_BM)
    _, group_B = np.unique(np.column_stack([table.mix_BK, table.scale_B2]), axis=0, return_inverse=True)
    fallback_M = np.full(log_BM.shape[1], np.nan)
    if pred_BM is not None:
        fallback_M = np.sqrt(_mean((log_BM - np.log(np.asarray(pred_BM, dtype=np.float64))) ** 2))
    within = [_within(log_B, group_B.ravel()) for log_B in log_BM.T]
    return np.where(np.isnan(within), fallback_M, within)


def _within(value_B: Array, group_B: Ints) -> float:
    """Pooled sd within groups; NaN where no group has two values."""
    known_B = np.isfinite(value_B)
    value_B, group_B = value_B[known_B], group_B[known_B]
    count_G = np.bincount(group_B)
    mean_G = np.bincount(group_B, weights=value_B) / np.maximum(count_G, 1)
    freedom = int(np.maximum(count_G - 1, 0).sum())
    return float(np.sqrt(np.sum((value_B - mean_G[group_B]) ** 2) / freedom)) if freedom else float("nan")


def _held_out(make: Make, table: Table, splits: list[tuple[Rows, Rows]]) -> CVResult:
    pred_BM, sd_BM = np.full_like(table.loss_BM, np.nan), np.full_like(table.loss_BM, np.nan)
    fold_B = np.full(len(table.mix_BK), -1)
    for fold, (train_B, test_B) in enumerate(splits):
        test = np.flatnonzero(test_B)
        (part, seen), asked = table.take(np.flatnonzero(train_B)).measured(), table.take(test)
        if not len(seen):  # the rest stays NaN in this fold
            continue
        law = at_rows(part.fit(make()), asked)
        pred_BM[np.ix_(test, seen)] = law.predict(asked.mix_BK, asked.scale_B2)
        sd_BM[np.ix_(test, seen)] = law.sd(asked.mix_BK, asked.scale_B2)
        fold_B[test] = fold
    return CVResult(pred_BM, sd_BM, table.loss_BM, fold_B)


def _objective(loss_BM: Array, weight_M: ArrayLike) -> Array:
    """Weighted mean loss (B,); eval domains of weight 0 may be NaN."""
    weight = np.asarray(weight_M, dtype=np.float64)
    used_M = weight > 0
    return np.asarray(loss_BM[:, used_M] @ (weight[used_M] / weight[used_M].sum()))


def _mean(value_BM: Array) -> Array:
    """Mean over the known rows per column; NaN where there is none."""
    known_BM = np.isfinite(value_BM)
    count_M = known_BM.sum(axis=0)
    total_M = np.where(known_BM, value_BM, 0.0).sum(axis=0)
    return np.where(count_M > 0, total_M / np.maximum(count_M, 1), np.nan)
