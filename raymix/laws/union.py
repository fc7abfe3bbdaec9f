"""The default law, "tied union": one law for size, tokens and mixture, convex in the mixture.

    L = E + A n^-al (e + sum_j u_j r_j^b)^-al + B d^-be (e + sum_j t_j r_j^b)^-be

per eval domain, n = N/N0, d = D/D0 (see `union_forms` for the shape at one size, `fit` for the solver).
Read top down: regime -> usable rows -> prior -> optimum -> covariance. What it gives up: a bias of up
to about 20% of the possible gain near single-domain corners, which `residual.ResidualGP` removes.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from raymix.laws.base import Array, Ints, Table, as_mixtures, as_scales, as_table
from raymix.laws.exposure import Points, points
from raymix.laws.fit import Problem, Solution, fit_map
from raymix.laws.rows import SAME_SCALE, canonical_order, distinct, usable_rows
from raymix.laws.union_forms import Form, OneFactor, TwoFactors

FLOOR_CAP = 0.98  # E stays below this share of the least loss: the rest must be explained
POOL_FROM = 3  # eval domains; two give no spread worth the name
POOLED = ("E", "al", "be", "q", "b", "e")
SD_SEEN, SD_BEYOND = 1.1, 1.5  # widening at seen scales / outside them, so that 90% intervals hold 90%
CHUNK = 4096  # rows predicted at a time: bounds the (M, B, K) work arrays


@dataclass
class TiedUnion:
    """The tied union law; settings below, learned values end in `_`."""

    name: ClassVar[str] = "union"
    convex: ClassVar[bool] = True

    pool: bool = True
    """Share what the eval domains agree on (partial pooling, from 3 eval domains on)."""
    warmup: float = 0.1
    """Rows before this part of a run's last D are left out: no power law holds during warm-up."""
    rows_per_run: int = 8
    """At most so many checkpoints of a run, evenly in log D."""

    form_: Form = field(init=False, repr=False)
    params_MP_: Array = field(init=False, repr=False)
    covariance_MPP_: Array = field(init=False, repr=False)
    sig_M_: Array = field(init=False, repr=False)
    cap_M_: Array = field(init=False, repr=False)
    origin_2_: Array = field(init=False, repr=False)
    seen_22_: Array = field(init=False, repr=False)
    converged_M_: Ints = field(init=False, repr=False)
    notes_: list[str] = field(init=False, repr=False)

    def fit(
        self,
        mix_BK: ArrayLike,
        scale_B2: ArrayLike,
        loss_BM: ArrayLike,
        run_B: ArrayLike | None = None,
        own_M: ArrayLike | None = None,
    ) -> Self:
        """Learn from losses (nats; NaN where not measured); see `base.Law.fit`."""
        table = canonical_order(as_table(mix_BK, scale_B2, loss_BM, run_B, own_M))
        used_MB = usable_rows(table, self.warmup, self.rows_per_run)
        kept = np.flatnonzero(used_MB.any(axis=0))
        table, used_MB = table.take(kept), used_MB[:, kept]
        self._choose_form(table)
        target_MB = np.log(np.where(used_MB, table.loss_BM.T, 1.0))
        loss_MB = np.where(used_MB, table.loss_BM.T, np.nan)
        self.cap_M_ = FLOOR_CAP * np.nanmin(loss_MB, axis=1)
        at = self._points(table.mix_BK, table.scale_B2, merge=True)
        problem = Problem(
            lambda params, active, jac: self.form_.evaluate(params, at, self.cap_M_[active], jac),
            target_MB,
            used_MB.astype(np.float64),
        )
        prior = self.form_.prior(np.log(np.nanmedian(loss_MB, axis=1)), table.own_M)
        solution = fit_map(problem, prior, self._pooled(len(target_MB)))
        self._learn(solution, _rows_per_run(used_MB, table.run_B))
        return self

    def predict(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Losses (B, M) in nats per token."""
        mix, scale = self._queries(mix_BK, scale_B2)
        loss_BM = np.empty((len(mix), len(self.params_MP_)))
        for rows in chunks(len(mix)):
            at = self._points(mix[rows], scale[rows], merge=False)
            log_MB, _ = self.form_.evaluate(self.params_MP_, at, self.cap_M_, False)
            loss_BM[rows] = np.exp(log_MB).T
        return loss_BM

    def gradient(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """dL/dr (B, M, K); where a share is 0 the true slope is -inf, here that at a share of 1e-9."""
        mix, scale = self._queries(mix_BK, scale_B2)
        slope_BMK = np.empty((len(mix), len(self.params_MP_), mix.shape[1]))
        for rows in chunks(len(mix)):
            at = self._points(mix[rows], scale[rows], merge=False)
            slope_MBK = self.form_.gradient(self.params_MP_, mix[rows], at, self.cap_M_)
            slope_BMK[rows] = slope_MBK.transpose(1, 0, 2)
        return slope_BMK

    def sd(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd of log loss (B, M): sqrt(J V J' + sig^2), x 1.1 at seen scales, x 1.5 outside them."""
        mix, scale = self._queries(mix_BK, scale_B2)
        sd_BM = np.empty((len(mix), len(self.params_MP_)))
        for rows in chunks(len(mix)):
            at = self._points(mix[rows], scale[rows], merge=False)
            _, jac_MPB = self.form_.evaluate(self.params_MP_, at, self.cap_M_, True)
            assert jac_MPB is not None
            variance_MB = np.sum(jac_MPB * np.matmul(self.covariance_MPP_, jac_MPB), axis=1)
            sd_BM[rows] = np.sqrt(variance_MB + self.sig_M_[:, None] ** 2).T
        beyond_B = ((scale < self.seen_22_[0]) | (scale > self.seen_22_[1])).any(axis=1)
        return sd_BM * np.where(beyond_B, SD_BEYOND, SD_SEEN)[:, None]

    def to_json(self) -> dict[str, Any]:
        """Settings and learned values as plain JSON values."""
        form = {"two_factors": isinstance(self.form_, TwoFactors), "one_d": self.form_.one_d}
        learned = {key: getattr(self, key).tolist() for key in _ARRAYS}
        settings = {"pool": self.pool, "warmup": self.warmup, "rows_per_run": self.rows_per_run}
        return {
            "law": self.name,
            "settings": settings,
            "form": {**form, "n_domains": self.form_.n_domains},
            "learned": {**learned, "notes_": list(self.notes_)},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The law that `to_json` described."""
        law = cls(**data["settings"])
        form = data["form"]
        law.form_ = (TwoFactors if form["two_factors"] else OneFactor)(form["n_domains"], form["one_d"])
        for key in _ARRAYS:
            setattr(law, key, np.array(data["learned"][key]))
        law.notes_ = list(data["learned"]["notes_"])
        return law

    def _choose_form(self, table: Table) -> None:
        """One of four regimes by what the scales can tell, with a note on what they cannot."""
        sizes, tokens = distinct(table.scale_B2[:, 0]), distinct(table.scale_B2[:, 1])
        one_d = len(tokens) == 1
        n_domains = table.mix_BK.shape[1]
        self.form_ = OneFactor(n_domains, one_d) if len(sizes) == 1 else TwoFactors(n_domains, one_d)
        self.origin_2_ = np.array([np.exp(np.log(sizes).mean()), np.exp(np.log(table.scale_B2[:, 1]).mean())])
        low_2, high_2 = table.scale_B2.min(axis=0), table.scale_B2.max(axis=0)
        self.seen_22_ = np.stack([low_2 * (1 - SAME_SCALE), high_2 * (1 + SAME_SCALE)])
        self.notes_ = []
        if len(sizes) == 1:
            self.notes_.append("one model size: the effect of n_params is prior only")
        if one_d:
            self.notes_.append("one n_tokens: the effect of n_tokens is prior only")
        if n_domains > 1 and (table.mix_BK == table.mix_BK[0]).all():
            self.notes_.append("one mixture: the effect of the shares is prior only")

    def _pooled(self, n_eval: int) -> Ints | None:
        """Indices of the pooled parameters; exponents that stand on their prior stay on it."""
        if not self.pool or n_eval < POOL_FROM:
            return None
        prior_only = {"be"} if self.form_.one_d else set()
        if isinstance(self.form_, OneFactor):
            prior_only.add("al")
        wanted = [i for i, name in enumerate(self.form_.scalars) if name in POOLED and name not in prior_only]
        return np.array(wanted, dtype=np.int64)

    def _learn(self, solution: Solution, rows_per_run_M: Array) -> None:
        """Keep the optimum; covariance = ((H - P)/m + P)^-1, m rows of a run counting as one."""
        prior_MPP = np.stack([np.diag(sd_P**-2) for sd_P in solution.prior.sd_MP])
        data_MPP = (solution.hessian_MPP - prior_MPP) / rows_per_run_M[:, None, None]
        self.params_MP_, self.sig_M_ = solution.params_MP, solution.sig_M
        self.covariance_MPP_ = np.linalg.inv(data_MPP + prior_MPP)
        self.converged_M_ = solution.converged_M.astype(np.int64)
        for domain in np.flatnonzero(~solution.converged_M):
            self.notes_.append(f"eval domain {domain}: the fit did not converge")

    def _points(self, mix_BK: Array, scale_B2: Array, merge: bool) -> Points:
        return points(mix_BK, scale_B2, self.origin_2_[0], self.origin_2_[1], merge)

    def _queries(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> tuple[Array, Array]:
        mix = as_mixtures(mix_BK, self.form_.n_domains)
        return mix, as_scales(scale_B2, len(mix))


_ARRAYS = ("params_MP_", "covariance_MPP_", "sig_M_", "cap_M_", "origin_2_", "seen_22_", "converged_M_")


def _rows_per_run(used_MB: Any, run_B: Ints) -> Array:
    """Mean number of used rows of a run (M,)."""
    return np.array([used_B.sum() / len(np.unique(run_B[used_B])) for used_B in used_MB])


def chunks(n_rows: int, size: int = CHUNK) -> list[slice]:
    """Slices of at most `size` rows."""
    return [slice(start, start + size) for start in range(0, n_rows, size)]
