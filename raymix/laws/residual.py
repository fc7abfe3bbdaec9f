"""A Gaussian process on what a law leaves over: L = L^(r, N, D) exp(g(r, N, D)).

    k = [Matern52(|phi - phi'| / ell) + w phi.phi'] [w0 + (1 - w0) exp(-dlogN^2 / 2 ellN^2 - dlogD^2 / 2 ellD^2)]
        + nu same_run + noise 1,      phi = log(1 + r/.02) / log(1 + 1/.02), centred

on R = log L - log L^, with zero mean and an amplitude of its own per eval domain (profiled out: it
cancels from the mean). The hyper-parameters are shared by all eval domains: they maximise the
marginal likelihood averaged over them, times a prior (Rasmussen and Williams 2006, eq. 5.8).
It removes a parametric law's bias near corners and costs its convexity: find the law's own optimum
first, then polish with the process from there. Letters: R rows of the process, H hyper-parameters.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from raymix.laws.base import Array, Flags, Law, Table, as_mixtures, as_scales, as_table
from raymix.laws.bootstrap import fresh
from raymix.laws.fitted import CHUNK, chunks
from raymix.laws.hedged import HedgedUnion
from raymix.laws.process import (
    ROOT5,
    SHARE_SCALE,
    Sites,
    choose_hyper,
    distance,
    features,
    mixture_kernel,
    scale_kernel,
    solve,
)
from raymix.laws.repetition import at_rows
from raymix.laws.rows import canonical_order, usable_rows, whole_runs

MAX_HYPER_ROWS = 300  # rows that choose the hyper-parameters: 7 numbers need no more
MAX_ROWS = 1500  # rows the process remembers: a solve is O(rows^3), about .1 s here


@dataclass
class ResidualGP:
    """Any law with a Gaussian process on its residuals; `sd` is the law's own."""

    name: ClassVar[str] = "residual_gp"
    convex: ClassVar[bool] = False
    repeats: ClassVar[bool] = True

    base: Law = field(default_factory=HedgedUnion)
    """The law underneath; a fresh copy of it is fitted."""
    warmup: float = 0.1
    """Rows before this part of a run's last D are left out."""
    rows_per_run: int = 3
    """At most so many checkpoints of a run, evenly in log D: more only repeat the run's noise."""

    law_: Law = field(init=False, repr=False)
    sites_: Sites = field(init=False, repr=False)
    hyper_H_: Array = field(init=False, repr=False)
    center_K_: Array = field(init=False, repr=False)
    alpha_RM_: Array = field(init=False, repr=False)
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
        """Fit the law, then the process on its residuals; see `base.Law.fit` and `TiedUnion.fit`."""
        table = canonical_order(as_table(mix_BK, scale_B2, loss_BM, run_B, own_M, unique_BK))
        self.law_ = table.fit(fresh(self.base))
        self.notes_ = list(self.law_.notes_)
        used_MR, table = self._rows(table)
        predicted_RM = at_rows(self.law_, table).predict(table.mix_BK, table.scale_B2)
        residual_MR = np.where(used_MR, np.log(table.loss_BM / predicted_RM).T, 0.0)
        phi_RK = features(table.mix_BK)
        self.center_K_ = phi_RK.mean(axis=0)
        self.sites_ = Sites(phi_RK - self.center_K_, np.log(table.scale_B2), table.run_B)
        few = whole_runs(table.run_B, MAX_HYPER_ROWS)
        self.hyper_H_ = choose_hyper(self.sites_.take(few), residual_MR[:, few], used_MR[:, few])
        self.alpha_RM_ = solve(self.sites_, self.hyper_H_, residual_MR, used_MR)
        return self

    def predict(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Losses (B, M) in nats per token."""
        mix, scale = self._queries(mix_BK, scale_B2)
        loss_BM = self.law_.predict(mix, scale)
        for rows in chunks(len(mix), CHUNK // 4):
            loss_BM[rows] *= np.exp(self._residual(mix[rows], scale[rows]))
        return loss_BM

    def gradient(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """dL/dr (B, M, K) = exp(g) (dL^/dr + L^ dg/dr)."""
        mix, scale = self._queries(mix_BK, scale_B2)
        loss_BM, slope_BMK = self.law_.predict(mix, scale), self.law_.gradient(mix, scale)
        for rows in chunks(len(mix), CHUNK // 4):
            g_BM = self._residual(mix[rows], scale[rows])
            g_slope_BMK = self._residual_slope(mix[rows], scale[rows])
            slope_BMK[rows] += loss_BM[rows][..., None] * g_slope_BMK
            slope_BMK[rows] *= np.exp(g_BM)[..., None]
        return slope_BMK

    def sd(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd of log loss (B, M): that of the law without the process, which is a little too wide."""
        return self.law_.sd(mix_BK, scale_B2)

    def to_json(self) -> dict[str, Any]:
        """Settings and learned values as plain JSON values."""
        sites = {key: getattr(self.sites_, key).tolist() for key in ("phi_RK", "log_scale_R2", "run_R")}
        learned = {key: getattr(self, key).tolist() for key in ("hyper_H_", "center_K_", "alpha_RM_")}
        return {
            "law": self.name,
            "settings": {"warmup": self.warmup, "rows_per_run": self.rows_per_run},
            "base": self.law_.to_json(),
            "learned": {**learned, "sites_": sites, "notes_": list(self.notes_)},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The law that `to_json` described."""
        from raymix.laws import law_from_json  # here, because the registry lists this class

        base, learned = law_from_json(data["base"]), data["learned"]
        law = cls(fresh(base), **data["settings"])
        law.law_ = base
        law.sites_ = Sites(**{key: np.array(value) for key, value in learned["sites_"].items()})
        for key in ("hyper_H_", "center_K_", "alpha_RM_"):
            setattr(law, key, np.array(learned[key]))
        law.notes_ = list(learned["notes_"])
        return law

    def _rows(self, table: Table) -> tuple[Flags, Table]:
        """Which residuals the process sees per eval domain (M, R), and their rows."""
        used_MB = usable_rows(table, self.warmup, self.rows_per_run)
        kept = np.flatnonzero(used_MB.any(axis=0))
        kept = kept[whole_runs(table.run_B[kept], MAX_ROWS)]
        return used_MB[:, kept], table.take(kept)

    def _queries(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> tuple[Array, Array]:
        mix = as_mixtures(mix_BK, len(self.center_K_))
        return mix, as_scales(scale_B2, len(mix))

    def kernel(self, mix_BK: Array, scale_B2: Array, other_RK: Array, other_R2: Array) -> Array:
        """Prior covariance (B, R) of g between mixtures at scales, before the amplitude of an eval domain."""
        phi_BK, phi_RK = features(mix_BK) - self.center_K_, features(other_RK) - self.center_K_
        mixture_BR = mixture_kernel(phi_BK, phi_RK, self.hyper_H_)
        return np.asarray(mixture_BR * scale_kernel(np.log(scale_B2), np.log(other_R2), self.hyper_H_))

    def variance(self, mix_BK: Array) -> Array:
        """Prior variance (B,) of g at mixtures: the diagonal of `kernel`, which is the same at all scales."""
        phi_BK = features(mix_BK) - self.center_K_
        return np.asarray(1 + np.exp(self.hyper_H_[1]) * (phi_BK**2).sum(axis=1))

    @property
    def noise_(self) -> float:
        """Variance of a row of a run of its own about g, in the units of `kernel`."""
        return float(np.exp(self.hyper_H_[5:]).sum())

    def _residual(self, mix_BK: Array, scale_B2: Array) -> Array:
        """g = k alpha (B, M); a new run shares no run noise with those seen."""
        phi_BK = features(mix_BK) - self.center_K_
        mixture_BR = mixture_kernel(phi_BK, self.sites_.phi_RK, self.hyper_H_)
        nearness_BR = scale_kernel(np.log(scale_B2), self.sites_.log_scale_R2, self.hyper_H_)
        return np.asarray((mixture_BR * nearness_BR) @ self.alpha_RM_)

    def _residual_slope(self, mix_BK: Array, scale_B2: Array) -> Array:
        """dg/dr (B, M, K); the Matern part has slope -5/3 (1 + root5 s) exp(-root5 s) (phi - phi') / ell^2."""
        phi_BK, phi_RK = features(mix_BK) - self.center_K_, self.sites_.phi_RK
        ell, w = np.exp(self.hyper_H_[:2])
        s_BR = distance(phi_BK, phi_RK) / ell
        nearness_BR = scale_kernel(np.log(scale_B2), self.sites_.log_scale_R2, self.hyper_H_)
        pull_BR = -5 / 3 * (1 + ROOT5 * s_BR) * np.exp(-ROOT5 * s_BR) / ell**2 * nearness_BR
        slope_BMK = np.empty((len(mix_BK), self.alpha_RM_.shape[1], mix_BK.shape[1]))
        for row, (phi_K, pull_R, near_R) in enumerate(zip(phi_BK, pull_BR, nearness_BR, strict=True)):
            towards_RM = (w * near_R - pull_R)[:, None] * self.alpha_RM_
            slope_BMK[row] = np.outer(pull_R @ self.alpha_RM_, phi_K) + towards_RM.T @ phi_RK
        return np.asarray(slope_BMK / ((mix_BK + SHARE_SCALE) * np.log1p(1 / SHARE_SCALE))[:, None, :])
