"""What a law says of runs that were not trained yet: read with the unique tokens that they could draw from."""

import numpy as np

from raymix.design.base import Array, SearchSpace
from raymix.laws import Law
from raymix.laws.repetition import stocked


def unique_at(space: SearchSpace, scale_B2: Array) -> Array:
    """Unique tokens per domain (B, K) at these scales; infinite where not known.

    With simulated epochs a shorter run has as many times fewer than the target as it is shorter (raymix/proxy/plan.py).
    """
    part_B = np.minimum(scale_B2[:, 1] / space.target.n_tokens, 1.0)
    return np.asarray(space.available_K * (part_B if space.recipe.simulated_epochs else np.ones_like(part_B))[:, None])


def losses(space: SearchSpace, law: Law, mix_BK: Array, scale_B2: Array) -> Array:
    """Predicted losses (B, M); a law that was told no unique tokens counts no repeats."""
    alike = len(scale_B2) > 0 and bool((scale_B2 == scale_B2[0]).all())  # then a law reads its level once
    unique = unique_at(space, scale_B2[:1])[0] if alike else unique_at(space, scale_B2)
    return stocked(law, unique).predict(mix_BK, scale_B2)
