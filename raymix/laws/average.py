"""An average of laws: errors of different families partly cancel.

    log L = sum_k w_k log L_k  (geometric)   or   L = sum_k w_k L_k  (arithmetic)

Weights are given, or stacked (Breiman 1996, doi 10.1007/BF00117832): non-negative, summing to 1, and least squares
on log-loss predictions of mixtures held out. The sd holds each law's own and how far the laws are apart.
Folds are dealt in order of mean log loss, so that they do not depend on the order of rows or domains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from raymix.laws.base import Array, Ints, Law, Table, as_table
from raymix.laws.bootstrap import fresh
from raymix.laws.log_feature import LogFeatureJoint
from raymix.laws.rows import canonical_order
from raymix.laws.union import TiedUnion

FOLDS = 5
SUM_WEIGHT = 1e3  # of the row that holds the sum of weights at 1, over the other rows' scale


def _two_families() -> Sequence[Law]:
    return (TiedUnion(), LogFeatureJoint())


@dataclass
class Average:
    """Weighted mean of laws; settings below, learned values end in `_`."""

    name: ClassVar[str] = "average"
    convex: ClassVar[bool] = False

    laws: Sequence[Law] = field(default_factory=_two_families)
    """The laws averaged; fresh copies are fitted."""
    weights: Sequence[float] | None = None
    """One per law, in any unit; by cross-validation if left out."""
    mean: Literal["geometric", "arithmetic"] = "geometric"
    """Of losses."""

    laws_: list[Law] = field(init=False, repr=False)
    weight_K_: Array = field(init=False, repr=False)
    notes_: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.laws:
            raise ValueError("an average needs at least one law")
        if self.mean not in ("geometric", "arithmetic"):
            raise ValueError(f"mean = {self.mean!r}: geometric or arithmetic")
        weights = self.weights
        if weights is not None and (len(weights) != len(self.laws) or min(weights) < 0 or not 0 < sum(weights)):
            raise ValueError(f"weights must be {len(self.laws)} numbers >= 0, not all 0, got {list(weights)}")

    def fit(
        self,
        mix_BK: ArrayLike,
        scale_B2: ArrayLike,
        loss_BM: ArrayLike,
        run_B: ArrayLike | None = None,
        own_M: ArrayLike | None = None,
    ) -> Self:
        """Fit all laws, and the weights if they were not given; see `base.Law.fit`."""
        table = canonical_order(as_table(mix_BK, scale_B2, loss_BM, run_B, own_M))
        self.laws_ = [_fitted(law, table) for law in self.laws]
        self.notes_ = list(dict.fromkeys(f"{law.name}: {note}" for law in self.laws_ for note in law.notes_))
        self.weight_K_ = self._stacked(table) if self.weights is None else _to_one(np.array(self.weights, float))
        return self

    def predict(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Losses (B, M) in nats per token."""
        return self._blend(np.stack([law.predict(mix_BK, scale_B2) for law in self.laws_]))

    def gradient(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """dL/dr (B, M, K): L sum_k w_k dlog L_k/dr, or sum_k w_k dL_k/dr."""
        slope_KBMK = np.stack([law.gradient(mix_BK, scale_B2) for law in self.laws_])
        if self.mean == "geometric":
            loss_KBM = np.stack([law.predict(mix_BK, scale_B2) for law in self.laws_])
            slope_KBMK *= (self._blend(loss_KBM) / loss_KBM)[..., None]
        return np.tensordot(self.weight_K_, slope_KBMK, axes=1)

    def sd(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd of log loss (B, M): sqrt of sum_k w_k (sd_k^2 + (log L_k - log L)^2)."""
        log_KBM = np.log([law.predict(mix_BK, scale_B2) for law in self.laws_])
        sd_KBM = np.stack([law.sd(mix_BK, scale_B2) for law in self.laws_])
        apart_KBM = log_KBM - np.log(self._blend(np.exp(log_KBM)))
        return np.sqrt(np.tensordot(self.weight_K_, sd_KBM**2 + apart_KBM**2, axes=1))

    def to_json(self) -> dict[str, Any]:
        """Settings and learned values as plain JSON values."""
        weights = None if self.weights is None else [float(weight) for weight in self.weights]
        return {
            "law": self.name,
            "settings": {"weights": weights, "mean": self.mean},
            "laws": [law.to_json() for law in self.laws_],
            "learned": {"weight_K_": self.weight_K_.tolist(), "notes_": list(self.notes_)},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The law that `to_json` described."""
        from raymix.laws import law_from_json  # here, because the registry lists this class

        laws, learned = [law_from_json(law) for law in data["laws"]], data["learned"]
        law = cls([fresh(part) for part in laws], **data["settings"])
        law.laws_, law.weight_K_, law.notes_ = laws, np.array(learned["weight_K_"]), list(learned["notes_"])
        return law

    def _blend(self, loss_KBM: Array) -> Array:
        if self.mean == "arithmetic":
            return np.tensordot(self.weight_K_, loss_KBM, axes=1)
        return np.exp(np.tensordot(self.weight_K_, np.log(loss_KBM), axes=1))

    def _stacked(self, table: Table) -> Array:
        """Weights from held-out predictions; equal where there is nothing to hold out, with a note."""
        n_laws, fold_B = len(self.laws), _folds(table)
        if n_laws == 1 or fold_B.max() == 0:
            if n_laws > 1:
                self.notes_.append("one mixture: nothing to choose the weights by, so they are equal")
            return np.full(n_laws, 1 / n_laws)
        error_KBM = np.full((n_laws, *table.loss_BM.shape), np.nan)
        for fold in range(fold_B.max() + 1):
            train, test = np.flatnonzero(fold_B != fold), np.flatnonzero(fold_B == fold)
            part = table.take(train)
            seen = np.flatnonzero(np.isfinite(part.loss_BM).any(axis=0))
            for k, law in enumerate(self.laws):
                fitted = fresh(law).fit(part.mix_BK, part.scale_B2, part.loss_BM[:, seen], part.run_B, part.own_M[seen])
                held_out = np.ix_(test, seen)
                log_pred = np.log(fitted.predict(table.mix_BK[test], table.scale_B2[test]))
                error_KBM[k][held_out] = log_pred - np.log(table.loss_BM[held_out])
        known_BM = np.isfinite(error_KBM).all(axis=0)
        return _least_squares(error_KBM[:, known_BM].T)


def _fitted(law: Law, table: Table) -> Law:
    return fresh(law).fit(table.mix_BK, table.scale_B2, table.loss_BM, table.run_B, table.own_M)


def _folds(table: Table) -> Ints:
    """Fold of each row: mixtures dealt to at most FOLDS folds in order of mean log loss."""
    _, mixture_B = np.unique(table.mix_BK, axis=0, return_inverse=True)
    log_B = np.nanmean(np.log(table.loss_BM), axis=1, where=np.isfinite(table.loss_BM) | ~np.isfinite(table.loss_BM))
    level_Q = np.array([np.nanmean(log_B[mixture_B == q]) for q in range(mixture_B.max() + 1)])
    fold_Q = np.empty(len(level_Q), dtype=np.int64)
    fold_Q[np.argsort(level_Q, kind="stable")] = np.arange(len(level_Q)) % FOLDS
    return fold_Q[mixture_B.ravel()]


def _least_squares(error_RK: Array) -> Array:
    """w >= 0, sum w = 1, with the least sum of (error w)^2: nnls with a heavy row for the sum."""
    scale = float(np.abs(error_RK).max()) or 1.0
    weight_K, _ = nnls(np.vstack([error_RK / scale, np.full(error_RK.shape[1], SUM_WEIGHT)]), _target(len(error_RK)))
    return _to_one(weight_K)


def _target(n_rows: int) -> Array:
    return np.append(np.zeros(n_rows), SUM_WEIGHT)


def _to_one(weight_K: Array) -> Array:
    return np.asarray(weight_K / weight_K.sum())
