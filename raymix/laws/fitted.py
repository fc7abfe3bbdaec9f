"""What every law has in common that the shared solver fits: rows in, an optimum with its covariance kept.

A law says its prior, its log loss with derivatives (`_evaluate`) and its gradient in the mixture; the rest is here:
which rows, units of N and D, notes on what the data cannot tell, predictions, intervals (see `intervals`), JSON.
Letters: theta_MP the parameters, A of M eval domains still being fitted.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from raymix.laws import intervals
from raymix.laws.base import Array, FromTable, Ints, Table, as_queries, restore, saved
from raymix.laws.exposure import Points, points
from raymix.laws.fit import Expand, Prior, Problem, Solution, fit_map
from raymix.laws.repetition import at_rows, epochs
from raymix.laws.robust import tamed
from raymix.laws.rows import ROWS_PER_RUN, WARMUP, canonical_order, scales_seen, usable_rows

FLOOR_CAP = 0.98  # E stays below this share of the least loss: the rest must be explained
CHUNK = 4096  # rows predicted at a time: bounds the (M, B, K) work arrays
DIGITS = 1e-6  # least rms of log residuals in an evidence: what is written of a loss ends there


@dataclass
class FittedLaw(FromTable):
    """Base of the laws of one solve; settings below, learned values end in `_`."""

    reads: ClassVar[tuple[str, ...]] = ("mixture", "n_params", "n_tokens")
    extra: ClassVar[tuple[str, ...]] = ()  # learned arrays of the law's own
    alone: ClassVar[str] = ""  # what it says of an eval domain without a training domain of its own

    warmup: float = field(default=WARMUP, kw_only=True)
    """Rows before this part of a run's last D are left out: no power law holds during warm-up."""
    rows_per_run: int = field(default=ROWS_PER_RUN, kw_only=True)
    """At most so many checkpoints of a run, evenly in log D."""

    params_MP_: Array = field(init=False, repr=False)
    covariance_MPP_: Array = field(init=False, repr=False)
    sig_M_: Array = field(init=False, repr=False)
    cap_M_: Array = field(init=False, repr=False)
    own_M_: Ints = field(init=False, repr=False)
    origin_2_: Array = field(init=False, repr=False)
    seen_22_: Array = field(init=False, repr=False)
    varies_2_: Ints = field(init=False, repr=False)
    converged_M_: Ints = field(init=False, repr=False)
    widen_: float = field(init=False, repr=False)
    n_domains_: int = field(init=False, repr=False)
    notes_: list[str] = field(init=False, repr=False)
    unique_: Array | None = field(init=False, repr=False, compare=False, default=None)
    """Unique tokens where it is read (K,) or per query (B, K); see `repetition.stocked`."""

    @abstractmethod
    def _whole_prior(self, log_median_M: Array, table: Table) -> Prior:
        """Of all parameters; `log_median_M` is the level of each eval domain's loss."""

    @abstractmethod
    def _evaluate(self, params_AP: Array, at: Points, active_A: Ints, want: bool) -> tuple[Array, Array | None]:
        """log L (A, B) of the eval domains `active_A` and, if wanted, d log L / d theta (A, P, B)."""

    def _in_steps(self, at: Points) -> Expand | None:
        """`_evaluate` in two steps, for laws that have it: the losses first, derivatives where they are wanted."""
        return None

    @abstractmethod
    def _slope(self, mix_BK: Array, at: Points) -> Array:
        """dL/dr (M, B, K)."""

    def _fit(self, table: Table) -> Self:
        table = canonical_order(table)
        used_MB = usable_rows(table, self.warmup, self.rows_per_run)
        kept = np.flatnonzero(used_MB.any(axis=0))
        table, used_MB = table.take(kept), used_MB[:, kept]
        self._look_at(table)
        loss_MB = np.where(used_MB, table.loss_BM.T, np.nan)
        self.cap_M_ = FLOOR_CAP * np.nanmin(loss_MB, axis=1)
        prior = self._whole_prior(np.log(np.nanmedian(loss_MB, axis=1)), table)
        at = self._points(table.mix_BK, table.scale_B2, merge=True, unique=table.unique_BK)
        problem = Problem(
            lambda params, active, jac: self._evaluate(params, at, active, jac),
            np.log(np.where(used_MB, table.loss_BM.T, 1.0)),
            used_MB.astype(np.float64),
            self._in_steps(at),
        )
        self._learn(self._solve(problem, prior, at), problem, table)
        return self

    def predict(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Losses (B, M) in nats per token."""
        return self.losses(*as_queries(mix_BK, scale_B2, self.n_domains_))

    def gradient(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """dL/dr (B, M, K); a slope that is infinite at r = 0 is read at a share of 1e-9."""
        return self.slopes(*as_queries(mix_BK, scale_B2, self.n_domains_))

    def losses(self, mix_BK: Array, scale_B2: Array) -> Array:
        """`predict`, of mixtures and scales that were checked already."""
        everyone, loss_BM = np.arange(len(self.params_MP_)), np.empty((len(mix_BK), len(self.params_MP_)))
        for rows, at in self._read(mix_BK, scale_B2):
            loss_BM[rows] = np.exp(self._evaluate(self.params_MP_, at, everyone, False)[0]).T
        return loss_BM

    def slopes(self, mix_BK: Array, scale_B2: Array) -> Array:
        """`gradient`, of mixtures and scales that were checked already."""
        slope_BMK = np.empty((len(mix_BK), len(self.params_MP_), mix_BK.shape[1]))
        for rows, at in self._read(mix_BK, scale_B2):
            slope_BMK[rows] = self._slope(mix_BK[rows], at).transpose(1, 0, 2)
        return slope_BMK

    def sd(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd of log loss (B, M) for a new run, of which 90% lie within 1.645 sd; see `intervals`."""
        mix, scale = as_queries(mix_BK, scale_B2, self.n_domains_)
        sd_BM = np.empty((len(mix), len(self.params_MP_)))
        for rows, jac_MPB in self._by_params(mix, scale):
            sd_BM[rows] = intervals.log_sd(jac_MPB, self.covariance_MPP_, self.sig_M_).T
        return sd_BM * intervals.beyond(scale, self.seen_22_, self.widen_)[:, None]

    def sd_between(self, mix_BK: ArrayLike, other_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd (B, M) of the difference in log loss between two mixtures at one scale, row by row; see `intervals`."""
        mix, scale = as_queries(mix_BK, scale_B2, self.n_domains_)
        other, _ = as_queries(other_BK, scale, self.n_domains_)
        sd_BM, alike_B = np.empty((len(mix), len(self.params_MP_))), intervals.alike(mix, other)
        pairs = zip(self._by_params(mix, scale), self._by_params(other, scale), strict=True)
        for (rows, jac_MPB), (_, other_MPB) in pairs:
            learned = (self.covariance_MPP_, self.sig_M_, alike_B[rows])
            sd_BM[rows] = intervals.log_sd_between(jac_MPB, other_MPB, *learned).T
        factor_B = intervals.beyond(scale, self.seen_22_, self.widen_, intervals.BETWEEN_BEYOND)
        return sd_BM * factor_B[:, None]

    def log_evidence(self, table: Table) -> Array:
        """log p(losses | law) (M,) by Laplace's method, but for a constant; the fit's own table, in canonical order.

        -R log rms - 1/2 sum ((theta - mean) / sd)^2 - sum log sd + 1/2 log |V|; as in the covariance V, the rows of a
        run count as one, so R are runs (MacKay 1992, doi 10.1162/neco.1992.4.3.415). rms is of tamed
        residuals and at least `DIGITS`.
        """
        used_MB = usable_rows(table, self.warmup, self.rows_per_run)
        loss_MB = at_rows(self, table).predict(table.mix_BK, table.scale_B2).T
        log_MB = tamed(np.log(np.where(used_MB, table.loss_BM.T / loss_MB, np.nan)), np.full(len(used_MB), DIGITS))
        rms_M = np.sqrt(np.nanmean(log_MB**2, axis=1))
        runs_M = np.array([len(np.unique(table.run_B[used_B])) for used_B in used_MB])
        prior = self._whole_prior(np.log(np.nanmedian(np.where(used_MB, table.loss_BM.T, np.nan), axis=1)), table)
        z_MP = (self.params_MP_ - prior.mean_MP) / prior.sd_MP
        occam_M = np.linalg.slogdet(self.covariance_MPP_).logabsdet / 2 - np.log(prior.sd_MP).sum(axis=1)
        return np.asarray(occam_M - (z_MP**2).sum(axis=1) / 2 - runs_M * np.log(np.maximum(rms_M, DIGITS)))

    def to_json(self) -> dict[str, Any]:
        return saved(self, (*_ARRAYS, *self.extra, "n_domains_", "widen_"))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        law = cls(**data["settings"])
        restore(law, data, (*_ARRAYS, *cls.extra, "n_domains_", "widen_"))
        return law

    def _look_at(self, table: Table) -> None:
        """Units of N and D, what has been seen, and notes on what this fit cannot tell."""
        self.own_M_, self.n_domains_ = table.own_M.copy(), table.mix_BK.shape[1]
        self.origin_2_, self.seen_22_, self.varies_2_ = scales_seen(table.scale_B2)
        one_mixture = self.n_domains_ == 1 or bool((table.mix_BK == table.mix_BK[0]).all())
        varies = dict(zip(("n_params", "n_tokens"), self.varies_2_, strict=True)) | {"mixture": not one_mixture}
        told = {"n_params": "model size", "n_tokens": "n_tokens", "mixture": "mixture"}
        self.notes_ = []
        for what, name in told.items():
            if varies[what] and what not in self.reads:
                self.notes_.append(f"more than one {name}: this law has no {what} and averages over them; fit one")
            if not varies[what] and what in self.reads and not (what == "mixture" and self.n_domains_ == 1):
                self.notes_.append(f"one {name}: the effect of {what} is prior only")
        if self.alone:
            without = np.flatnonzero(table.own_M < 0)
            self.notes_ += [f"eval domain {domain}: no own training domain, {self.alone}" for domain in without]

    def _solve(self, problem: Problem, prior: Prior, at: Points) -> Solution:
        return fit_map(problem, prior)

    def _learn(self, solution: Solution, problem: Problem, table: Table) -> None:
        """Keep the optimum and how sure it is."""
        self.params_MP_, self.sig_M_ = solution.params_MP, intervals.misfit_sig(problem, solution)
        runs_M = np.array([len(np.unique(table.run_B[used_B > 0])) for used_B in problem.used_MB])
        less_M = problem.used_MB.sum(axis=1) / runs_M * (self.sig_M_ / solution.sig_M) ** 2
        self.covariance_MPP_ = intervals.clustered(solution, less_M)
        mixture_B = np.unique(table.mix_BK, axis=0, return_inverse=True)[1].ravel()
        runs = len(np.unique(table.run_B))
        self.widen_ = intervals.widening(problem, solution, self.covariance_MPP_, self.sig_M_, less_M, mixture_B, runs)
        self.converged_M_ = solution.converged_M.astype(np.int64)
        for domain in np.flatnonzero(~solution.converged_M):
            self.notes_.append(f"eval domain {domain}: the fit did not converge")

    def _points(self, mix_BK: Array, scale_B2: Array, merge: bool, unique: Array | None = None) -> Points:
        epochs_BK = epochs(mix_BK, scale_B2, unique)
        return points(mix_BK, scale_B2, self.origin_2_[0], self.origin_2_[1], merge, epochs_BK)

    def _read(self, mix_BK: Array, scale_B2: Array) -> Iterator[tuple[slice, Points]]:
        """The rows asked for, some at a time."""
        for rows in chunks(len(mix_BK)):
            some = self.unique_ if self.unique_ is None or self.unique_.ndim == 1 else self.unique_[rows]
            yield rows, self._points(mix_BK[rows], scale_B2[rows], merge=False, unique=some)

    def _by_params(self, mix_BK: Array, scale_B2: Array) -> Iterator[tuple[slice, Array]]:
        """d log L / d theta (M, P, b) of the rows asked for, some at a time."""
        everyone = np.arange(len(self.params_MP_))
        for rows, at in self._read(mix_BK, scale_B2):
            _, jac_MPB = self._evaluate(self.params_MP_, at, everyone, True)
            assert jac_MPB is not None
            yield rows, jac_MPB


_ARRAYS = (
    *("params_MP_", "covariance_MPP_", "sig_M_", "cap_M_", "own_M_"),
    *("origin_2_", "seen_22_", "varies_2_", "converged_M_"),
)


def chunks(n_rows: int, size: int = CHUNK) -> list[slice]:
    """Slices of at most `size` rows."""
    return [slice(start, start + size) for start in range(0, n_rows, size)]
