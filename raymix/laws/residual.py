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
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg, optimize

from raymix.laws.base import Array, Flags, Ints, Law, Table, as_mixtures, as_scales, as_table
from raymix.laws.bootstrap import fresh
from raymix.laws.exposure import sigmoid
from raymix.laws.fitted import CHUNK, chunks
from raymix.laws.hedged import HedgedUnion
from raymix.laws.repetition import at_rows
from raymix.laws.rows import canonical_order, usable_rows, whole_runs

SHARE_SCALE = 0.02  # phi is linear in shares below, logarithmic above: where published curves bend
NAMES = ("log ell", "log w", "logit w0", "log ellN", "log ellD", "log nu", "log noise")
PRIOR_MEAN_H = np.array([0.0, np.log(0.1), 0.5, 0.0, 0.0, np.log(0.1), np.log(0.05)])
PRIOR_SD_H = np.array([0.7, 1.0, 1.5, 0.7, 0.7, 1.2, 1.5])
WIDEST = 4.0  # prior sds that a hyper-parameter may be from its prior mean
ITERATIONS = 8  # of L-BFGS: the prior mean is near, and more changes predictions by less than the noise
MAX_HYPER_ROWS = 300  # rows that choose the hyper-parameters: 7 numbers need no more
MAX_ROWS = 1500  # rows the process remembers: a solve is O(rows^3), about .1 s here
MIN_VARIANCE = 1e-12  # of R: a perfect fit (one row) has nothing left over
ROOT5 = float(np.sqrt(5.0))


@dataclass(frozen=True)
class Sites:
    """Where residuals were seen: features, log scales and runs of R rows."""

    phi_RK: Array
    log_scale_R2: Array
    run_R: Ints

    def take(self, rows: Ints) -> "Sites":
        """The rows named."""
        return Sites(self.phi_RK[rows], self.log_scale_R2[rows], self.run_R[rows])


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
        phi_RK = _features(table.mix_BK)
        self.center_K_ = phi_RK.mean(axis=0)
        self.sites_ = Sites(phi_RK - self.center_K_, np.log(table.scale_B2), table.run_B)
        few = whole_runs(table.run_B, MAX_HYPER_ROWS)
        self.hyper_H_ = _choose_hyper(self.sites_.take(few), residual_MR[:, few], used_MR[:, few])
        self.alpha_RM_ = _solve(self.sites_, self.hyper_H_, residual_MR, used_MR)
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
        phi_BK, phi_RK = _features(mix_BK) - self.center_K_, _features(other_RK) - self.center_K_
        mixture_BR = _mixture_kernel(phi_BK, phi_RK, self.hyper_H_)
        return np.asarray(mixture_BR * _scale_kernel(np.log(scale_B2), np.log(other_R2), self.hyper_H_))

    @property
    def noise_(self) -> float:
        """Variance of a row of a run of its own about g, in the units of `kernel`."""
        return float(np.exp(self.hyper_H_[5:]).sum())

    def _residual(self, mix_BK: Array, scale_B2: Array) -> Array:
        """g = k alpha (B, M); a new run shares no run noise with those seen."""
        phi_BK = _features(mix_BK) - self.center_K_
        mixture_BR = _mixture_kernel(phi_BK, self.sites_.phi_RK, self.hyper_H_)
        nearness_BR = _scale_kernel(np.log(scale_B2), self.sites_.log_scale_R2, self.hyper_H_)
        return np.asarray((mixture_BR * nearness_BR) @ self.alpha_RM_)

    def _residual_slope(self, mix_BK: Array, scale_B2: Array) -> Array:
        """dg/dr (B, M, K); the Matern part has slope -5/3 (1 + root5 s) exp(-root5 s) (phi - phi') / ell^2."""
        phi_BK, phi_RK = _features(mix_BK) - self.center_K_, self.sites_.phi_RK
        ell, w = np.exp(self.hyper_H_[:2])
        s_BR = _distance(phi_BK, phi_RK) / ell
        nearness_BR = _scale_kernel(np.log(scale_B2), self.sites_.log_scale_R2, self.hyper_H_)
        pull_BR = -5 / 3 * (1 + ROOT5 * s_BR) * np.exp(-ROOT5 * s_BR) / ell**2 * nearness_BR
        slope_BMK = np.empty((len(mix_BK), self.alpha_RM_.shape[1], mix_BK.shape[1]))
        for domain, alpha_R in enumerate(self.alpha_RM_.T):
            pulled_BR = pull_BR * alpha_R
            matern_BK = pulled_BR.sum(axis=1, keepdims=True) * phi_BK - pulled_BR @ phi_RK
            slope_BMK[:, domain] = matern_BK + w * (nearness_BR * alpha_R) @ phi_RK
        return np.asarray(slope_BMK / ((mix_BK + SHARE_SCALE) * np.log1p(1 / SHARE_SCALE))[:, None, :])


