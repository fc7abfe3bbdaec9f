"""What a confirmation trains: the proposal, and every baseline that is a mixture of its own.

Caps and priors make baselines alike: without a prior the prior mixture is the proportional one, or the uniform one. Two
names of one mixture are one run per seed, and the budget keeps no trials for the second.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from raymix import simplex
from raymix.simplex import Array
from raymix.space import SearchSpace
from raymix.space_study import Confirm
from raymix.target.recommend import baseline_mixtures

SAME = 1e-6  # of every share: mixtures no farther apart are one
_known: dict[str, int] = {}  # runs by the space as text: it holds dicts, and has no hash of Python's


def same(one_K: Array, other_K: Array) -> bool:
    """Whether two mixtures are one but for rounding."""
    return bool(np.abs(one_K - other_K).max() <= SAME)


def baselines_of(
    space: SearchSpace, names: Sequence[str], own: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, Array]:
    """The mixtures (K,) of these baselines and of the user's `own`, those that are one equal to the last digit.

    All moved inside the caps. Without those that need tokens which nobody has counted yet; with the prior, to which
    gains and guardrails are relative, where it is one of them under another name.
    """
    offered, found = baseline_mixtures(space, space.target), dict[str, Array]()
    own = own or {}
    offered |= {name: simplex.project(space.polytope(), space.mixture(shares)) for name, shares in own.items()}
    wanted = [*names, *own]
    for name in (name for name in (*wanted, "prior") if name in offered):
        alike = next((mix_K for mix_K in found.values() if same(mix_K, offered[name])), None)
        if name in wanted or alike is not None:
            found[name] = offered[name] if alike is None else alike
    return found


def arms(space: SearchSpace, wanted: Confirm) -> int:
    """How many mixtures it trains; one that cannot be told yet counts."""
    if len(wanted.baselines) == 1 and not wanted.mixtures:
        return 2
    found = baselines_of(space, wanted.baselines, wanted.mixtures)
    return 1 + distinct(found.values()) + sum(name not in found for name in wanted.baselines)


def distinct(mixtures: Iterable[Array]) -> int:
    """How many of these mixtures differ in any digit."""
    return len({mix_K.tobytes() for mix_K in mixtures})


def runs(space: SearchSpace) -> int:
    """Trials that the budget keeps for the confirmation of the space; asked at every trial, so remembered."""
    if space.confirm is None:
        return 0
    text = space.model_dump_json()
    if text not in _known:
        _known[text] = space.confirm.seeds * arms(space, space.confirm)
    return _known[text]
