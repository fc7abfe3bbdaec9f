"""What the published families share: eval domains fitted apart, and a loss that is a floor plus exponentials.

    L = E + sum_k exp z_k(r, N, D; theta)

A family is its terms z_k with their derivatives, and its prior; their sum with the floor is here, all else is that of
any law of one solve (`fitted`). The floor is E = .98 min(L) sigmoid(theta_0), as in the union law, or a family's own
(`has_floor`). No family is tuned to data: priors are weak and log-normal, so that nothing diverges, and there is one
start, the prior mean. Letters: theta_MP the parameters after the floor, A of M eval domains still being fitted.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raymix.laws.base import Array, Ints, Table
from raymix.laws.exposure import Points, sigmoid
from raymix.laws.fit import Prior
from raymix.laws.fitted import FittedLaw
from raymix.laws.union_forms import DATA, FLOOR, ONE_D, ONE_SIZE, SIZE

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
        one.z_MB + other.z_MB, lambda: [*one.by_theta(), *other.by_theta()], lambda: one.by_share() + other.by_share()
    )


def level(theta_MP: Array, at: int) -> Term:
    """exp(theta[at]): a factor, or a floor that the data alone decide."""
    return Term(theta_MP[:, at, None], lambda: [(at, ONE)])


def _along(value_M1: Array, like: Array) -> Array:
    return value_M1 if like.ndim == 2 else value_M1[..., None]


class SeparableLaw(FittedLaw):
    """Base of the published families; settings below, learned values end in `_`."""

    has_floor: ClassVar[bool] = True
    """Whether there is an E below .98 min L, as N and D call for."""

    @abstractmethod
    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        """The terms of the eval domains `active_A`, one row of theta each."""

    @abstractmethod
    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        """Priors of theta in order; `log_median_M` is the level of each eval domain's loss."""

    def _slope(self, mix_BK: Array, at: Points) -> Array:
        """sum_k exp(z_k) dz_k/dr."""
        theta_MP, everyone = self.params_MP_[:, int(self.has_floor) :], np.arange(len(self.params_MP_))
        slope_MBK = np.zeros((len(theta_MP), *mix_BK.shape))
        for term in self._terms(theta_MP, at, everyone):
            slope_MBK += np.exp(term.z_MB)[..., None] * term.by_share()
        return slope_MBK

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

    def _whole_prior(self, log_median_M: Array, table: Table) -> Prior:
        """The prior over all parameters, floor first."""
        n_eval, parts = len(self.cap_M_), self._prior(log_median_M, table)
        means, sds = [], []
        for mean, sd in ([FLOOR] if self.has_floor else []) + parts:
            block = np.asarray(mean, dtype=np.float64)
            block_Mp = block if block.ndim == 2 else np.broadcast_to(block, (n_eval,))[:, None]
            means.append(block_Mp)
            sds.append(np.full(block_Mp.shape, sd))
        return Prior(np.concatenate(means, axis=1), np.concatenate(sds, axis=1))

    def _size_prior(self, log_median_M: Array) -> list[Normal]:
        """Of A and al in A n^-al: as in the union law, tight where only one size was seen."""
        level, power = SIZE if self.varies_2_[0] else ONE_SIZE
        return [(log_median_M + level[0], level[1]), power]

    def _data_prior(self, log_median_M: Array) -> list[Normal]:
        """Of B and be in B d^-be: as in the union law, tight where only one n_tokens was seen."""
        level, power = DATA if self.varies_2_[1] else ONE_D
        return [(log_median_M + level[0], level[1]), power]
