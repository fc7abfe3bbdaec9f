"""The default: the law with a process on its residuals, asked where its optimum at the target could lie.

1. The first round fills space (`space_filling`) on the smallest rung, corners and mixtures in turn; the
   first two where there are as many domains as trials in two.
2. Then most proposals are Thompson draws: of a law and a process drawn from what is believed (`belief`) the best
   candidate at the target is trained next. Draws differ where trials would change the optimum, and nowhere else.
   Every second one answers with the best that is unlike all trained so far: draws that agree on a corner would train
   it over and over (top-two sampling, Russo 2016, arXiv 1602.08448, with a distance in place of a second name).
3. Every eighth proposal is a design point for the law: what tells most about the optimum (`information`).
4. The scale of each is chosen by what it tells per FLOP (`fidelity`); a good mixture may go on to more tokens in its
   place (`promotion`).

The answer is that of a study (`target.answer`), from every trial of the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raymix import simplex
from raymix.design import fidelity
from raymix.design.base import Array, Observations, Pending, Proposal, Rng, SearchSpace
from raymix.design.belief import Belief
from raymix.design.evidence import prior_inside
from raymix.design.learned import Learned, learn
from raymix.design.schedule import numbered
from raymix.design.space_filling import SpaceFilling, n_trials
from raymix.target.recommend import NotEnoughTrialsError, mixture_for

DESIGN_EVERY = 8
FILLING_ROUNDS = 2  # at most
UNLIKE = 0.15  # Hellinger distance: 4.5% of the tokens moved away from a corner, 15% from even shares of 17 to one


@dataclass(frozen=True)
class LawGuided:
    """Law and residual process, batches of Thompson draws, scale by information per FLOP."""

    space: SearchSpace

    def suggest(self, table: Observations, pending: Pending, n: int, rng: Rng) -> list[Proposal]:
        known = learn(self.space, table)
        start = n_trials(table, pending)
        if known is None or start < filling(self.space):
            return SpaceFilling(self.space, smallest=True).suggest(table, pending, n, rng)
        learned, belief = known
        belief = belief.with_pending(*_as_matrices(pending, len(self.space.domains)))
        mix_BK = thompson(learned, belief, [(start + i) % 2 == 0 for i in range(n)], rng)
        design = [i for i in range(n) if (start + i) % DESIGN_EVERY == DESIGN_EVERY - 1]
        choosing = len(self.space.ladder) > 1
        if design or choosing:
            question = learned.question
            for feature_MS in question.features(*_as_matrices(pending, len(self.space.domains))):
                question = question.after(feature_MS)
            for i in design:
                best = int(np.argmax(question.gain(learned.design_BMS)))
                mix_BK[i], question = learned.design_BK[best], question.after(learned.design_BMS[best])
        if choosing:
            mix_BK, scales = fidelity.assign(self.space, question, mix_BK, table, pending)
        else:
            scales = [self.space.ladder[0].scale] * n
        return numbered(self.space, mix_BK, scales, table, pending)

    def recommend(self, table: Observations) -> Array:
        try:
            return mixture_for(self.space, table)
        except NotEnoughTrialsError:
            return prior_inside(self.space)


def filling(space: SearchSpace) -> int:
    """How many trials fill space first: as many rounds as hold no more trials than there are domains."""
    per_round = space.budget.per_round
    return per_round * min(max(len(space.domains) // per_round, 1), FILLING_ROUNDS)


def thompson(learned: Learned, belief: Belief, unlike_S: Sequence[bool], rng: Rng) -> Array:
    """The best candidate of each draw (S, K), no candidate twice where there are enough.

    Where `unlike_S` says so, the best of those UNLIKE all trained, pending or chosen before, if there are any.
    """
    mix_BK, seen_RK = learned.candidates_BK, belief.sites.mix_RK
    draw_SB = belief.draws(mix_BK, len(unlike_S), rng)
    free_B = np.ones(len(mix_BK), dtype=bool)
    unlike_B = (simplex.hellinger(mix_BK, seen_RK) >= UNLIKE).all(axis=1)
    chosen: list[int] = []
    for value_B, unlike in zip(draw_SB, unlike_S, strict=True):
        allowed_B = free_B & unlike_B if unlike and (free_B & unlike_B).any() else free_B
        best = int(np.argmin(np.where(allowed_B, value_B, np.inf) if allowed_B.any() else value_B))
        free_B[best] = False
        unlike_B &= simplex.hellinger(mix_BK, mix_BK[[best]])[:, 0] >= UNLIKE
        chosen.append(best)
    return np.array(mix_BK[chosen])


def _as_matrices(pending: Pending, n_domains: int) -> tuple[Array, Array]:
    """Mixtures (B, K) and scales (B, 2) of proposals."""
    mix_BK = np.array([proposal.mixture_K for proposal in pending], float).reshape(-1, n_domains)
    return mix_BK, np.array([proposal.scale for proposal in pending], float).reshape(-1, 2)
