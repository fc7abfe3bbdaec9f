"""Whom the benchmark of searchers compares: designers of the registry, each asked as suits it best.

Sequential methods of Optuna are asked for one trial at a time, which favours them; the others for rounds of 8. A
method that chooses scales itself gets the whole ladder; the others are run at one rung, the cheapest and the one above
it, and the better of the two counts (see `search_scores`). `gp` and `gp_prior` stop at 64 trials: a fit of Optuna's
process takes seconds by then. `regmix` is asked for its answer three times only (four beyond 128): each scores
100,000 mixtures with 1000 trees per eval domain.
"""

from dataclasses import dataclass

from benchmarks.worlds.base import World

PER_ROUND = 8


@dataclass(frozen=True)
class Method:
    """A designer of the registry, and how it is asked."""

    name: str
    designer: str
    batch: int = PER_ROUND
    most: float = float("inf")
    """Largest budget it is run to."""
    asked: tuple[int, ...] = ()
    """Budgets at which it is asked for its answer; all if empty."""
    ladder: bool = False
    """Whether it chooses scales itself."""
    fixed: bool = False
    """Whether it is a mixture without a search."""
    quick: bool = False
    """Whether `--quick` runs it."""
    single: bool = False
    """Whether it is played on the worlds of a single loss each."""


DEFAULT = "law"
METHODS = (
    Method(DEFAULT, "law", ladder=True, quick=True, single=True),
    Method("space_filling", "space_filling"),
    Method("halving", "halving"),
    Method("ddo", "ddo"),
    Method("d_optimal", "d_optimal"),
    Method("i_optimal", "i_optimal"),
    Method("random", "random", quick=True),
    Method("regmix", "regmix", asked=(32, 64, 128, 192), quick=True),
    Method("olmix", "olmix", quick=True),
    Method("climb", "climb"),
    Method("tpe", "tpe", batch=1, quick=True),
    Method("cmaes", "cmaes", batch=1, quick=True),
    Method("gp", "gp", batch=1, most=64, single=True),
    Method("gp_prior", "gp_prior", batch=1, most=64, single=True),
    Method("uniform", "uniform", fixed=True, quick=True),
    Method("proportional", "proportional", fixed=True),
    Method("temperature", "temperature", fixed=True),
    Method("unimax", "unimax", fixed=True),
)
PEERS = ("tpe", "cmaes", "gp", "gp_prior", "regmix", "olmix")  # of whom the default is to need a quarter of the trials


def rungs_of(method: Method, world: World) -> list[int | None]:
    """On which rungs a method searches a world: None is the ladder as it is."""
    if not world.scale_aware or method.fixed:
        return [None]
    single: list[int | None] = [0, 1]  # the third rung affords too few trials: 4 of a budget of 64
    return [None, *single] if method.ladder else single
