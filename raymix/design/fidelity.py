"""At which scale to train: the rung that tells most about the optimum at the target per FLOP.

Value of a trial: the fall in variance of the objective, at the target, between near-optimal mixtures (`information`).
Price: 6 N D for training (arXiv 2001.08361, section 2.1), 2 N per token evaluated. A law that has seen one size cannot
say what it would learn from another, so a larger rung is tried as soon as it costs no more than half of what was spent.
In place of a new mixture one of the best so far may go on to more tokens (`promotion`), at the price of what is added.
With one rung there is nothing to choose and nothing is computed. Other designers go by `schedule`.
"""

from collections import Counter

import numpy as np

from raymix.design.base import Array, Observations, Pending, Scale, SearchSpace
from raymix.design.evidence import usable_rows
from raymix.design.information import Question
from raymix.design.promotion import Promotion, promotions
from raymix.design.schedule import nearest_rung, rungs
from raymix.laws.rows import last_rows

NOWHERE = Scale(0.0, 0.0)
AFFORDABLE = 0.5  # part of what was spent so far that the first trial at a rung may cost


def flops(space: SearchSpace, scale: Scale) -> float:
    """Training and evaluation of one trial."""
    evaluated = space.recipe.eval_tokens * len(space.eval_domains) * space.recipe.checkpoints
    return float(2.0 * scale.n_params * (3.0 * scale.n_tokens + evaluated))


def assign(
    space: SearchSpace, question: Question, mix_BK: Array, table: Observations, pending: Pending
) -> tuple[Array, list[Scale]]:
    """A rung for each mixture in turn: one never tried, once affordable; else the most information per FLOP.

    Returns the mixtures (B, K) too: one that tells less than another's promotion is replaced by that.
    """
    ladder = rungs(space)
    usable = usable_rows(space, table)
    trained_B2 = usable.scale_B2[last_rows(usable)]
    seen = Counter([*nearest_rung(space, trained_B2), *(proposal.scale for proposal in pending)])
    spent = sum(n * flops(space, scale) for scale, n in sorted(seen.items()))
    anew = [Promotion("", mix_K, NOWHERE, scale) for mix_K in mix_BK for scale in ladder]
    options = [*anew, *promotions(space, table, pending)]
    feature_OMS = question.features(  # read at once, laws cost their overhead once
        np.array([option.mixture_K for option in options]), np.array([option.scale for option in options])
    )
    price_O = np.array([flops(space, option.scale) - flops(space, option.begun) for option in options])
    taken: list[int] = []
    for first in range(0, len(anew), len(ladder)):
        chosen = [options[o].scale for o in taken]
        new = [scale for scale in ladder[1:] if scale not in seen and scale not in chosen]
        if new and flops(space, new[0]) <= AFFORDABLE * spent:
            taken.append(first + ladder.index(new[0]))
            continue
        own, promoted = range(first, first + len(ladder)), range(len(anew), len(options))
        open_o = [o for o in (*own, *promoted) if o not in taken and options[o].scale not in new]
        best = open_o[int(np.argmax(question.gain(feature_OMS[open_o]) / price_O[open_o]))]
        question = question.after(feature_OMS[best])
        taken.append(best)
    return np.array([options[o].mixture_K for o in taken]), [options[o].scale for o in taken]
