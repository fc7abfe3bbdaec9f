"""The nested pipeline of Data Mixing Laws (arXiv 2403.16952, Algorithm 1): steps, then sizes, then mixtures.

    per run and eval domain        L(D) = E + B d^-beta                 read at the D asked for
    per mixture and eval domain    L(N) = E + A n^-alpha                through those, read at the N asked for
    per eval domain                L(r) = c + k exp(sum_j t_j r_j)      m4 through those

`fit` learns the step laws; the rest is fitted per scale asked for and kept. Convex in the mixture. What it gives up:
each law sees a few points only, so errors add up from stage to stage; the union law shares all rows and errs less.
Where we differ: maximum a posteriori on log loss in place of Huber on loss with many starts, and data that the paper
does not have: a run with fewer than 3 checkpoints leans on the step laws of the other runs, a mixture trained at one
size on the size laws of the other mixtures, and what never varied is on its prior, with a note.
Letters: R runs, C checkpoints or sizes, Q distinct mixtures, U token counts asked for.
"""

from copy import copy
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from raymix.laws.base import Array, FromTable, Ints, Table, as_queries, plain, restore, saved
from raymix.laws.curves import Curves, Habit, fit_curves
from raymix.laws.exponential import M4
from raymix.laws.intervals import BETWEEN_BEYOND, beyond
from raymix.laws.rows import ROWS_PER_RUN, WARMUP, canonical_order, distinct, rows_of, scales_seen, usable_rows
from raymix.laws.union_forms import DATA, ONE_D, ONE_SIZE, SIZE

STEPS = Habit(*DATA, *ONE_D, enough=3)  # 3 parameters
SIZES = Habit(*SIZE, *ONE_SIZE, enough=2)  # the prior settles the third

SD_SEEN = 1.1  # widening at the scales seen: what is left out of one stage says nothing of the others
Scales = tuple[float, float]


