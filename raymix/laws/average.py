"""An average of laws: errors of different families partly cancel.

    log L = sum_f w_f log L_f  (geometric)   or   L = sum_f w_f L_f  (arithmetic)

Weights are given, or stacked (Breiman 1996, doi 10.1007/BF00117832): non-negative, summing to 1, and least squares
on log-loss predictions of mixtures held out. The sd holds each law's own and how far the laws are apart.
Folds are dealt in order of mean log loss, so that they do not depend on the order of rows or domains.
Letters: F laws averaged, R held-out losses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from raymix.laws.base import Array, FromTable, Ints, Law, Table, fresh, restore, saved
from raymix.laws.intervals import of_blend
from raymix.laws.log_feature import LogFeatureJoint
from raymix.laws.rows import canonical_order
from raymix.laws.select import predict_unseen
from raymix.laws.union import TiedUnion

FOLDS = 5
SUM_WEIGHT = 1e3  # of the row that holds the sum of weights at 1, over all other rows together


@dataclass
class Average(FromTable):
    """Weighted mean of laws; settings below, learned values end in `_`."""

    name = "average"
    convex = False
    repeats = True

    laws: Sequence[Law] = field(default_factory=lambda: (TiedUnion(), LogFeatureJoint()))
    """The laws averaged; fresh copies are fitted."""
    weights: Sequence[float] | None = None
    """One per law, in any unit; by cross-validation if left out."""
    mean: Literal["geometric", "arithmetic"] = "geometric"
    """Of losses."""

    laws_: list[Law] = field(init=False, repr=False)
    weight_F_: Array = field(init=False, repr=False)
    notes_: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.laws:
            raise ValueError("an average needs at least one law")
        if self.mean not in ("geometric", "arithmetic"):
            raise ValueError(f"mean = {self.mean!r}: geometric or arithmetic")
        weights = self.weights
        if weights is not None and (len(weights) != len(self.laws) or min(weights) < 0 or not sum(weights) > 0):
            raise ValueError(f"weights must be {len(self.laws)} numbers >= 0, not all 0, got {list(weights)}")

    def _fit(self, table: Table) -> Self:
        table = canonical_order(table)
        self.laws_ = [table.fit(fresh(law)) for law in self.laws]
        self.notes_ = list(dict.fromkeys(f"{law.name}: {note}" for law in self.laws_ for note in law.notes_))
        self.weight_F_ = self._stacked(table) if self.weights is None else _to_one(np.array(self.weights, float))
        return self

    def predict(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Losses (B, M) in nats per token."""
        return self._blend(np.stack([law.predict(mix_BK, scale_B2) for law in self.laws_]))

    def gradient(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """dL/dr (B, M, K): L sum_f w_f dlog L_f/dr, or sum_f w_f dL_f/dr."""
        slope_FBMK = np.stack([law.gradient(mix_BK, scale_B2) for law in self.laws_])
        if self.mean == "geometric":
            loss_FBM = np.stack([law.predict(mix_BK, scale_B2) for law in self.laws_])
            slope_FBMK *= (self._blend(loss_FBM) / loss_FBM)[..., None]
        return np.tensordot(self.weight_F_, slope_FBMK, axes=1)

    def sd(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd of log loss (B, M): sqrt of sum_f w_f (sd_f^2 + (log L_f - log L)^2)."""
        log_FBM = np.log([law.predict(mix_BK, scale_B2) for law in self.laws_])
        sd_FBM = np.stack([law.sd(mix_BK, scale_B2) for law in self.laws_])
        apart_FBM = log_FBM - np.log(self._blend(np.exp(log_FBM)))
        return of_blend(self.weight_F_, sd_FBM, apart_FBM)

    def sd_between(self, mix_BK: ArrayLike, other_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd (B, M) of log L(mix) - log L(other): each law's own, and how far the laws are apart on it."""
        loss_2FBM = np.stack([[law.predict(each, scale_B2) for law in self.laws_] for each in (mix_BK, other_BK)])
        blend_2BM = np.stack([self._blend(loss_FBM) for loss_FBM in loss_2FBM])
        apart_FBM = np.log(loss_2FBM[0] / loss_2FBM[1]) - np.log(blend_2BM[0] / blend_2BM[1])
        sd_FBM = np.stack([law.sd_between(mix_BK, other_BK, scale_B2) for law in self.laws_])
        return of_blend(self.weight_F_, sd_FBM, apart_FBM)

    def to_json(self) -> dict[str, Any]:
        return saved(self, ["weight_F_"], laws=[law.to_json() for law in self.laws_])

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        from raymix.laws import law_from_json  # here, because the registry lists this class

        laws = [law_from_json(law) for law in data["laws"]]
        law = cls([fresh(part) for part in laws], **data["settings"])
        law.laws_ = laws
        restore(law, data, ["weight_F_"])
        return law

    def _blend(self, loss_FBM: Array) -> Array:
        if self.mean == "arithmetic":
            return np.tensordot(self.weight_F_, loss_FBM, axes=1)
        return np.asarray(np.exp(np.tensordot(self.weight_F_, np.log(loss_FBM), axes=1)))

    def _stacked(self, table: Table) -> Array:
        """Weights from held-out predictions; equal where there is nothing to hold out, with a note."""
        n_laws, fold_B = len(self.laws), _folds(table)
        if fold_B.max() == 0:
            self.notes_.append("one mixture: nothing to choose the weights by, so they are equal")
            return np.full(n_laws, 1 / n_laws)
        error_FBM = np.full((n_laws, *table.loss_BM.shape), np.nan)
        for fold in range(fold_B.max() + 1):
            for f, law in enumerate(self.laws):
                pred_bM = predict_unseen(fresh(law), table, fold_B != fold, fold_B == fold)
                error_FBM[f][fold_B == fold] = np.log(pred_bM) - np.log(table.loss_BM[fold_B == fold])
        known_BM = np.isfinite(error_FBM).all(axis=0)
        return _least_squares(error_FBM[:, known_BM].T)


def _folds(table: Table) -> Ints:
    """Fold of each row: mixtures dealt to at most FOLDS folds in order of mean log loss."""
    _, mixture_B = np.unique(table.mix_BK, axis=0, return_inverse=True)
    log_BM, n_mixtures = np.log(table.loss_BM), int(mixture_B.max()) + 1
    level_Q = np.array([np.nanmean(log_BM[mixture_B.ravel() == q]) for q in range(n_mixtures)])
    fold_Q = np.empty(n_mixtures, dtype=np.int64)
    fold_Q[np.argsort(level_Q, kind="stable")] = np.arange(n_mixtures) % FOLDS
    return fold_Q[mixture_B.ravel()]


def _least_squares(error_RF: Array) -> Array:
    """w >= 0, sum w = 1, with the least sum of (error w)^2: nnls with a heavy row for the sum."""
    scaled_RF = error_RF / (np.abs(error_RF).max() or 1.0)
    n_rows, n_laws = scaled_RF.shape
    heavy = SUM_WEIGHT * np.sqrt(n_rows)
    weight_F, _ = nnls(np.vstack([scaled_RF, np.full(n_laws, heavy)]), np.append(np.zeros(n_rows), heavy))
    return _to_one(weight_F)


def _to_one(weight_F: Array) -> Array:
    return np.asarray(weight_F / weight_F.sum())
