"""At which scale to train: the rung that tells most about the optimum at the target per FLOP.

Value of a trial: the fall in variance of the objective, at the target, between near-optimal mixtures (`information`).
Price: 6 N D for training (arXiv 2001.08361, section 2.1), 2 N per token evaluated. A law that has seen one size cannot
say what it would learn from another, so a larger rung is tried as soon as it costs no more than half of what was spent.
With one rung there is nothing to choose and nothing is computed.

`schedule` is the fixed alternative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raymix.design.base import Proposal
from raymix.design.information import Question
from raymix.design.rows import Rows
from raymix.design.schedule import rungs
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import Scale, SearchSpace

AFFORDABLE = 0.5  # part of what was spent so far that the first trial at a rung may cost


def flops(space: SearchSpace, scale: Scale) -> float:
    """Training and evaluation of one trial."""
    evaluated = space.recipe.eval_tokens * len(space.eval_domains) * space.recipe.checkpoints
    return float(2.0 * scale.n_params * (3.0 * scale.n_tokens + evaluated))


def assign(
    space: SearchSpace,
    question: Question,
    mix_BK: Array,
    table: Observations,
    pending: Sequence[Proposal],
) -> list[Scale]:
    """A rung for each mixture in turn: one never tried, once affordable; else the most information per FLOP."""
    ladder, seen = rungs(space), Seen.of(space, table, pending)
    price_R = np.array([flops(space, scale) for scale in ladder])
    feature_BRMS = _features(question, mix_BK, ladder)
    chosen: list[Scale] = []
    for feature_RMS in feature_BRMS:
        new = [i for i, scale in enumerate(ladder[1:], 1) if not (seen.has(scale) or scale in chosen)]
        if new and price_R[new[0]] <= AFFORDABLE * seen.spent(space):
            chosen.append(ladder[new[0]])
            continue
        untold = [i for i in range(len(ladder)) if i not in new]
        best = max(untold, key=lambda i: float(question.gain(feature_RMS[i : i + 1])[0] / price_R[i]))
        chosen.append(ladder[best])
        question = question.after(feature_RMS[best])
    return chosen


def _features(question: Question, mix_BK: Array, ladder: Sequence[Scale]) -> Array:
    """What a trial of each mixture would see at each rung (B, R, M, S): read at once, a law costs its overhead once."""
    scale_R2 = np.asarray(ladder, float)
    mixes, scales = np.repeat(mix_BK, len(ladder), axis=0), np.tile(scale_R2, (len(mix_BK), 1))
    found_XMS = question.features(mixes, scales)
    return found_XMS.reshape(len(mix_BK), len(ladder), *found_XMS.shape[1:])


@dataclass(frozen=True)
class Seen:
    """Rungs of all trials so far (B, 2), pending ones too."""

    scale_B2: Array

    @classmethod
    def of(cls, space: SearchSpace, table: Observations, pending: Sequence[Proposal]) -> Seen:
        """Trials are counted at the rung nearest to what they realised."""
        last = Rows.of(table).last()
        ladder_R2 = np.asarray([rung.scale for rung in space.ladder], float)
        gap_BR = np.abs(np.log(last.scale_B2[:, None] / ladder_R2)).sum(axis=2)
        return cls(
            np.concatenate([ladder_R2[gap_BR.argmin(axis=1)], *(np.array([proposal.scale]) for proposal in pending)])
        )

    def has(self, scale: Scale) -> bool:
        """Whether any trial was at this rung."""
        return bool((self.scale_B2 == np.asarray(scale)).all(axis=1).any())

    def spent(self, space: SearchSpace) -> float:
        """FLOPs of all trials."""
        rung_R2, count_R = np.unique(self.scale_B2, axis=0, return_counts=True)
        return float(sum(n * flops(space, Scale(*row)) for row, n in zip(rung_R2.tolist(), count_R, strict=True)))
