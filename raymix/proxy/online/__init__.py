"""Mixtures chosen while one proxy trains: published baselines that answer with a mixture.

All share one loop (`session.py`): a method says the shares of the next step, sees what the step did, and in the end
the mean of its shares over the run is its answer. One run, or two, in place of a study; no law, no target, no
interval: that is what they are compared for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raymix.proxy.online.session import Answer

METHODS = {name: f"raymix.proxy.online.{name}" for name in ("doremi", "doge", "ado", "aioli")}

__all__ = ["METHODS", "choose_online"]


def choose_online(method: str, corpus: Any, space: Any, n_params: float, n_tokens: float, seed: int = 0) -> Answer:
    """The mixture that `method` (doremi, doge, ado, aioli) ends with, and its path.

    Args:
        method: a key of `METHODS`.
        corpus: the tokens, from `raymix.corpus.prepare`.
        space: domains, prior and recipe; eval domains and objective are not looked at.
        n_params: size of the proxy.
        n_tokens: length of its run.
        seed: of weights and data.

    Raises:
        ValueError: no such method.
        Diverged: the proxy's loss is not finite, or worse than guessing.
    """
    if method not in METHODS:
        raise ValueError(f"no online method {method!r}; there are {', '.join(METHODS)}")
    answer: Answer = import_module(METHODS[method]).choose(corpus, space, n_params, n_tokens, seed)
    return answer