def _features(mix_BK: Array) -> Array:
    """phi in [0, 1]."""
    return np.asarray(np.log1p(mix_BK / SHARE_SCALE) / np.log1p(1 / SHARE_SCALE))


def _distance(one_BK: Array, other_RK: Array) -> Array:
    square_BR = (one_BK**2).sum(1)[:, None] + (other_RK**2).sum(1) - 2 * one_BK @ other_RK.T
    return np.asarray(np.sqrt(np.maximum(square_BR, 0.0)))


def _mixture_kernel(one_BK: Array, other_RK: Array, hyper_H: Array) -> Array:
    ell, w = np.exp(hyper_H[:2])
    s_BR = _distance(one_BK, other_RK) / ell
    matern_BR = (1 + ROOT5 * s_BR + 5 / 3 * s_BR**2) * np.exp(-ROOT5 * s_BR)
    return np.asarray(matern_BR + w * one_BK @ other_RK.T)


def _scale_kernel(one_B2: Array, other_R2: Array, hyper_H: Array) -> Array:
    w0 = sigmoid(hyper_H[2])
    return np.asarray(w0 + (1 - w0) * np.exp(-0.5 * _scale_gaps(one_B2, other_R2, hyper_H).sum(axis=0)))


def _scale_gaps(one_B2: Array, other_R2: Array, hyper_H: Array) -> Array:
    """(dlogN / ellN)^2 and (dlogD / ellD)^2 (2, B, R)."""
    return np.stack([((one_B2[:, None, i] - other_R2[None, :, i]) * np.exp(-hyper_H[3 + i])) ** 2 for i in range(2)])


def _covariance(sites: Sites, hyper_H: Array) -> Array:
    """k between the sites (R, R), run noise and row noise included."""
    mixture_RR = _mixture_kernel(sites.phi_RK, sites.phi_RK, hyper_H)
    nearness_RR = _scale_kernel(sites.log_scale_R2, sites.log_scale_R2, hyper_H)
    nu, noise = np.exp(hyper_H[5:])
    same_RR = sites.run_R[:, None] == sites.run_R
    return np.asarray(mixture_RR * nearness_RR + nu * same_RR + noise * np.eye(len(same_RR)))


def _covariance_slopes(sites: Sites, hyper_H: Array) -> list[Array]:
    """dk / d hyper, each (R, R)."""
    (ell, w), w0, (nu, noise) = np.exp(hyper_H[:2]), sigmoid(hyper_H[2]), np.exp(hyper_H[5:])
    s_RR = _distance(sites.phi_RK, sites.phi_RK) / ell
    mixture_RR = _mixture_kernel(sites.phi_RK, sites.phi_RK, hyper_H)
    gap_2RR = _scale_gaps(sites.log_scale_R2, sites.log_scale_R2, hyper_H)
    near_RR = np.exp(-0.5 * gap_2RR.sum(axis=0))
    scale_RR = w0 + (1 - w0) * near_RR
    by_ell_RR = 5 / 3 * s_RR**2 * (1 + ROOT5 * s_RR) * np.exp(-ROOT5 * s_RR) * scale_RR
    by_w_RR = w * (sites.phi_RK @ sites.phi_RK.T) * scale_RR
    by_w0_RR = w0 * (1 - w0) * (1 - near_RR) * mixture_RR
    by_gap_2RR = (1 - w0) * near_RR * mixture_RR * gap_2RR
    same_RR = (sites.run_R[:, None] == sites.run_R).astype(np.float64)
    return [by_ell_RR, by_w_RR, by_w0_RR, *by_gap_2RR, nu * same_RR, noise * np.eye(len(same_RR))]


