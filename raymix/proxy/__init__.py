"""Shards and a mixture to losses: recipe, exact mixture plan, model, training, evaluation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from raymix.proxy.environment import WORKER_ENV
from raymix.proxy.plan import Batches
from raymix.proxy.recipe import resolve
from raymix.proxy.shape import ProxyShape

if TYPE_CHECKING:
    from raymix.proxy.checkpoint import Checkpoints, Interrupted
    from raymix.proxy.loop import Diverged
    from raymix.proxy.stack_training import train_stacked
    from raymix.proxy.timing import seconds_per_step
    from raymix.proxy.train import train_proxy

_LOADS_TORCH = {
    "Checkpoints": "raymix.proxy.checkpoint",
    "Diverged": "raymix.proxy.loop",
    "Interrupted": "raymix.proxy.checkpoint",
    "seconds_per_step": "raymix.proxy.timing",
    "train_proxy": "raymix.proxy.train",
    "train_stacked": "raymix.proxy.stack_training",
}

__all__ = [
    "WORKER_ENV",
    "Batches",
    "Checkpoints",
    "Diverged",
    "Interrupted",
    "ProxyShape",
    "resolve",
    "seconds_per_step",
    "train_proxy",
    "train_stacked",
]


def __getattr__(name: str) -> Any:
    if name in _LOADS_TORCH:
        return getattr(import_module(_LOADS_TORCH[name]), name)
    raise AttributeError(f"module 'raymix.proxy' has no attribute {name!r}")
