"""Mixtures that nobody searched for: prior, uniform, proportional, temperature 2, UniMax.

Each proposes its one mixture again and again under new seeds and recommends it. What they are is defined once, in
`target.recommend.baseline_mixtures`; where a size is unknown, proportional, temperature and UniMax are the prior.
"""

from dataclasses import dataclass

from raymix.design.base import Array, Observations, Pending, Proposal, Rng, SearchSpace
from raymix.design.schedule import numbered, rungs
from raymix.target.recommend import baseline_mixtures


@dataclass(frozen=True)
class Fixed:
    """One mixture: `prior`, `uniform`, `proportional`, `temperature 2` or `unimax`."""

    space: SearchSpace
    name: str = "prior"

    def suggest(self, table: Observations, pending: Pending, n: int, rng: Rng) -> list[Proposal]:
        return numbered(self.space, [self.recommend(table)] * n, [rungs(self.space)[0]] * n, table, pending)

    def recommend(self, table: Observations) -> Array:
        found = baseline_mixtures(self.space, self.space.target)
        return found.get(self.name, found["prior"])