def _choose_hyper(sites: Sites, residual_MR: Array, used_MR: Flags) -> Array:
    """MAP of the shared hyper-parameters, from the prior mean."""
    cost = partial(_hyper_cost, sites=sites, residual_MR=residual_MR, used_MR=used_MR)
    options = {"maxiter": ITERATIONS}
    reach_H = WIDEST * PRIOR_SD_H  # runs that repeat each other exactly take the noise to 0: k would be singular
    bounds = list(zip(PRIOR_MEAN_H - reach_H, PRIOR_MEAN_H + reach_H, strict=True))
    found = optimize.minimize(cost, PRIOR_MEAN_H, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(found.x, dtype=np.float64)


def _hyper_cost(hyper_H: Array, sites: Sites, residual_MR: Array, used_MR: Flags) -> tuple[float, Array]:
    """Mean over eval domains of R/2 log(amplitude^2) + 1/2 log det k, plus the prior; with its gradient.

    amplitude^2 = R' k^-1 R / rows; gradient 1/2 tr[(k^-1 - mean_m alpha_m alpha_m' / amplitude^2) dk].
    """
    whole_RR, slopes = _covariance(sites, hyper_H), _covariance_slopes(sites, hyper_H)
    off_H = (hyper_H - PRIOR_MEAN_H) / PRIOR_SD_H
    cost, slope_H = 0.5 * float(off_H @ off_H), off_H / PRIOR_SD_H
    for rows, domains in _patterns(used_MR):
        at = np.ix_(rows, rows)
        chol = linalg.cho_factor(whole_RR[at], lower=True)
        residual_Rm = residual_MR[np.ix_(domains, rows)].T
        alpha_Rm = linalg.cho_solve(chol, residual_Rm)
        variance_m = np.maximum((residual_Rm * alpha_Rm).sum(axis=0) / len(rows), MIN_VARIANCE)
        part = len(domains) / len(used_MR)
        log_det = 2 * float(np.log(np.diag(chol[0])).sum())
        cost += part * 0.5 * (len(rows) * float(np.log(variance_m).mean()) + log_det)
        inverse_RR = linalg.cho_solve(chol, np.eye(len(rows)))
        lever_RR = inverse_RR - (alpha_Rm / variance_m) @ alpha_Rm.T / len(domains)
        slope_H = slope_H + part * 0.5 * np.array([np.sum(lever_RR * slope[at]) for slope in slopes])
    return cost, slope_H


def _solve(sites: Sites, hyper_H: Array, residual_MR: Array, used_MR: Flags) -> Array:
    """alpha = k^-1 R per eval domain (R, M), 0 on rows it does not use."""
    whole_RR = _covariance(sites, hyper_H)
    alpha_RM = np.zeros(residual_MR.T.shape)
    for rows, domains in _patterns(used_MR):
        chol = linalg.cho_factor(whole_RR[np.ix_(rows, rows)], lower=True)
        alpha_RM[np.ix_(rows, domains)] = linalg.cho_solve(chol, residual_MR[np.ix_(domains, rows)].T)
    return alpha_RM


def _patterns(used_MR: Flags) -> list[tuple[Ints, Ints]]:
    """(rows, eval domains) for every distinct set of used rows; empty sets are left out."""
    pattern_CR, which_M = np.unique(used_MR, axis=0, return_inverse=True)
    groups = [(np.flatnonzero(on_R), np.flatnonzero(which_M.ravel() == c)) for c, on_R in enumerate(pattern_CR)]
    return [(rows, domains) for rows, domains in groups if len(rows)]
