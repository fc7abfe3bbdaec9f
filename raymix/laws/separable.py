"""What the published families share: eval domains fitted apart, and a loss that is a floor plus exponentials.

    L = E + sum_k exp z_k(r, N, D; theta)

A family is its terms z_k with their derivatives, and its prior; the rest is here: rows, floor, solver (`fit`),
covariance, notes and JSON. The floor is E = .98 min(L) sigmoid(theta_0), as in the union law, or a family's own
(`has_floor`). Intervals are the union's too, but for one thing: where a family misfits by more than the solver's
largest sig, its sd says so. No family is tuned to data: priors are weak and log-normal, so that nothing diverges,
and there is one start, the prior mean. Letters: theta_MP the parameters after the floor, A of M eval domains still
being fitted.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from raymix.laws.base import Array, Ints, Table, as_mixtures, as_scales, as_table
from raymix.laws.exposure import Points, points, sigmoid
from raymix.laws.fit import Prior, Problem, Solution, fit_map
from raymix.laws.rows import SAME_SCALE, canonical_order, distinct, usable_rows
from raymix.laws.union import FLOOR_CAP, SD_BEYOND, SD_SEEN, chunks
from raymix.laws.union_forms import (
    DATA_LEVEL,
    DATA_POWER,
    FLOOR,
    ONE_D_LEVEL,
    ONE_D_POWER,
    ONE_SIZE_LEVEL,
    ONE_SIZE_POWER,
    SIZE_LEVEL,
    SIZE_POWER,
)

Slot = int | slice  # where in theta
Slopes = Sequence[tuple[Slot, Array]]  # derivative in each slot: (M, B), or (M, p, B) for a slice; may broadcast
Normal = tuple[float | Array, float]  # prior mean (a number, (M,) or (M, p)) and sd
ONE = np.ones((1, 1))
NO_SLOPE = np.zeros((1, 1, 1))


@dataclass(frozen=True)
class Term:
    """exp(z), and the derivatives of z where asked for."""

    z_MB: Array  # or (M, 1)
    by_theta: Callable[[], Slopes]
    by_share: Callable[[], Array] = lambda: NO_SLOPE  # dz/dr (M, B, K)


def power_law(
    theta_MP: Array,
    at: int,
    x_MB: Array,
    x_by_theta: Callable[[], Slopes] = tuple,
    x_by_share: Callable[[], Array] = lambda: NO_SLOPE,
) -> Term:
    """exp(theta[at] - exp(theta[at + 1]) x): a power law of e^x with its log level and log exponent side by side."""
    level_M1, power_M1 = theta_MP[:, at, None], np.exp(theta_MP[:, at + 1, None])

    def by_theta() -> Slopes:
        inner = [(slot, -_along(power_M1, value) * value) for slot, value in x_by_theta()]
        return [(at, ONE), (at + 1, -power_M1 * x_MB), *inner]

    return Term(level_M1 - power_M1 * x_MB, by_theta, lambda: -power_M1[..., None] * x_by_share())


def product(one: Term, other: Term) -> Term:
    """exp(z + z')."""
    return Term(
        one.z_MB + other.z_MB,
        lambda: [*one.by_theta(), *other.by_theta()],
        lambda: one.by_share() + other.by_share(),
    )


def level(theta_MP: Array, at: int) -> Term:
    """exp(theta[at]): a factor, or a floor that the data alone decide."""
    return Term(theta_MP[:, at, None], lambda: [(at, ONE)])


def _along(value_M1: Array, like: Array) -> Array:
    return value_M1 if like.ndim == 2 else value_M1[..., None]


@dataclass
class SeparableLaw(ABC):
    """Base of the published families; settings below, learned values end in `_`."""

    name: ClassVar[str]
    convex: ClassVar[bool]
    reads: ClassVar[tuple[str, ...]] = ("mixture", "n_params", "n_tokens")
    extra: ClassVar[tuple[str, ...]] = ()  # learned arrays of the family's own

    warmup: float = field(default=0.1, kw_only=True)
    """Rows before this part of a run's last D are left out: no power law holds during warm-up."""
    rows_per_run: int = field(default=8, kw_only=True)
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
    n_domains_: int = field(init=False, repr=False)
    notes_: list[str] = field(init=False, repr=False)

    @abstractmethod
    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        """The terms of the eval domains `active_A`, one row of theta each."""

    @abstractmethod
    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        """Priors of theta in order; `log_median_M` is the level of each eval domain's loss."""

    @property
    def has_floor(self) -> bool:
        """Whether there is an E below .98 min L, as N and D call for."""
        return True

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
        self._look_at(table)
        loss_MB = np.where(used_MB, table.loss_BM.T, np.nan)
        self.cap_M_ = FLOOR_CAP * np.nanmin(loss_MB, axis=1)
        prior = self._stack(self._prior(np.log(np.nanmedian(loss_MB, axis=1)), table))
        at = self._points(table.mix_BK, table.scale_B2, merge=True)
        problem = Problem(
            lambda params, active, jac: self._evaluate(params, at, active, jac),
            np.log(np.where(used_MB, table.loss_BM.T, 1.0)),
            used_MB.astype(np.float64),
        )
        self._learn(self._solve(problem, prior, at), problem, table.run_B)
        return self

    def predict(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Losses (B, M) in nats per token."""
        mix, scale = self._queries(mix_BK, scale_B2)
        everyone, loss_BM = np.arange(len(self.params_MP_)), np.empty((len(mix), len(self.params_MP_)))
        for rows in chunks(len(mix)):
            at = self._points(mix[rows], scale[rows], merge=False)
            loss_BM[rows] = np.exp(self._evaluate(self.params_MP_, at, everyone, False)[0]).T
        return loss_BM

    def gradient(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """dL/dr (B, M, K) = sum_k exp(z_k) dz_k/dr; a slope that is infinite at r = 0 is read at a share of 1e-9."""
        mix, scale = self._queries(mix_BK, scale_B2)
        slope_BMK = np.zeros((len(mix), len(self.params_MP_), mix.shape[1]))
        theta_MP, everyone = self.params_MP_[:, int(self.has_floor) :], np.arange(len(self.params_MP_))
        for rows in chunks(len(mix)):
            at = self._points(mix[rows], scale[rows], merge=False)
            for term in self._terms(theta_MP, at, everyone):
                slope_BMK[rows] += (np.exp(term.z_MB)[..., None] * term.by_share()).transpose(1, 0, 2)
        return slope_BMK

    def sd(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd of log loss (B, M): sqrt(J V J' + sig^2), x 1.1 at seen scales, x 1.5 outside them."""
        mix, scale = self._queries(mix_BK, scale_B2)
        everyone, sd_BM = np.arange(len(self.params_MP_)), np.empty((len(mix), len(self.params_MP_)))
        for rows in chunks(len(mix)):
            at = self._points(mix[rows], scale[rows], merge=False)
            _, jac_MPB = self._evaluate(self.params_MP_, at, everyone, True)
            assert jac_MPB is not None
            variance_MB = np.sum(jac_MPB * np.matmul(self.covariance_MPP_, jac_MPB), axis=1)
            sd_BM[rows] = np.sqrt(variance_MB + self.sig_M_[:, None] ** 2).T
        beyond_B = ((scale < self.seen_22_[0]) | (scale > self.seen_22_[1])).any(axis=1)
        return sd_BM * np.where(beyond_B, SD_BEYOND, SD_SEEN)[:, None]

    def to_json(self) -> dict[str, Any]:
        """Settings and learned values as plain JSON values."""
        settings = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.init}
        learned = {key: getattr(self, key).tolist() for key in (*_ARRAYS, *self.extra)}
        scalars = {"n_domains_": self.n_domains_, "notes_": list(self.notes_)}
        return {"law": self.name, "settings": settings, "learned": {**learned, **scalars}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The law that `to_json` described."""
        law, learned = cls(**data["settings"]), data["learned"]
        for key in (*_ARRAYS, *cls.extra):
            setattr(law, key, np.array(learned[key]))
        law.n_domains_, law.notes_ = int(learned["n_domains_"]), list(learned["notes_"])
        return law

    def _look_at(self, table: Table) -> None:
        """Units of N and D, what has been seen, and notes on what this fit cannot tell."""
        sizes, tokens = distinct(table.scale_B2[:, 0]), distinct(table.scale_B2[:, 1])
        self.own_M_, self.n_domains_ = table.own_M.copy(), table.mix_BK.shape[1]
        self.origin_2_ = np.array([np.exp(np.log(sizes).mean()), np.exp(np.log(table.scale_B2[:, 1]).mean())])
        low_2, high_2 = table.scale_B2.min(axis=0), table.scale_B2.max(axis=0)
        self.seen_22_ = np.stack([low_2 * (1 - SAME_SCALE), high_2 * (1 + SAME_SCALE)])
        self.varies_2_ = np.array([len(sizes) > 1, len(tokens) > 1], dtype=np.int64)
        one_mixture = self.n_domains_ == 1 or bool((table.mix_BK == table.mix_BK[0]).all())
        varies = {"n_params": len(sizes) > 1, "n_tokens": len(tokens) > 1, "mixture": not one_mixture}
        told = {"n_params": "model size", "n_tokens": "n_tokens", "mixture": "mixture"}
        self.notes_ = []
        for what, name in told.items():
            if varies[what] and what not in self.reads:
                self.notes_.append(f"more than one {name}: this law has no {what} and averages over them; fit one")
            if not varies[what] and what in self.reads and not (what == "mixture" and self.n_domains_ == 1):
                self.notes_.append(f"one {name}: the effect of {what} is prior only")

    def _solve(self, problem: Problem, prior: Prior, at: Points) -> Solution:
        return fit_map(problem, prior)

    def _learn(self, solution: Solution, problem: Problem, run_B: Ints) -> None:
        """Keep the optimum; covariance = ((H - P)/(m f) + P)^-1, m rows of a run as one, f the misfit beyond sig.

        The solver caps sig, so that a misfit does not silence the data; here sig is the residual's, if larger.
        """
        log_MB, _ = problem.evaluate(solution.params_MP, np.arange(len(problem.used_MB)), False)
        rows_M, n_params = problem.used_MB.sum(axis=1), solution.params_MP.shape[1]
        freedom_M = np.maximum(rows_M - n_params / 2, 0.3 * rows_M)  # as in the shared solver
        residual_M = np.sqrt((problem.used_MB * (log_MB - problem.target_MB) ** 2).sum(axis=1) / freedom_M)
        self.params_MP_, self.sig_M_ = solution.params_MP, np.maximum(solution.sig_M, residual_M)
        runs_M = np.array([len(np.unique(run_B[used_B > 0])) for used_B in problem.used_MB])
        less_M = rows_M / runs_M * (self.sig_M_ / solution.sig_M) ** 2
        prior_MPP = np.stack([np.diag(sd_P**-2) for sd_P in solution.prior.sd_MP])
        data_MPP = (solution.hessian_MPP - prior_MPP) / less_M[:, None, None]
        self.covariance_MPP_ = np.linalg.inv(data_MPP + prior_MPP)
        self.converged_M_ = solution.converged_M.astype(np.int64)
        for domain in np.flatnonzero(~solution.converged_M):
            self.notes_.append(f"eval domain {domain}: the fit did not converge")

    def _evaluate(self, params_AP: Array, at: Points, active_A: Ints, want: bool) -> tuple[Array, Array | None]:
        """log L (A, B) and, if wanted, d log L / d theta (A, P, B)."""
        first = int(self.has_floor)
        terms = self._terms(params_AP[:, first:], at, active_A)
        parts = [np.exp(term.z_MB) for term in terms]
        loss_AB = sum(parts[1:], parts[0])
        if first:
            share_A1 = sigmoid(params_AP[:, :1])
            floor_A1 = self.cap_M_[active_A, None] * share_A1
            loss_AB = floor_A1 + loss_AB
        if not want:
            return np.log(loss_AB), None
        jac_APB = np.zeros((*params_AP.shape, loss_AB.shape[1]))
        if first:
            jac_APB[:, 0] = floor_A1 * (1 - share_A1) / loss_AB
        theta_jac_APB = jac_APB[:, first:]
        for part_AB, term in zip(parts, terms, strict=True):
            weight_AB = part_AB / loss_AB
            for slot, value in term.by_theta():
                theta_jac_APB[:, slot] += (weight_AB if isinstance(slot, int) else weight_AB[:, None]) * value
        return np.log(loss_AB), jac_APB

    def _stack(self, parts: list[Normal]) -> Prior:
        """The prior over all parameters, floor first."""
        n_eval = len(self.cap_M_)
        means, sds = [], []
        for mean, sd in ([FLOOR] if self.has_floor else []) + parts:
            block = np.asarray(mean, dtype=np.float64)
            block_Mp = block if block.ndim == 2 else np.broadcast_to(block, (n_eval,))[:, None]
            means.append(block_Mp)
            sds.append(np.full(block_Mp.shape, sd))
        return Prior(np.concatenate(means, axis=1), np.concatenate(sds, axis=1))

    def _size_prior(self, log_median_M: Array) -> list[Normal]:
        """Of A and al in A n^-al: as in the union law, tight where only one size was seen."""
        level, power = (SIZE_LEVEL, SIZE_POWER) if self.varies_2_[0] else (ONE_SIZE_LEVEL, ONE_SIZE_POWER)
        return [(log_median_M + level[0], level[1]), power]

    def _data_prior(self, log_median_M: Array) -> list[Normal]:
        """Of B and be in B d^-be: as in the union law, tight where only one n_tokens was seen."""
        level, power = (DATA_LEVEL, DATA_POWER) if self.varies_2_[1] else (ONE_D_LEVEL, ONE_D_POWER)
        return [(log_median_M + level[0], level[1]), power]

    def _points(self, mix_BK: Array, scale_B2: Array, merge: bool) -> Points:
        merge = merge and len(np.unique(mix_BK, axis=0)) < len(mix_BK)
        return points(mix_BK, scale_B2, self.origin_2_[0], self.origin_2_[1], merge)

    def _queries(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> tuple[Array, Array]:
        mix = as_mixtures(mix_BK, self.n_domains_)
        return mix, as_scales(scale_B2, len(mix))


_ARRAYS = (
    "params_MP_",
    "covariance_MPP_",
    "sig_M_",
    "cap_M_",
    "own_M_",
    "origin_2_",
    "seen_22_",
    "varies_2_",
    "converged_M_",
)


def own_weights(own_M: Ints, n_domains: int, other: float, own: float, unknown: float) -> Array:
    """Prior means (M, K): `own` for the own training domain, `other` beside it, `unknown` where there is none."""
    mean_MK = np.full((len(own_M), n_domains), unknown)
    known = np.flatnonzero(own_M >= 0)
    mean_MK[known] = other
    mean_MK[known, own_M[known]] = own
    return mean_MK


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple | list | np.ndarray) else value
