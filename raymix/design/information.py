"""What a trial would tell about the optimum at the target, before it is run.

S draws of a law's parameters span a small linear model: with z ~ N(0, 1) of S numbers, a prediction is its mean plus
a.z, where a holds the draws' deviations from the mean over sqrt(S - 1). In it the effect of a trial on what is known
is a rank-one update (Rasmussen and Williams 2006, eq. 2.8), whatever the law, mixture or scale:

    what the trial would see    log L_i(mixture, scale) = a_i.z + noise sig_i
    what is asked for           the objective at the target, of near-optimal mixtures relative to their mean

Letters: B trials that could be run, Q near-optimal mixtures, M eval domains, S draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from raymix.design.base import Array, SearchSpace
from raymix.design.stock import losses
from raymix.laws import Law
from raymix.target.objective import objective_values


@dataclass(frozen=True)
class Question:
    """Contrasts of the objective between near-optimal mixtures, and what is known of them so far."""

    space: SearchSpace
    laws: Sequence[Law]
    noise_M: Array
    """sd of log loss of a run about the law."""
    asked_QS: Array
    """Deviations of the contrasts in the draws."""
    known_SS: Array
    """Posterior covariance of z given the trials chosen so far."""

    @classmethod
    def of(cls, space: SearchSpace, laws: Sequence[Law], near_QK: Array, noise_M: Array) -> "Question":
        """Which of `near_QK` is best at the target?"""
        target_Q2 = np.tile(np.asarray(space.target.scale, float), (len(near_QK), 1))
        loss_SQM = np.stack([losses(space, law, near_QK, target_Q2) for law in laws])
        value_SQ = objective_values(space, loss_SQM)
        contrast_SQ = value_SQ - value_SQ.mean(axis=1, keepdims=True)
        return cls(space, laws, noise_M, _deviations(contrast_SQ), np.eye(len(laws)))

    @property
    def variance(self) -> float:
        """Mean variance of the contrasts, in nats squared."""
        return float(np.einsum("qs,st,qt->", self.asked_QS, self.known_SS, self.asked_QS) / len(self.asked_QS))

    def features(self, mix_BK: Array, scale_B2: Array) -> Array:
        """What trials would see: deviations (B, M, S) of log losses in units of their noise."""
        log_SBM = np.log(np.stack([losses(self.space, law, mix_BK, scale_B2) for law in self.laws]))
        return _deviations(log_SBM) / self.noise_M[:, None]

    def gain(self, feature_BMS: Array) -> Array:
        """By how much each trial would lower `variance` (B,), eval domains taken together."""
        half_BMS = feature_BMS @ self.known_SS
        inner_BMM = half_BMS @ feature_BMS.transpose(0, 2, 1) + np.eye(feature_BMS.shape[1])
        across_BMQ = half_BMS @ self.asked_QS.T
        solved_BMQ = np.linalg.solve(inner_BMM, across_BMQ)
        return np.asarray((across_BMQ * solved_BMQ).sum(axis=(1, 2)) / len(self.asked_QS))

    def entropy(self, feature_BMS: Array) -> Array:
        """Information in nats (B,) that each trial would give about the law itself (D-optimality)."""
        inner_BMM = feature_BMS @ self.known_SS @ feature_BMS.transpose(0, 2, 1) + np.eye(feature_BMS.shape[1])
        return np.asarray(0.5 * np.linalg.slogdet(inner_BMM)[1])

    def after(self, feature_MS: Array) -> "Question":
        """The question once a trial was run: its mean outcome is not needed, its precision is."""
        half_MS = feature_MS @ self.known_SS
        inner_MM = half_MS @ feature_MS.T + np.eye(len(feature_MS))
        return replace(self, known_SS=self.known_SS - half_MS.T @ np.linalg.solve(inner_MM, half_MS))


def _deviations(draws_Sx: Array) -> Array:
    """(x, S): centred draws over sqrt(S - 1)."""
    centred = (draws_Sx - draws_Sx.mean(axis=0)) / np.sqrt(max(len(draws_Sx) - 1, 1))
    return np.asarray(np.moveaxis(centred, 0, -1))
