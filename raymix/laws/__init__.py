"""Laws: what the losses are as a function of mixture and scale. One entry in LAWS per family.

Read in this order: `base` (what a law is), `union` (the default), `union_forms` and `exposure` (its
formula), `fit` (the solver all laws share), `residual` (the Gaussian process on top), then `bootstrap`
and `select` (how far to believe it).
"""

from typing import Any

from raymix.laws.base import Law
from raymix.laws.bootstrap import bootstrap, draws
from raymix.laws.residual import ResidualGP
from raymix.laws.select import CVResult, cross_validate, cross_validate_sizes, noise_level, rank_correlation
from raymix.laws.union import TiedUnion

LAWS: dict[str, type[Law]] = {law.name: law for law in (TiedUnion, ResidualGP)}


def make_law(name: str, **settings: Any) -> Law:
    """A fresh law of the family `name`."""
    return _family(name)(**settings)


def law_from_json(data: dict[str, Any]) -> Law:
    """The fitted law that `law.to_json()` described."""
    if "law" not in data:
        raise ValueError("this JSON describes no law: the key 'law' is missing")
    return _family(data["law"]).from_json(data)


def _family(name: str) -> type[Law]:
    if name not in LAWS:
        raise ValueError(f"unknown law {name!r}; known: {', '.join(sorted(LAWS))}")
    return LAWS[name]


__all__ = [
    "LAWS",
    "CVResult",
    "Law",
    "ResidualGP",
    "TiedUnion",
    "bootstrap",
    "cross_validate",
    "cross_validate_sizes",
    "draws",
    "law_from_json",
    "make_law",
    "noise_level",
    "rank_correlation",
]
