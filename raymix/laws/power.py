"""The per-domain power law, "autoscale": every eval domain learns from its own training domain alone.

    L_i = E_i + B_i (x_i + a_i)^-gamma_i,   x_i = r_own(i) D / D0

the general form of AutoScale (arXiv 2407.20177), sum_i beta_i (N0_i + N_i)^-gamma_i + l_i, one term per eval domain.
Where an eval domain has no own training domain, x = D / D0: all tokens count alike. Convex in the mixture; for
interior optima `autoscale.water_fill` gives the same optimum in closed form. What it gives up: transfer between
domains (two other mixtures with one own share are one to it), model size, repetition. It is here as the published
baseline; where domains help each other (measured: nearly always) the union law predicts better.
Where we differ: an amplitude B per domain, and a fit to any runs by maximum a posteriori on log loss instead of
2K+1 perturbations; x counts tokens drawn where the paper counts unique tokens, trained for 3 epochs.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from raymix.laws.base import Array, Flags, Ints, Table, as_mixtures, as_scales, as_table
from raymix.laws.exposure import sigmoid
from raymix.laws.fit import Prior, Problem, Solution, fit_map
from raymix.laws.rows import SAME_SCALE, canonical_order, distinct, usable_rows

FLOOR_CAP = 0.98  # E stays below this share of the least loss, as in the union law
# Priors as (mean, sd); weak: a DDO run of 2K+1 runs is enough to leave them.
FLOOR = (0.0, 1.5)  # logit of E / (.98 min L)
LEVEL = (np.log(0.3), 1.0)  # log B, added to log median L
POWER = (np.log(0.35), 0.7)  # log gamma; .35 is the data exponent of Chinchilla refits (arXiv 2203.15556)
OFFSET = (np.log(0.1), 2.0)  # log a, in D0; published DDO fits of 7 domains have a of .35-.95
SD_SEEN, SD_BEYOND = 1.1, 1.5  # widening at seen scales / outside them, as in the union law


@dataclass
class PerDomainPower:
    """One power law in own tokens per eval domain; settings below, learned values end in `_`."""

    name: ClassVar[str] = "autoscale"
    convex: ClassVar[bool] = True

    warmup: float = 0.1
    """Rows before this part of a run's last D are left out: no power law holds during warm-up."""
    rows_per_run: int = 8
    """At most so many checkpoints of a run, evenly in log D."""

    params_MP_: Array = field(init=False, repr=False)
    covariance_MPP_: Array = field(init=False, repr=False)
    sig_M_: Array = field(init=False, repr=False)
    cap_M_: Array = field(init=False, repr=False)
    own_M_: Ints = field(init=False, repr=False)
    origin_: float = field(init=False, repr=False)
    seen_2_: Array = field(init=False, repr=False)
    n_domains_: int = field(init=False, repr=False)
    notes_: list[str] = field(init=False, repr=False)

    def fit(
        self,
        mix_BK: ArrayLike,
        scale_B2: ArrayLike,
        loss_BM: ArrayLike,
        run_B: ArrayLike | None = None,
        own_M: ArrayLike | None = None,
    ) -> Self:
        """Learn from losses (nats; NaN where not measured); see `base.Law.fit`. n_params is ignored."""
        table = canonical_order(as_table(mix_BK, scale_B2, loss_BM, run_B, own_M))
        used_MB = usable_rows(table, self.warmup, self.rows_per_run)
        kept = np.flatnonzero(used_MB.any(axis=0))
        table, used_MB = table.take(kept), used_MB[:, kept]
        self._look_at(table)
        loss_MB = np.where(used_MB, table.loss_BM.T, np.nan)
        self.cap_M_ = FLOOR_CAP * np.nanmin(loss_MB, axis=1)
        x_MB = self._own_tokens(table.mix_BK, table.scale_B2)
        problem = Problem(
            lambda params, active, jac: _evaluate(params, x_MB[active], self.cap_M_[active], jac),
            np.log(np.where(used_MB, table.loss_BM.T, 1.0)),
            used_MB.astype(np.float64),
        )
        solution = fit_map(problem, _prior(np.log(np.nanmedian(loss_MB, axis=1))))
        self._learn(solution, problem, used_MB, table.run_B)
        return self

    def predict(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Losses (B, M) in nats per token."""
        x_MB, _ = self._queries(mix_BK, scale_B2)
        return np.exp(_evaluate(self.params_MP_, x_MB, self.cap_M_, False)[0]).T

    def gradient(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """dL/dr (B, M, K): -gamma B (x + a)^-(gamma+1) D / D0 for the own domain, 0 for all others."""
        x_MB, d_B = self._queries(mix_BK, scale_B2)
        _, B, power, offset = self.params_MP_.T[..., None]
        log_u_MB = np.log(x_MB + np.exp(offset))
        slope_MB = -np.exp(B + power - (np.exp(power) + 1) * log_u_MB) * d_B
        slope_BMK = np.zeros((*slope_MB.T.shape, self.n_domains_))
        known = np.flatnonzero(self.own_M_ >= 0)
        slope_BMK[:, known, self.own_M_[known]] = slope_MB[known].T
        return slope_BMK

    def sd(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd of log loss (B, M): sqrt(J V J' + sig^2), x 1.1 at seen token counts, x 1.5 outside them."""
        x_MB, d_B = self._queries(mix_BK, scale_B2)
        _, jac_MPB = _evaluate(self.params_MP_, x_MB, self.cap_M_, True)
        assert jac_MPB is not None
        variance_MB = np.sum(jac_MPB * np.matmul(self.covariance_MPP_, jac_MPB), axis=1)
        n_tokens_B = d_B * self.origin_
        beyond_B = (n_tokens_B < self.seen_2_[0]) | (n_tokens_B > self.seen_2_[1])
        sd_MB = np.sqrt(variance_MB + self.sig_M_[:, None] ** 2) * np.where(beyond_B, SD_BEYOND, SD_SEEN)
        return np.asarray(sd_MB.T)

    def to_json(self) -> dict[str, Any]:
        """Settings and learned values as plain JSON values."""
        learned = {key: getattr(self, key).tolist() for key in _ARRAYS}
        scalars = {"origin_": self.origin_, "n_domains_": self.n_domains_, "notes_": list(self.notes_)}
        settings = {"warmup": self.warmup, "rows_per_run": self.rows_per_run}
        return {"law": self.name, "settings": settings, "learned": {**learned, **scalars}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The law that `to_json` described."""
        law, learned = cls(**data["settings"]), data["learned"]
        for key in _ARRAYS:
            setattr(law, key, np.array(learned[key]))
        law.origin_, law.n_domains_ = float(learned["origin_"]), int(learned["n_domains_"])
        law.notes_ = list(learned["notes_"])
        return law

    def _look_at(self, table: Table) -> None:
        """The unit of tokens, what has been seen, and notes on what this law cannot tell."""
        n_tokens_B, own_M = table.scale_B2[:, 1], table.own_M
        self.own_M_, self.n_domains_ = own_M.copy(), table.mix_BK.shape[1]
        self.origin_ = float(np.exp(np.log(n_tokens_B).mean()))
        self.seen_2_ = np.array([n_tokens_B.min() * (1 - SAME_SCALE), n_tokens_B.max() * (1 + SAME_SCALE)])
        self.notes_ = []
        if len(distinct(table.scale_B2[:, 0])) > 1:
            self.notes_.append("several model sizes: this law has no n_params and averages over them; fit one size")
        for domain in np.flatnonzero(own_M < 0):
            self.notes_.append(f"eval domain {domain}: no own training domain, so the shares have no effect")
        x_MB = self._own_tokens(table.mix_BK, table.scale_B2)
        for domain in np.flatnonzero((x_MB == x_MB[:, :1]).all(axis=1)):
            self.notes_.append(f"eval domain {domain}: one quantity of tokens, so its effect is prior only")

    def _learn(self, solution: Solution, problem: Problem, used_MB: Flags, run_B: Ints) -> None:
        """Keep the optimum; covariance = ((H - P)/(m f) + P)^-1, m rows of a run as one, f the misfit beyond sig.

        The solver caps sig so that a misfit does not silence the data; a law without transfer often misfits,
        and its interval must say so: sig here is the residual's, if that is larger.
        """
        log_MB, _ = problem.evaluate(solution.params_MP, np.arange(len(used_MB)), False)
        rows_M = used_MB.sum(axis=1)
        freedom_M = np.maximum(rows_M - solution.params_MP.shape[1] / 2, 0.3 * rows_M)  # as in the shared solver
        residual_M = np.sqrt((used_MB * (log_MB - problem.target_MB) ** 2).sum(axis=1) / freedom_M)
        self.params_MP_, self.sig_M_ = solution.params_MP, np.maximum(solution.sig_M, residual_M)
        rows_per_run_M = np.array([used_B.sum() / len(np.unique(run_B[used_B])) for used_B in used_MB])
        less_M = rows_per_run_M * (self.sig_M_ / solution.sig_M) ** 2
        prior_MPP = np.stack([np.diag(sd_P**-2) for sd_P in solution.prior.sd_MP])
        data_MPP = (solution.hessian_MPP - prior_MPP) / less_M[:, None, None]
        self.covariance_MPP_ = np.linalg.inv(data_MPP + prior_MPP)
        for domain in np.flatnonzero(~solution.converged_M):
            self.notes_.append(f"eval domain {domain}: the fit did not converge")

    def _own_tokens(self, mix_BK: Array, scale_B2: Array) -> Array:
        """x (M, B): own tokens in D0, all tokens where an eval domain has no own training domain."""
        share_MB = np.where(self.own_M_[:, None] >= 0, mix_BK.T[self.own_M_], 1.0)
        return np.asarray(share_MB * (scale_B2[:, 1] / self.origin_))

    def _queries(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> tuple[Array, Array]:
        mix = as_mixtures(mix_BK, self.n_domains_)
        scale = as_scales(scale_B2, len(mix))
        return self._own_tokens(mix, scale), scale[:, 1] / self.origin_


_ARRAYS = ("params_MP_", "covariance_MPP_", "sig_M_", "cap_M_", "own_M_", "seen_2_")


def _evaluate(params_MP: Array, x_MB: Array, cap_M: Array, want_jacobian: bool) -> tuple[Array, Array | None]:
    """log L (M, B) and d log L / d theta (M, P, B); theta = logit of E, log B, log gamma, log a."""
    E, B, power, offset = params_MP.T[..., None]
    share_M1, power_M1, offset_M1 = sigmoid(E), np.exp(power), np.exp(offset)
    log_u_MB = np.log(x_MB + offset_M1)
    floor_M1 = cap_M[:, None] * share_M1
    term_MB = np.exp(B - power_M1 * log_u_MB)
    loss_MB = floor_M1 + term_MB
    if not want_jacobian:
        return np.log(loss_MB), None
    part_MB = term_MB / loss_MB
    by_floor_MB = floor_M1 * (1 - share_M1) / loss_MB
    by_offset_MB = -power_M1 * part_MB * offset_M1 / (x_MB + offset_M1)
    return np.log(loss_MB), np.stack([by_floor_MB, part_MB, -power_M1 * log_u_MB * part_MB, by_offset_MB], axis=1)


def _prior(log_median_M: Array) -> Prior:
    mean_P, sd_P = np.array([FLOOR, LEVEL, POWER, OFFSET]).T
    level_P = np.array([0.0, 1.0, 0.0, 0.0])
    return Prior(mean_P + log_median_M[:, None] * level_P, np.tile(sd_P, (len(log_median_M), 1)))
