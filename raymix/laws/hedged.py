"""The default law: the union law, hedged between shapes that few runs cannot tell apart but that differ at the target.

    L = (1 - w) L' + w k^(1 - s) L_one,      L' = (1 - v) L_shares + v L_tokens

Where tokens vary: the offset e of the mixture factor is of shares, or of tokens that do not grow with the run, as in
AutoScale (`union_forms`). A law with the first misses at the target what a law with the second knows, and the other
way round; residuals tell which: v / (1 - v) = (sig_shares / sig_tokens)^runs, in the geometric mean over eval domains,
whose residuals are not independent.

Where sizes vary: the mixture factor of what size brings has a weight per training domain, mostly prior while few trials
are beyond the commonest size, and counts most at a larger target. One factor for all sizes has nothing to guess there;
its level is worse, so k = L' / L_one at the mean mixture of the runs. The two differ in their number of parameters, so
their evidence tells (`FittedLaw.log_evidence`, in the mean over eval domains): w / (1 - w) is its ratio times 2 to the
number of trials beyond the commonest size. The optimum moves with scale in one world and stays in another; few runs
tell which in part only.

One factor also holds for what neither size nor tokens remove, which two have no term for. Where losses are exponential
in the shares, or as in BiMix, two misfit at the sizes seen, and their level at the next is 2 to 9% off; residuals show
it. Then one factor keeps its own: s / (1 - s) = (sig_two / 1.1 sig_one)^runs (1 - MOST) / MOST, and w is at least s.
Published tables have ratios of .8 to 1.06, and s = 0.

Each part is convex in the mixture, and so is the whole. At one scale it is the union law itself. What was measured is
in benchmarks/LOG.md ("Few trials beyond one size", "An offset that does not grow with the tokens", "By evidence").
"""

from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from raymix.laws.base import Array, FromTable, Table, as_queries, restore, saved
from raymix.laws.exposure import sigmoid
from raymix.laws.intervals import of_blend, outside
from raymix.laws.rows import canonical_order, distinct
from raymix.laws.union import TiedUnion

TRIALS = 2  # with so many beyond the commonest size one factor is as likely as two beforehand
MOST = 0.99  # that it may count by evidence alone, and that its level is the others' beforehand
MARGIN = 1.1  # how much closer it must follow the runs for its own level: many runs alone must not decide
LEARNED = ("weight_F_", "middle_K_", "one_factor_", "own_level_")
NEGLIGIBLE = 0.05  # a weight below which a shape is left out: a fit of it costs more than it tells


