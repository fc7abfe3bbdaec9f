"""What a designer is: a function from what is known to what to try next.

A designer has no hidden state. Same table, same pending trials, same generator: same answer. The host may
rebuild it at any time, so a restart is: read the table again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from raymix.observations import Observations as Observations
from raymix.simplex import Array as Array
from raymix.space import Scale as Scale
from raymix.space import SearchSpace as SearchSpace


@dataclass(frozen=True)
class Proposal:
    """A trial to run: a mixture (K,) trained at a scale with a seed."""

    mixture_K: Array
    scale: Scale
    seed: int
    trial_id: str = ""
    """Of a trial that was begun, whose checkpoints may be in the table."""


Pending = Sequence[Proposal]  # what is proposed and not finished
Rng = np.random.Generator


class Designer(Protocol):
    """Proposes trials. One instance serves one space; it may be called from any process at any time."""

    @property
    def space(self) -> SearchSpace:
        """What it proposes for."""

    def suggest(self, table: Observations, pending: Pending, n: int, rng: Rng) -> list[Proposal]:
        """n proposals inside the polytope, different from those pending.

        `table` holds every observation so far, failed ones too; `pending` what is proposed and not finished.
        All randomness comes from `rng`.
        """


@runtime_checkable
class Recommender(Protocol):
    """A designer that can also answer: the mixture it would use at the target, from what is known."""

    def recommend(self, table: Observations) -> Array:
        """A mixture (K,) inside the polytope; the prior moved into it where nothing is known."""
