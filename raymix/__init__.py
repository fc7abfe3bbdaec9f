"""raymix: decide what to pre-train on.

A mixture goes in, a proxy is trained, losses come out, a law is fitted, a better mixture is proposed, and in
the end the law is read at the target scale. Importing this loads neither torch nor ray: those come with the
first name that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "MixtureSearch": "raymix.search",
    "Observations": "raymix.observations",
    "Recommendation": "raymix.target.recommend",
    "SearchSpace": "raymix.space",
    "Study": "raymix.study",
}
__all__ = ["MixtureSearch", "Observations", "Recommendation", "SearchSpace", "Study", "__version__", "laws"]

if TYPE_CHECKING:
    from raymix import laws
    from raymix.observations import Observations
    from raymix.search import MixtureSearch
    from raymix.space import SearchSpace
    from raymix.study import Study
    from raymix.target.recommend import Recommendation


def __getattr__(name: str) -> Any:
    if name == "laws":
        return import_module("raymix.laws")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'raymix' has no attribute {name!r}")