@dataclass
class Nested(FromTable):
    """Step laws, size laws and m4, one after the other; settings below, learned values end in `_`."""

    name = "nested"
    convex = True

    warmup: float = WARMUP
    """Rows before this part of a run's last D are left out: no power law holds during warm-up."""
    rows_per_run: int = ROWS_PER_RUN
    """At most so many checkpoints of a run, evenly in log D."""

    steps_: Curves = field(init=False, repr=False)  # one per run and eval domain, (R * M)
    mix_QK_: Array = field(init=False, repr=False)
    mixture_R_: Ints = field(init=False, repr=False)
    size_R_: Array = field(init=False, repr=False)
    origin_2_: Array = field(init=False, repr=False)
    seen_22_: Array = field(init=False, repr=False)
    notes_: list[str] = field(init=False, repr=False)
    _read: dict[Scales, tuple[M4, Array]] = field(init=False, repr=False, compare=False)

    def _fit(self, table: Table) -> Self:
        table = canonical_order(table)
        used_BM = usable_rows(table, self.warmup, self.rows_per_run).T
        kept = np.flatnonzero(used_BM.any(axis=1))
        table, loss_BM = table.take(kept), np.where(used_BM, table.loss_BM, np.nan)[kept]
        self._look_at(table)
        run_B = self._runs(table)
        log_x_RC, loss_RMC = _by_run(run_B, np.log(table.scale_B2[:, 1] / self.origin_2_[1]), loss_BM)
        n_runs, n_eval, n_points = loss_RMC.shape
        kind_RM = np.tile(np.arange(n_eval), (n_runs, 1))
        log_x_RMC = np.broadcast_to(log_x_RC[:, None], loss_RMC.shape)
        self.steps_ = fit_curves(
            log_x_RMC.reshape(-1, n_points), loss_RMC.reshape(-1, n_points), kind_RM.ravel(), STEPS
        )
        self._note_thin(np.isfinite(loss_RMC).sum(axis=2))
        self._read = {}
        return self

    def predict(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Losses (B, M) in nats per token."""
        mix, scale = as_queries(mix_BK, scale_B2, self.mix_QK_.shape[1])
        loss_BM = np.empty((len(mix), self._n_eval))
        for rows, at, law, _ in self._at(scale):
            loss_BM[rows] = law.predict(mix[rows], at)
        return loss_BM

    def gradient(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """dL/dr (B, M, K), that of m4 at each scale."""
        mix, scale = as_queries(mix_BK, scale_B2, self.mix_QK_.shape[1])
        slope_BMK = np.empty((len(mix), self._n_eval, mix.shape[1]))
        for rows, at, law, _ in self._at(scale):
            slope_BMK[rows] = law.gradient(mix[rows], at)
        return slope_BMK

    def sd(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd of log loss (B, M): m4's, and what steps and sizes leave open; wider outside the scales seen."""
        mix, scale = as_queries(mix_BK, scale_B2, self.mix_QK_.shape[1])
        sd_BM = np.empty((len(mix), self._n_eval))
        for rows, at, law, open_M in self._at(scale):
            sd_BM[rows] = np.sqrt(law.sd(mix[rows], at) ** 2 + open_M)
        return sd_BM * beyond(scale, self.seen_22_, SD_SEEN)[:, None]

    def sd_between(self, mix_BK: ArrayLike, other_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """sd (B, M) of log L(mix) - log L(other): m4's, fitted to what steps and sizes say of every mixture."""
        mix, scale = as_queries(mix_BK, scale_B2, self.mix_QK_.shape[1])
        other, _ = as_queries(other_BK, scale, self.mix_QK_.shape[1])
        sd_BM = np.empty((len(mix), self._n_eval))
        for rows, at, law, _ in self._at(scale):
            sd_BM[rows] = law.sd_between(mix[rows], other[rows], at)
        return sd_BM * beyond(scale, self.seen_22_, SD_SEEN, BETWEEN_BEYOND)[:, None]

    def to_json(self) -> dict[str, Any]:
        """Settings and learned values as plain JSON values; a step law without points is null."""
        known_G = np.isfinite(self.steps_.cap_G)
        steps = {key: plain(curves[known_G]) for key, curves in vars(self.steps_).items()}
        return {**saved(self, _ARRAYS), "steps": {"known_G": plain(known_G), **steps}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        law = cls(**data["settings"])
        restore(law, data, _ARRAYS)
        known_G = np.array(data["steps"]["known_G"])
        law.steps_, law._read = Curves.without_points(len(known_G)), {}
        for key, curves in vars(law.steps_).items():
            curves[known_G] = data["steps"][key]
        return law

    @property
    def _n_eval(self) -> int:
        return len(self.steps_.cap_G) // len(self.size_R_)

    def _look_at(self, table: Table) -> None:
        self.origin_2_, self.seen_22_, varies_2 = scales_seen(table.scale_B2)
        one = [what for what, varies in zip(("n_params", "n_tokens"), varies_2, strict=True) if not varies]
        self.notes_ = [f"one {what}: the effect of {what} is prior only" for what in one]
        if table.mix_BK.shape[1] > 1 and (table.mix_BK == table.mix_BK[0]).all():
            self.notes_.append("one mixture: the effect of the shares is prior only")

    def _runs(self, table: Table) -> Ints:
        """The run of each row; a run has one mixture and one size, whatever its number says."""
        keys_BC = np.column_stack([table.mix_BK, table.scale_B2[:, 0], table.run_B])
        runs_RC, run_B = np.unique(keys_BC, axis=0, return_inverse=True)
        self.size_R_ = runs_RC[:, -2]
        self.mix_QK_, mixture_R = np.unique(runs_RC[:, :-2], axis=0, return_inverse=True)
        self.mixture_R_ = mixture_R.ravel()
        return run_B.ravel()

    def _note_thin(self, count_RM: Ints) -> None:
        """Notes on runs and mixtures that lean on the others."""
        thin = int((count_RM.max(axis=1) < STEPS.enough).sum())
        if thin and thin < len(count_RM):
            self.notes_.append(f"{thin} of {len(count_RM)} runs have fewer than {STEPS.enough} checkpoints after "
                               "warm-up: they lean on the step laws of the others")  # fmt: skip
        n_mixtures = len(self.mix_QK_)
        sizes = [len(distinct(self.size_R_[self.mixture_R_ == q])) for q in range(n_mixtures)]
        single = sizes.count(1)
        if single and single < n_mixtures:
            self.notes_.append(f"{single} of {n_mixtures} mixtures were trained at one size: they lean on the size "
                               "laws of the others")  # fmt: skip

    def _at(self, scale_B2: Array) -> list[tuple[Ints, Array, M4, Array]]:
        """(rows, scale, m4 there, variance left open by steps and sizes (M,)) for every distinct scale."""
        at_U2, which_B = np.unique(scale_B2, axis=0, return_inverse=True)
        new_U2 = np.array([scale_2 for scale_2 in at_U2 if tuple(scale_2) not in self._read])
        if len(new_U2):
            self._read |= self._fit_at(new_U2)
        return [(rows, at, *self._read[tuple(at)]) for rows, at in zip(rows_of(which_B.ravel()), at_U2, strict=True)]

    def _fit_at(self, at_U2: Array) -> dict[Scales, tuple[M4, Array]]:
        """Size laws and m4 at each scale; all m4 in one solve, as if each scale had eval domains of its own."""
        loss_QUM, open_UM = self._extrapolate(at_U2)
        n_eval = loss_QUM.shape[2]
        scale_2 = np.ones(2)  # one scale at a time: m4 has no N and no D
        whole = M4().fit(self.mix_QK_, scale_2, loss_QUM.reshape(len(loss_QUM), -1), np.arange(len(loss_QUM)))
        whole.seen_22_, whole.widen_ = np.array([[0.0, 0.0], [np.inf, np.inf]]), 1.0  # here, for all stages together
        parts = [_part(whole, slice(u * n_eval, (u + 1) * n_eval)) for u in range(len(at_U2))]
        return {tuple(at): (part, open_M) for at, part, open_M in zip(at_U2, parts, open_UM, strict=True)}

    def _extrapolate(self, at_U2: Array) -> tuple[Array, Array]:
        """Losses of every mixture at every scale (Q, U, M), and the mean variance of their logs (U, M)."""
        n_runs, n_eval = len(self.size_R_), self._n_eval
        tokens_V, which_U = np.unique(at_U2[:, 1], return_inverse=True)
        log_d_1V = np.log(tokens_V / self.origin_2_[1])[None]
        loss_RVM = self.steps_.predict(log_d_1V).reshape(n_runs, n_eval, -1).transpose(0, 2, 1)
        open_RVM = self.steps_.variance(log_d_1V).reshape(n_runs, n_eval, -1).transpose(0, 2, 1)
        log_n_RC, loss_QVMC = _by_run(self.mixture_R_, np.log(self.size_R_ / self.origin_2_[0]), loss_RVM)
        n_mixtures, n_tokens, _, n_sizes = loss_QVMC.shape
        kind = np.broadcast_to(np.arange(n_tokens * n_eval).reshape(n_tokens, n_eval), loss_QVMC.shape[:3])
        log_n = np.broadcast_to(log_n_RC[:, None, None], loss_QVMC.shape).reshape(-1, n_sizes)
        sizes = fit_curves(log_n, loss_QVMC.reshape(-1, n_sizes), kind.ravel(), SIZES)
        log_n_1U = np.log(at_U2[:, 0] / self.origin_2_[0])[None]
        shape = (n_mixtures, n_tokens, n_eval, len(at_U2))
        every_U = np.arange(len(at_U2))
        loss_QUM = sizes.predict(log_n_1U).reshape(shape)[:, which_U.ravel(), :, every_U].transpose(1, 0, 2)
        open_QUM = sizes.variance(log_n_1U).reshape(shape)[:, which_U.ravel(), :, every_U].transpose(1, 0, 2)
        return loss_QUM, np.nanmean(open_QUM, axis=0) + np.nanmean(open_RVM, axis=0)[which_U.ravel()]


_ARRAYS = ("mix_QK_", "mixture_R_", "size_R_", "origin_2_", "seen_22_")


def _by_run(run_B: Ints, x_B: Array, value_BX: Array) -> tuple[Array, Array]:
    """Rows side by side per run: x (R, C), and values (R, ..., C), NaN where a run has fewer rows."""
    order = np.argsort(run_B, kind="stable")
    count_R = np.bincount(run_B)
    start_R = np.cumsum(count_R) - count_R
    place = np.arange(len(run_B)) - np.repeat(start_R, count_R)
    x_RC = np.zeros((len(count_R), count_R.max()))
    value_RCX = np.full((*x_RC.shape, *value_BX.shape[1:]), np.nan)
    x_RC[run_B[order], place], value_RCX[run_B[order], place] = x_B[order], value_BX[order]
    return x_RC, np.moveaxis(value_RCX, 1, -1)


def _part(whole: M4, block: slice) -> M4:
    """The law of some of the eval domains."""
    law = copy(whole)
    for key in ("params_MP_", "covariance_MPP_", "sig_M_", "cap_M_", "own_M_", "converged_M_"):
        setattr(law, key, getattr(whole, key)[block])
    return law
