"""Laws: what the losses are as a function of mixture and scale. One entry in LAWS per family.

Read in this order: `base` (what a law is), `union` (the default), `union_forms` and `exposure` (its formula), `fitted`
(rows in, predictions out), `fit` (the solver all laws share), `intervals` (how sure a fit is), `hedged` (the default
where sizes vary), `residual` (the Gaussian process on top, `process` its parts), then `bootstrap`, `select` and `reach`
(how far to believe it). The published families are `separable` (what they share) and a file each: `exponential` (m1 to
m4, `log_linear`), `log_feature`, `effective_data`, `joint_exposure`, `chinchilla`, `bimix`, `apple`, `dcpt`, `power`
(AutoScale's; `ddo` and `autoscale` are its method); `nested` is a pipeline of step, size and mixing laws, `average`
blends any laws.
"""

from typing import Any

from raymix.laws.apple import AppleAdditive, AppleJoint
from raymix.laws.average import Average
from raymix.laws.base import Law
from raymix.laws.bimix import BiMix
from raymix.laws.bootstrap import bootstrap
from raymix.laws.chinchilla import Chinchilla
from raymix.laws.dcpt import DCPT
from raymix.laws.effective_data import EffectiveData
from raymix.laws.exponential import M1, M2, M3, M4, Implicit, LogLinear, M4Published
from raymix.laws.hedged import HedgedUnion
from raymix.laws.joint_exposure import JointExposure
from raymix.laws.log_feature import LogFeature, LogFeatureJoint
from raymix.laws.nested import Nested
from raymix.laws.power import PerDomainPower
from raymix.laws.residual import ResidualGP
from raymix.laws.select import cross_validate, rank_correlation
from raymix.laws.union import TiedUnion

FAMILIES: tuple[type[Law], ...] = (
    *(TiedUnion, HedgedUnion, ResidualGP, Average),
    *(M1, M2, M3, M4, M4Published, Implicit, LogLinear, LogFeature, EffectiveData),  # one scale
    *(LogFeatureJoint, JointExposure, BiMix, AppleAdditive, AppleJoint, DCPT, Chinchilla, PerDomainPower, Nested),
)
LAWS: dict[str, type[Law]] = {law.name: law for law in FAMILIES}


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
    "DCPT", "FAMILIES", "LAWS", "M1", "M2", "M3", "M4", "AppleAdditive", "AppleJoint", "Average", "BiMix", "Chinchilla",
    "EffectiveData", "HedgedUnion", "Implicit", "JointExposure", "Law", "LogFeature", "LogFeatureJoint", "LogLinear",
    "M4Published", "ResidualGP", "TiedUnion", "bootstrap", "cross_validate", "law_from_json", "make_law",
    "rank_correlation",
]  # fmt: skip
