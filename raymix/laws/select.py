"""How well a law predicts what it has not seen.

A mixture is held out whole: all its rows, whatever the size, seed or step, are in one fold.
Rows left in would tell the law the answer.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from raymix.laws.base import Array, Flags, Ints, Law, Table
from raymix.laws.repetition import at_rows
from raymix.laws.rows import mixture_numbers

FOLDS = 5


def cross_validate(make: Callable[[], Law], table: Table) -> Array:
    """Losses (B, M) predicted by laws that never saw the row's mixture; NaN as in `predict_unseen`.

    Raises:
        ValueError: there is one mixture alone, or what `Law.fit` refuses.
    """
    fold_B, pred_BM = mixture_folds(table.mix_BK, FOLDS, 0), np.empty_like(table.loss_BM)
    for fold in range(fold_B.max() + 1):
        pred_BM[fold_B == fold] = predict_unseen(make(), table, fold_B != fold, fold_B == fold)
    return pred_BM


def predict_unseen(law: Law, table: Table, seen_B: Flags, asked_B: Flags) -> Array:
    """Losses (b, M) of the rows asked for, by `law` fitted to those seen; NaN of an eval domain without loss there."""
    (part, known), asked = table.take(seen_B).measured(), table.take(asked_B)
    pred_bM = np.full_like(asked.loss_BM, np.nan)
    if len(known):
        pred_bM[:, known] = at_rows(part.fit(law), asked).predict(asked.mix_BK, asked.scale_B2)
    return pred_bM


def mixture_folds(mix_BK: Array, folds: int, seed: int) -> Ints:
    """The fold of every row: equal mixtures fall in the same fold, folds are as even as can be.

    The order of rows changes nothing, nor does that of domains unless two have all the same shares.

    Raises:
        ValueError: there are fewer than two distinct mixtures or folds.
    """
    mixture_B = mixture_numbers(mix_BK)
    n_mixtures = int(mixture_B.max()) + 1
    n_folds = min(folds, n_mixtures)
    if n_folds < 2:
        raise ValueError(f"cross-validation needs two distinct mixtures and two folds, got {n_folds}")
    order_Q = np.random.default_rng(seed).permutation(n_mixtures)
    fold_Q = np.empty(n_mixtures, dtype=np.int64)
    fold_Q[order_Q] = np.arange(n_mixtures) % n_folds
    return fold_Q[mixture_B]


def rank_correlation(pred_BM: ArrayLike, loss_BM: ArrayLike, weight_M: ArrayLike | None = None) -> float:
    """Spearman correlation of predicted and measured weighted loss, best within one scale.

    Without `weight_M` both are objectives already (B,). NaN where fewer than 3 rows are known or all are equal.
    """
    pred, loss = np.asarray(pred_BM, dtype=np.float64), np.asarray(loss_BM, dtype=np.float64)
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


def _objective(loss_BM: Array, weight_M: ArrayLike) -> Array:
    """Weighted mean loss (B,); eval domains of weight 0 may be NaN."""
    weight = np.asarray(weight_M, dtype=np.float64)
    used_M = weight > 0
    return np.asarray(loss_BM[:, used_M] @ (weight[used_M] / weight[used_M].sum()))
