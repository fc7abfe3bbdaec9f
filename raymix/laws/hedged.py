"""The default law where runs have several sizes: the union law, hedged with its shape of one mixture factor.

    L = (1 - w) L_two + w k L_one,      w = 2 / (2 + trials beyond the commonest size)

The union law's mixture factor of what size brings has a weight per training domain (`union`). While few trials are
beyond the commonest size those weights are mostly prior, and they count most at a larger target. One factor for all
sizes has nothing to guess there; its level is worse, so k = L_two / L_one at the mean mixture of the runs brings it to
the other's. Each part is convex in the mixture, and so is the whole. With one size this is the union law itself.

With one trial beyond the commonest size the error of differences between mixtures at a size not trained fell by 11 to
37% on published runs; more weight on one factor helps them further and misleads where the optimum moves with scale
(benchmarks/LOG.md, "Few trials beyond one size").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from raymix.laws.base import Array, Table, as_mixtures, as_scales, as_table
from raymix.laws.rows import canonical_order, distinct
from raymix.laws.union import TiedUnion

TRIALS = 2  # beyond the commonest size, that the shape with one factor counts for


@dataclass
class HedgedUnion:
    """Two tied union laws, with a factor for size and without; learned values end in `_`."""

    name: ClassVar[str] = "hedged_union"
    convex: ClassVar[bool] = True
    repeats: ClassVar[bool] = True

    laws_: list[TiedUnion] = field(init=False, repr=False)
    """The union law; where sizes vary, also the one with one factor."""
    weight_: float = field(init=False, repr=False)
    """Of the second."""
    middle_K_: Array = field(init=False, repr=False)
    notes_: list[str] = field(init=False, repr=False)

    def fit(
        self,
        mix_BK: ArrayLike,
        scale_B2: ArrayLike,
        loss_BM: ArrayLike,
        run_B: ArrayLike | None = None,
        own_M: ArrayLike | None = None,
        unique_BK: ArrayLike | None = None,
    ) -> Self:
        """Fit both; see `base.Law.fit` and `TiedUnion.fit`."""
        table = canonical_order(as_table(mix_BK, scale_B2, loss_BM, run_B, own_M, unique_BK))
        others = _beyond(table)
        made = (TiedUnion(), TiedUnion(one_factor=True)) if others else (TiedUnion(),)
        self.laws_ = [_fitted(law, table) for law in made]
        self.weight_ = TRIALS / (TRIALS + others) if others else 0.0
        self.middle_K_ = np.unique(table.mix_BK, axis=0).mean(axis=0)
        self.notes_ = list(self.laws_[0].notes_)
        if others:
            shared = f"with weight {self.weight_:.2f} one mixture factor stands for all sizes"
            self.notes_.append(f"{shared}: trials beyond the commonest size: {others}")
        return self

    def predict(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Losses (B, M) in nats per token."""
        mix, scale = self._queries(mix_BK, scale_B2)
        loss_BM = self.laws_[0].predict(mix, scale)
        for one in self.laws_[1:]:
            loss_BM += self.weight_ * (self._level(scale) * one.predict(mix, scale) - loss_BM)
        return loss_BM

    def gradient(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """dL/dr (B, M, K); the level does not depend on the mixture."""
        mix, scale = self._queries(mix_BK, scale_B2)
        slope_BMK = self.laws_[0].gradient(mix, scale)
        for one in self.laws_[1:]:
            slope_BMK += self.weight_ * (self._level(scale)[..., None] * one.gradient(mix, scale) - slope_BMK)
        return slope_BMK

    def sd(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd of log loss (B, M) for a new run: each part's own, and how far they are apart."""
        mix, scale = self._queries(mix_BK, scale_B2)
        sd_BM = self.laws_[0].sd(mix, scale)
        for one in self.laws_[1:]:
            apart_BM = np.log(self._level(scale) * one.predict(mix, scale) / self.laws_[0].predict(mix, scale))
            w = self.weight_
            sd_BM = np.sqrt((1 - w) * sd_BM**2 + w * one.sd(mix, scale) ** 2 + w * (1 - w) * apart_BM**2)
        return sd_BM

    def to_json(self) -> dict[str, Any]:
        """Learned values as plain JSON values."""
        learned = {"weight_": self.weight_, "middle_K_": self.middle_K_.tolist(), "notes_": list(self.notes_)}
        return {"law": self.name, "settings": {}, "laws": [law.to_json() for law in self.laws_], "learned": learned}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The law that `to_json` described."""
        law, learned = cls(), data["learned"]
        law.laws_ = [TiedUnion.from_json(part) for part in data["laws"]]
        law.weight_, law.middle_K_ = float(learned["weight_"]), np.array(learned["middle_K_"])
        law.notes_ = list(learned["notes_"])
        return law

    @property
    def sig_M_(self) -> Array:
        """sd of log loss of a run about the union law (M,)."""
        return self.laws_[0].sig_M_

    def _level(self, scale_B2: Array) -> Array:
        """k (B, M)."""
        middle_BK = np.tile(self.middle_K_, (len(scale_B2), 1))
        two_BM, one_BM = (law.predict(middle_BK, scale_B2) for law in self.laws_)
        return np.asarray(two_BM / one_BM)

    def _queries(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> tuple[Array, Array]:
        mix = as_mixtures(mix_BK, len(self.middle_K_))
        return mix, as_scales(scale_B2, len(mix))


def _beyond(table: Table) -> int:
    """How many runs have another size than most have."""
    sizes = distinct(table.scale_B2[:, 0])
    size_B = np.abs(np.log(table.scale_B2[:, :1] / sizes)).argmin(axis=1)
    runs_S = [len(np.unique(table.run_B[size_B == i])) for i in range(len(sizes))]
    return sum(runs_S) - max(runs_S)


def _fitted(law: TiedUnion, table: Table) -> TiedUnion:
    fitted = table.fit(law)
    assert isinstance(fitted, TiedUnion)
    return fitted