@dataclass
class HedgedUnion(FromTable):
    """Tied union laws of up to three shapes; learned values end in `_`."""

    name = "hedged_union"
    convex = True
    repeats = True

    offset: Literal["auto", "shares", "tokens"] = "auto"
    """What the offset is of; auto: as the runs tell."""

    laws_: list[TiedUnion] = field(init=False, repr=False)
    """With the offsets that the runs allow; where sizes vary, at last the one with one factor."""
    weight_F_: Array = field(init=False, repr=False)
    middle_K_: Array = field(init=False, repr=False)
    one_factor_: bool = field(init=False, repr=False)
    """Whether the last law is the one with one factor, read at the level of the others."""
    own_level_: float = field(init=False, repr=False)
    """s: how much its level is its own."""
    notes_: list[str] = field(init=False, repr=False)

    def _fit(self, table: Table) -> Self:
        table = canonical_order(table)
        self.laws_, weights = _fit_offsets(table, self.offset)
        self.notes_ = list(self.laws_[0].notes_)
        one, w, s = _one_factor(table, self.laws_[int(np.argmax(weights))])
        self.one_factor_, self.own_level_ = one is not None and s <= 1 - NEGLIGIBLE, s
        if one is not None and self.one_factor_:
            self.laws_.append(one)
            weights = [*((1 - w) * np.array(weights)).tolist(), w]
        elif one is not None:
            self.laws_, weights = [one], [1.0]
        if one is not None:
            self.notes_.append(f"sizes vary: one mixture factor for all of them counts {w:.2f}")
        self.weight_F_ = np.array(weights)
        self.middle_K_ = np.unique(table.mix_BK, axis=0).mean(axis=0)
        return self

    def predict(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Losses (B, M) in nats per token."""
        mix, scale = as_queries(mix_BK, scale_B2, len(self.middle_K_))
        return np.tensordot(self.weight_F_, self._levelled(mix, scale), axes=1)

    def gradient(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """dL/dr (B, M, K); the level does not depend on the mixture."""
        mix, scale = as_queries(mix_BK, scale_B2, len(self.middle_K_))
        slope_FBMK = np.stack([law.slopes(mix, scale) for law in self.laws_])
        if self.one_factor_:
            slope_FBMK[-1] *= self._level(scale)[..., None]
        return np.tensordot(self.weight_F_, slope_FBMK, axes=1)

    def sd(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd of log loss (B, M) for a new run: sqrt of sum_f w_f (sd_f^2 + (log L_f - log L)^2).

        The second term counts outside the scales seen; within them each shape's sd holds its own misfit already.
        """
        mix, scale = as_queries(mix_BK, scale_B2, len(self.middle_K_))
        loss_FBM = self._levelled(mix, scale)
        apart_FBM = np.log(loss_FBM / np.tensordot(self.weight_F_, loss_FBM, axes=1))
        apart_FBM *= outside(scale, self.laws_[0].seen_22_)[:, None]
        sd_FBM = np.stack([law.sd(mix, scale) for law in self.laws_])
        return of_blend(self.weight_F_, sd_FBM, apart_FBM)

    def sd_between(self, mix_BK: ArrayLike, other_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd (B, M) of log L(mix) - log L(other): each shape's own, and how far the shapes are apart on it."""
        mix, scale = as_queries(mix_BK, scale_B2, len(self.middle_K_))
        other, _ = as_queries(other_BK, scale, len(self.middle_K_))
        loss_2FBM = np.stack([self._levelled(each, scale) for each in (mix, other)])
        blend_2BM = np.tensordot(loss_2FBM, self.weight_F_, axes=(1, 0))
        sd_FBM = np.stack([law.sd_between(mix, other, scale) for law in self.laws_])
        apart_FBM = np.log(loss_2FBM[0] / loss_2FBM[1]) - np.log(blend_2BM[0] / blend_2BM[1])
        return of_blend(self.weight_F_, sd_FBM, apart_FBM)

    def to_json(self) -> dict[str, Any]:
        return saved(self, LEARNED, laws=[law.to_json() for law in self.laws_])

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        law = cls(**data["settings"])
        law.laws_ = [TiedUnion.from_json(part) for part in data["laws"]]
        restore(law, data, LEARNED)
        return law

    def resampled(self, rng: np.random.Generator) -> "HedgedUnion":
        """An unfitted law with one of the offsets, each as often as it counts: for fits to resampled runs."""
        weight_f = self.weight_F_[: len(self._by_offset)] / self.weight_F_[: len(self._by_offset)].sum()
        chosen = self._by_offset[int(rng.choice(len(weight_f), p=weight_f))]
        return HedgedUnion("tokens" if chosen.fixed_offset else "shares")

    @property
    def sig_M_(self) -> Array:
        """sd of log loss of a run about the law (M,): that of its likeliest shape."""
        return np.asarray(np.min([law.sig_M_ for law in self._by_offset], axis=0))

    @property
    def _by_offset(self) -> list[TiedUnion]:
        return self.laws_[:-1] if self.one_factor_ else self.laws_

    def _levelled(self, mix: Array, scale: Array) -> Array:
        """Losses of all shapes (F, B, M), that with one factor at its level among the others."""
        loss_FBM = np.stack([law.losses(mix, scale) for law in self.laws_])
        if self.one_factor_:
            loss_FBM[-1] *= self._level(scale)
        return loss_FBM

    def _level(self, scale: Array) -> Array:
        """k^(1 - s) (B, M), or (1, M) where nothing but the mixture differs between rows."""
        alike = all(law.unique_ is None or law.unique_.ndim == 1 for law in self.laws_)
        if alike and (scale == scale[:1]).all():
            scale = scale[:1]
        middle_BK = np.tile(self.middle_K_, (len(scale), 1))
        weight_f = self.weight_F_[:-1] / self.weight_F_[:-1].sum()
        others_BM = sum(w * law.losses(middle_BK, scale) for w, law in zip(weight_f, self._by_offset, strict=True))
        return np.asarray((others_BM / self.laws_[-1].losses(middle_BK, scale)) ** (1 - self.own_level_))


def _fit_offsets(table: Table, offset: str) -> tuple[list[TiedUnion], list[float]]:
    """The union law with either offset, and their weights; one alone where tokens do not vary or residuals tell."""
    if offset != "auto":
        return [table.fit(TiedUnion(fixed_offset=offset == "tokens"))], [1.0]
    shares = table.fit(TiedUnion())
    if len(distinct(table.scale_B2[:, 1])) == 1:
        return [shares], [1.0]
    tokens = table.fit(TiedUnion(fixed_offset=True))
    runs = len(np.unique(table.run_B))
    v = float(sigmoid(runs * np.log(shares.sig_M_ / tokens.sig_M_).mean()))
    if v < NEGLIGIBLE:
        return [shares], [1.0]
    return ([tokens], [1.0]) if v > 1 - NEGLIGIBLE else ([shares, tokens], [1 - v, v])


def _one_factor(table: Table, two: TiedUnion) -> tuple[TiedUnion | None, float, float]:
    """The law with one factor and its w and s where it counts, given the likelier law with two."""
    others = _beyond(table)
    if not others:
        return None, 0.0, 0.0
    one = table.fit(TiedUnion(one_factor=True, fixed_offset=two.fixed_offset))
    closer = len(np.unique(table.run_B)) * np.log(two.sig_M_ / (MARGIN * one.sig_M_)).mean()
    s = float(sigmoid(np.asarray(np.log((1 - MOST) / MOST) + closer)))
    s = s if s >= NEGLIGIBLE else 0.0
    if TRIALS / (TRIALS + others) < NEGLIGIBLE:  # two are well known: residuals alone speak against them
        return (one, s, s) if s else (None, 0.0, 0.0)
    evidence = (one.log_evidence(table) - two.log_evidence(table)).mean()
    w = max(min(float(sigmoid(np.asarray(np.log(TRIALS / others) + evidence))), MOST), s)
    return (one, w, s) if w >= NEGLIGIBLE else (None, 0.0, 0.0)


def _beyond(table: Table) -> int:
    """How many runs have another size than most have."""
    sizes = distinct(table.scale_B2[:, 0])
    size_B = np.abs(np.log(table.scale_B2[:, :1] / sizes)).argmin(axis=1)
    runs_S = [len(np.unique(table.run_B[size_B == i])) for i in range(len(sizes))]
    return sum(runs_S) - max(runs_S)
