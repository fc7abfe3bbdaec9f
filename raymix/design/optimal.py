"""Optimal designs for the default law: the trials that tell most about it (D), or about its optimum at the target (I).

From the law fitted so far, trial by trial: D maximises the information about its parameters, log det(1 + A V A'); I the
fall in variance of the objective between near-optimal mixtures at the target (Atkinson, Donev and Tobias 2007, sections
10.1 and 10.6). A law that is not linear has no design until it has data: the first round fills space. What is known of
it is that of the default (`learned`), whose fits it shares.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from raymix.design.base import Array, Observations, Pending, Proposal, Rng, SearchSpace
from raymix.design.evidence import prior_inside
from raymix.design.learned import learn
from raymix.design.schedule import numbered, scale_of
from raymix.design.space_filling import SpaceFilling, candidates, n_trials

N_CANDIDATES = 128  # of each kind


@dataclass(frozen=True)
class Optimal:
    """D- or I-optimal additions; the answer is the law's optimum at the target."""

    space: SearchSpace
    criterion: Literal["D", "I"] = "I"

    def suggest(self, table: Observations, pending: Pending, n: int, rng: Rng) -> list[Proposal]:
        known = learn(self.space, table)
        if known is None:
            return SpaceFilling(self.space).suggest(table, pending, n, rng)
        start = n_trials(table, pending)
        scales = [scale_of(self.space, start + i) for i in range(n)]
        mix_BK = candidates(self.space.polytope(), prior_inside(self.space), rng, N_CANDIDATES)
        question = known[0].question
        for proposal in pending:
            question = question.after(question.features(proposal.mixture_K[None], np.array([proposal.scale]))[0])
        chosen = []
        for scale in scales:
            feature_BMS = question.features(mix_BK, np.tile(scale, (len(mix_BK), 1)))
            gain_B = question.gain(feature_BMS) if self.criterion == "I" else question.entropy(feature_BMS)
            best = int(np.argmax(gain_B))
            chosen.append(mix_BK[best])
            question = question.after(feature_BMS[best])
        return numbered(self.space, chosen, scales, table, pending)

    def recommend(self, table: Observations) -> Array:
        known = learn(self.space, table)
        return prior_inside(self.space) if known is None else known[0].optimum_K
