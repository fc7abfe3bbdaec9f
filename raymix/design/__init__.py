"""Designers: what to try next, from what is known. One entry in DESIGNERS per way.

Read `base` (what a designer is), `law_guided` (the default) and what it uses: `belief` (the law and the process on its
residuals), `information` and `fidelity` (what a trial would tell, and at which scale). `space_filling`, `halving`,
`ddo` and `optimal` are designs; `regmix`, `olmix`, `climb` and `model_free` are others' methods with answers of their
own; `fixed` are mixtures without a search.
"""

from collections.abc import Callable
from functools import partial

from raymix.design.base import Designer, Proposal, Recommender
from raymix.design.climb import Climb
from raymix.design.ddo import Perturbations
from raymix.design.fixed import Fixed
from raymix.design.halving import Halving
from raymix.design.law_guided import LawGuided
from raymix.design.model_free import ModelFree
from raymix.design.olmix import Olmix
from raymix.design.optimal import Optimal
from raymix.design.random_dirichlet import RandomDirichlet
from raymix.design.regmix import RegMix
from raymix.design.schedule import cost, rungs, scale_of
from raymix.design.space_filling import SpaceFilling
from raymix.space import SearchSpace

DESIGNERS: dict[str, Callable[[SearchSpace], Designer]] = {
    "law": LawGuided,
    "space_filling": SpaceFilling,
    "halving": Halving,
    "ddo": Perturbations,
    "d_optimal": partial(Optimal, criterion="D"),
    "i_optimal": partial(Optimal, criterion="I"),
    "random": RandomDirichlet,
    "regmix": RegMix,
    "olmix": Olmix,
    "climb": Climb,
    "tpe": partial(ModelFree, sampler="tpe"),
    "cmaes": partial(ModelFree, sampler="cmaes"),
    "gp": partial(ModelFree, sampler="gp"),
    "gp_prior": partial(ModelFree, sampler="gp", near_prior=True),
    "prior": partial(Fixed, name="prior"),
    "uniform": partial(Fixed, name="uniform"),
    "proportional": partial(Fixed, name="proportional"),
    "temperature": partial(Fixed, name="temperature 2"),
    "unimax": partial(Fixed, name="unimax"),
}


def make_designer(name: str, space: SearchSpace) -> Designer:
    """The designer `name` for a space; ValueError for an unknown one."""
    if name not in DESIGNERS:
        raise ValueError(f"unknown designer {name!r}; known: {', '.join(DESIGNERS)}")
    return DESIGNERS[name](space)


__all__ = [
    "DESIGNERS", "Climb", "Designer", "Fixed", "Halving", "LawGuided", "ModelFree", "Olmix", "Optimal",
    "Perturbations", "Proposal", "RandomDirichlet", "Recommender", "RegMix", "SpaceFilling", "cost", "make_designer",
    "rungs", "scale_of",
]  # fmt: skip
