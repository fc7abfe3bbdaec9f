"""The default law, "tied union": one law for size, tokens and mixture, convex in the mixture.

    L = E + A n^-al (e + sum_j u_j r_j^b)^-al + B d^-be (e + sum_j t_j r_j^b)^-be

per eval domain, n = N/N0, d = D/D0 (see `union_forms` for the shape at one size, `fitted` for all that laws share).
What the eval domains agree on is pooled after the noise is estimated; at one scale, where rows are few, the shape of
the mixture factor before it (errors of mixtures left out x .96; with several sizes or checkpoints it gains nothing).
Told the unique tokens of each run, it counts repeats for less in the second term (see `repetition`). What it gives up:
a bias of up to about 20% of the possible gain near single-domain corners, which `residual.ResidualGP` removes.
"""

from dataclasses import dataclass, field

import numpy as np

from raymix.laws.base import Array, Ints, Table
from raymix.laws.exposure import Points
from raymix.laws.fit import Expand, Prior, Problem, Solution, fit_map
from raymix.laws.fitted import FittedLaw
from raymix.laws.repetition import REPEATED, epochs
from raymix.laws.union_forms import Form, OneFactor, TwoFactors

POOL_FROM = 3  # eval domains; two give no spread worth the name
SHAPE = ("q", "b", "e")  # of the mixture factor
POOLED = ("E", "al", "be")  # and R* where runs repeated tokens


@dataclass
class TiedUnion(FittedLaw):
    """The tied union law; settings below, learned values end in `_`."""

    name = "union"
    convex = True
    repeats = True
    extra = ("told_2_",)

    pool: bool = True
    """Share what the eval domains agree on (partial pooling, from 3 eval domains on)."""

    one_factor: bool = False
    """One mixture factor even where sizes vary: what a table with few trials beyond one size can tell."""

    fixed_offset: bool = False
    """The offset e is of tokens, which do not grow with the run, not of shares (see `union_forms`)."""

    told_2_: Ints = field(init=False, repr=False)  # whether unique tokens were known, whether any was a repeat

    @property
    def knows_unique_(self) -> bool:
        """Whether repeats can be told from fresh tokens where this law is read."""
        return bool(self.told_2_[0])

    @property
    def saw_repeats_(self) -> bool:
        """Whether the runs tell what repeats are worth."""
        return bool(self.told_2_[1])

    @property
    def form_(self) -> Form:
        """One of four regimes by what the scales can tell."""
        sizes, tokens = self.varies_2_.astype(bool).tolist()
        if sizes and not self.one_factor:
            return TwoFactors(self.n_domains_, not tokens, self.saw_repeats_, self.fixed_offset)
        return OneFactor(self.n_domains_, not tokens, self.saw_repeats_, sizes, self.fixed_offset)

    def _look_at(self, table: Table) -> None:
        super()._look_at(table)
        epochs_BK = epochs(table.mix_BK, table.scale_B2, table.unique_BK)
        repeated = epochs_BK is not None and bool(epochs_BK.max() > REPEATED)
        self.told_2_ = np.array([table.unique_BK is not None, repeated], dtype=np.int64)

    def _whole_prior(self, log_median_M: Array, table: Table) -> Prior:
        return self.form_.prior(log_median_M, table.own_M)

    def _evaluate(self, params_AP: Array, at: Points, active_A: Ints, want: bool) -> tuple[Array, Array | None]:
        return self.form_.evaluate(params_AP, at, self.cap_M_[active_A], want)

    def _in_steps(self, at: Points) -> Expand:
        form = self.form_
        return lambda params_AP, active_A: form.expand(params_AP, at, self.cap_M_[active_A])

    def _slope(self, mix_BK: Array, at: Points) -> Array:
        return self.form_.gradient(self.params_MP_, mix_BK, at, self.cap_M_)

    def _solve(self, problem: Problem, prior: Prior, at: Points) -> Solution:
        one_scale = not self.varies_2_.any()
        first, last = self._pooled() if len(problem.target_MB) >= POOL_FROM and self.pool else ([], [])
        if not one_scale:
            first, last = [], first + last
        return fit_map(problem, prior, np.array(last, np.int64), np.array(first, np.int64), few=one_scale)

    def _pooled(self) -> tuple[list[int], list[int]]:
        """Indices of the parameters that may be pooled first, and last; what stands on its prior stays on it."""
        form, sizes, tokens = self.form_, *self.varies_2_
        prior_only = ([] if tokens else ["be"]) + ([] if sizes else ["al"])
        first = [i for i, name in enumerate(form.scalars) if name in SHAPE]
        last = [i for i, name in enumerate(form.scalars) if name in POOLED and name not in prior_only]
        return first, last + ([form.n_params - 1] if form.repeats else [])
