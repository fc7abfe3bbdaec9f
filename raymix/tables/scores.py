"""How a law did on what was held out: errors per mixture, ranks, and the noise that stays.

Only rows that laws are meant to fit count: past the warm-up, at most 8 of a run. A mixture counts once, however many
rows it has, and its errors are the unit of every standard error, for the rows of a mixture err together.

Letters: B rows, M eval domains, Q mixtures, F folds.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from raymix.laws.base import Array, Ints, Table
from raymix.laws.rows import SAME_SCALE, last_rows, mixture_numbers
from raymix.laws.select import rank_correlation, rank_within
from raymix.observations import scale_groups
from raymix.target.held_out import ENOUGH

HeldOutBy = Literal["mixtures", "sizes"]


@dataclass(frozen=True)
class LawScore:
    """A law on what it had not seen; errors are of log loss, so .01 is 1%."""

    name: str
    held_out: HeldOutBy
    error: float
    """Mean over eval domains of the absolute error."""
    weighted_error: float
    """Absolute error of the weighted mean loss."""
    rank_correlation: float
    """Spearman, of the weighted mean loss over the last rows of runs."""
    rank_correlation_within_size: float
    """The same inside sizes (`laws.select.rank_within`): between them any law ranks well."""
    contrast_r2: float
    """Part explained of the differences between mixtures at one scale, in the weighted mean loss."""
    noise: float
    """sd of the weighted mean loss between runs of a size that the law did not explain."""
    folds: int
    """How many were done; a law that falls far behind is dropped."""

    @property
    def total(self) -> float:
        """What laws are compared by: the error of the weighted mean loss plus that per eval domain."""
        return self.error + self.weighted_error

    def to_json(self) -> dict[str, Any]:
        """Plain values; null where there is no number."""
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class HeldOutLosses:
    """Predictions of one law for the rows of `table` that it had not seen; the others are NaN."""

    name: str
    held_out: HeldOutBy
    table: Table
    weights_M: Array
    fold_B: Ints  # -1 where never held out
    pred_BM: Array

    def objective_error_B(self) -> Array:
        """log of predicted over measured weighted mean loss, each over the eval domains measured."""
        return np.asarray(np.log(self._objective(self.pred_BM)) - np.log(self._objective(self.table.loss_BM)))

    def error_Q(self) -> Array:
        """What laws are compared by, per mixture; NaN where none of its rows was held out."""
        per_domain_BM = np.abs(np.log(self.pred_BM / self.table.loss_BM))
        known_BM = np.isfinite(per_domain_BM)
        mean_B = np.where(known_BM, per_domain_BM, 0.0).sum(axis=1) / np.maximum(known_BM.sum(axis=1), 1)
        mean_B = np.where(known_BM.any(axis=1), mean_B, np.nan)
        return _mean_by(mixture_numbers(self.table.mix_BK), mean_B + np.abs(self.objective_error_B()))

    def score(self) -> LawScore:
        """All figures."""
        objective_B = self.objective_error_B()
        weighted = float(np.nanmean(_mean_by(mixture_numbers(self.table.mix_BK), np.abs(objective_B))))
        last = last_rows(self.table)
        groups = scale_groups(self.table.scale_B2[last, :1])
        return LawScore(
            self.name,
            self.held_out,
            float(np.nanmean(self.error_Q())) - weighted,
            weighted,
            *self._ranks(last, groups),
            self._contrast(objective_B),
            _sd_within(objective_B[last], groups),
            len(np.unique(self.fold_B[self.fold_B >= 0])),
        )

    def _objective(self, loss_BM: Array) -> Array:
        known_BM = np.isfinite(self.pred_BM) & np.isfinite(self.table.loss_BM)
        weight_BM = known_BM * self.weights_M
        total_B = weight_BM.sum(axis=1)
        value_B = (weight_BM * np.where(known_BM, loss_BM, 0.0)).sum(axis=1)
        return np.asarray(np.divide(value_B, total_B, out=np.full(len(total_B), np.nan), where=total_B > 0))

    def _ranks(self, last: Ints, groups: Ints) -> tuple[float, float]:
        """Over all runs, and within groups: NaN where too few tell, as of a law that was dropped early."""
        pred_B, loss_B = self._objective(self.pred_BM)[last], self._objective(self.table.loss_BM)[last]
        return rank_correlation(pred_B, loss_B), rank_within(pred_B, loss_B, groups, ENOUGH)

    def _contrast(self, objective_error_B: Array) -> float:
        known_B = np.isfinite(objective_error_B)
        groups = same_scale(self.table.scale_B2)[known_B]
        log_loss_B = np.log(self._objective(self.table.loss_BM)[known_B])
        whole = float((_centred(log_loss_B, groups) ** 2).sum())
        left = float((_centred(objective_error_B[known_B], groups) ** 2).sum())
        return 1 - left / whole if whole > 0 else float("nan")


def standard_error(one: HeldOutLosses, other: HeldOutLosses) -> float:
    """Of the difference between two laws: over mixtures or over folds, whichever is larger.

    Mixtures held out together are predicted by one fit and may all err together: with fewer than three folds to tell,
    the sd over mixtures stands for the error of their mean.
    """
    difference_Q = one.error_Q() - other.error_Q()
    known_Q = np.isfinite(difference_Q)
    if known_Q.sum() < 2:
        return float("inf")
    by_mixture = float(difference_Q[known_Q].std(ddof=1))
    folds = np.unique(one.fold_B[one.fold_B >= 0])
    if len(folds) < 3:
        return by_mixture
    mixture_B = mixture_numbers(one.table.mix_BK)
    fold_means = [np.nanmean(difference_Q[np.unique(mixture_B[one.fold_B == fold])]) for fold in folds]
    by_fold = float(np.std(fold_means, ddof=1))
    return float(max(by_mixture / np.sqrt(known_Q.sum()), by_fold / np.sqrt(len(folds))))


def same_scale(scale_B2: Array) -> Ints:
    """Rows of one size and within about 1% of each other's tokens share a number."""
    size_B, tokens_B = scale_groups(scale_B2[:, :1]), np.round(np.log(scale_B2[:, 1]) / SAME_SCALE)
    return np.unique(np.column_stack([size_B, tokens_B]), axis=0, return_inverse=True)[1].ravel()


def _mean_by(group_B: Ints, value_B: Array) -> Array:
    known_B = np.isfinite(value_B)
    count = np.bincount(group_B[known_B], minlength=group_B.max() + 1)
    total = np.bincount(group_B[known_B], weights=value_B[known_B], minlength=group_B.max() + 1)
    return np.asarray(np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0))


def _centred(value_B: Array, group_B: Ints) -> Array:
    return np.asarray(value_B - _mean_by(group_B, value_B)[group_B])


def _sd_within(value_B: Array, group_B: Ints) -> float:
    known_B = np.isfinite(value_B)
    value_B, group_B = value_B[known_B], np.unique(group_B[known_B], return_inverse=True)[1].ravel()
    freedom = len(value_B) - len(np.unique(group_B))
    return float(np.sqrt((_centred(value_B, group_B) ** 2).sum() / freedom)) if freedom > 0 else float("nan")
