"""A Gaussian process on what a law leaves over: L = L^(r, N, D) exp(g(r, N, D)).

    k = [Matern52(|phi - phi'| / ell) + w phi.phi'] [w0 + (1 - w0) exp(-dlogN^2 / 2 ellN^2 - dlogD^2 / 2 ellD^2)]
        + nu same_run + noise 1,      phi = log(1 + r/.02) / log(1 + 1/.02), centred

on R = log L - log L^, with zero mean and an amplitude of its own per eval domain (profiled out: it
cancels from the mean). The hyper-parameters are shared by all eval domains: they maximise the
marginal likelihood averaged over them, times a prior (Rasmussen and Williams 2006, eq. 5.8). Then each
eval domain stretches phi by what the law says moves its loss (`process.stretches`): few runs cannot tell
which of many domains matter to an eval domain, the law has been told by all of them.
It removes a parametric law's bias near corners and costs its convexity: find the law's own optimum
first, then polish with the process from there. Letters: R rows of the process, H hyper-parameters.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from raymix.laws import process
from raymix.laws.base import Array, Flags, FromTable, Law, Table, as_queries, fresh, restore, saved
from raymix.laws.hedged import HedgedUnion
from raymix.laws.process import SHARE_SCALE, Mean, Sites, features
from raymix.laws.repetition import at_rows
from raymix.laws.rows import WARMUP, canonical_order, usable_rows, whole_runs

MAX_HYPER_ROWS = 300  # rows that choose the hyper-parameters: 7 numbers need no more
LEARNED = ("hyper_H_", "center_K_", "stretch_MK_", "alpha_RM_")
MAX_ROWS = 1500  # rows the process remembers: a solve is O(rows^3), about .1 s here


@dataclass
class ResidualGP(FromTable):
    """Any law with a Gaussian process on its residuals; `sd` is the law's own."""

    name = "residual_gp"
    convex = False
    repeats = True

    base: Law = field(default_factory=HedgedUnion)
    """The law underneath; a fresh copy of it is fitted."""
    warmup: float = WARMUP
    """Rows before this part of a run's last D are left out."""
    rows_per_run: int = 3
    """At most so many checkpoints of a run, evenly in log D: more only repeat the run's noise."""
    stretched: bool = True
    """Whether each eval domain looks at the domains that move it. A search does without: its trials gather where the
    law has its optimum, and there the law is no judge of where it is wrong (benchmarks/LOG.md)."""

    law_: Law = field(init=False, repr=False)
    sites_: Sites = field(init=False, repr=False)
    hyper_H_: Array = field(init=False, repr=False)
    center_K_: Array = field(init=False, repr=False)
    stretch_MK_: Array = field(init=False, repr=False)
    alpha_RM_: Array = field(init=False, repr=False)
    notes_: list[str] = field(init=False, repr=False)

    def _fit(self, table: Table) -> Self:
        table = canonical_order(table)
        self.law_ = table.fit(fresh(self.base))
        self.notes_ = list(self.law_.notes_)
        used_MR, table = self._rows(table)
        law = at_rows(self.law_, table)
        predicted_RM = law.predict(table.mix_BK, table.scale_B2)
        self.stretch_MK_ = np.ones((predicted_RM.shape[1], table.mix_BK.shape[1]))
        if self.stretched:
            self.stretch_MK_ = process.stretches(_effects(law, table, predicted_RM))
        residual_MR = np.where(used_MR, np.log(table.loss_BM / predicted_RM).T, 0.0)
        phi_RK = features(table.mix_BK)
        self.center_K_ = phi_RK.mean(axis=0)
        self.sites_ = Sites(phi_RK - self.center_K_, np.log(table.scale_B2), table.run_B)
        few = whole_runs(table.run_B, MAX_HYPER_ROWS)
        self.hyper_H_ = process.choose_hyper(self.sites_.take(few), residual_MR[:, few], used_MR[:, few])
        self.alpha_RM_ = process.solve(self.sites_, self.hyper_H_, residual_MR, used_MR, self.stretch_MK_)
        return self

    def predict(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Losses (B, M) in nats per token."""
        mix, scale = as_queries(mix_BK, scale_B2, len(self.center_K_))
        return self.law_.predict(mix, scale) * np.exp(self._mean.value(self._phi(mix), np.log(scale)))

    def gradient(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """dL/dr (B, M, K) = exp(g) (dL^/dr + L^ dg/dr)."""
        mix, scale = as_queries(mix_BK, scale_B2, len(self.center_K_))
        g_BM, slope_BMK = self._mean.value_and_slope(self._phi(mix), np.log(scale))
        slope_BMK *= process.feature_slope(mix)[:, None] * self.law_.predict(mix, scale)[..., None]
        slope_BMK += self.law_.gradient(mix, scale)
        slope_BMK *= np.exp(g_BM)[..., None]
        return slope_BMK

    def sd(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd of log loss (B, M): that of the law without the process, which is a little too wide."""
        return self.law_.sd(mix_BK, scale_B2)

    def sd_between(self, mix_BK: ArrayLike, other_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd (B, M) of log L(mix) - log L(other), as of the law without the process."""
        return self.law_.sd_between(mix_BK, other_BK, scale_B2)

    def to_json(self) -> dict[str, Any]:
        return saved(self, (*LEARNED, "sites_"), base=self.law_.to_json())

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        from raymix.laws import law_from_json  # here, because the registry lists this class

        base = law_from_json(data["base"])
        law = cls(fresh(base), **data["settings"])
        law.law_ = base
        law.sites_ = Sites(**{key: np.array(value) for key, value in data["learned"]["sites_"].items()})
        restore(law, data, LEARNED)
        return law

    def _rows(self, table: Table) -> tuple[Flags, Table]:
        """Which residuals the process sees per eval domain (M, R), and their rows."""
        used_MB = usable_rows(table, self.warmup, self.rows_per_run)
        kept = np.flatnonzero(used_MB.any(axis=0))
        kept = kept[whole_runs(table.run_B[kept], MAX_ROWS)]
        return used_MB[:, kept], table.take(kept)

    def kernel(self, mix_BK: Array, scale_B2: Array, other_RK: Array, other_R2: Array) -> Array:
        """Prior covariance (B, R) of g between mixtures at scales, before stretch and amplitude of an eval domain."""
        mixture_BR = process.mixture_kernel(self._phi(mix_BK), self._phi(other_RK), self.hyper_H_)
        return np.asarray(mixture_BR * process.scale_kernel(np.log(scale_B2), np.log(other_R2), self.hyper_H_))

    def variance(self, mix_BK: Array) -> Array:
        """Prior variance (B,) of g at mixtures: the diagonal of `kernel`, which is the same at all scales."""
        return np.asarray(1 + np.exp(self.hyper_H_[1]) * (self._phi(mix_BK) ** 2).sum(axis=1))

    @property
    def noise_(self) -> float:
        """Variance of a row of a run of its own about g, in the units of `kernel`."""
        return float(np.exp(self.hyper_H_[5:]).sum())

    def _phi(self, mix_BK: Array) -> Array:
        return np.asarray(features(mix_BK) - self.center_K_)

    @property
    def _mean(self) -> Mean:
        return Mean(self.sites_, self.hyper_H_, self.stretch_MK_, self.alpha_RM_)


def _effects(law: Law, table: Table, predicted_BM: Array) -> Array:
    """What a domain does to each log loss (M, K), says the law: root mean square over rows, given SHARE_SCALE more."""
    effect_MK = np.empty((predicted_BM.shape[1], table.mix_BK.shape[1]))
    for k, all_K in enumerate(np.eye(table.mix_BK.shape[1])):
        moved_BK = (1 - SHARE_SCALE) * table.mix_BK + SHARE_SCALE * all_K
        change_BM = np.log(law.predict(moved_BK, table.scale_B2) / predicted_BM)
        effect_MK[:, k] = np.sqrt(np.mean(change_BM**2, axis=0))
    return effect_MK
