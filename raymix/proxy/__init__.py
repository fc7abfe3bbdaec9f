"""Shards and a mixture to losses: recipe, exact mixture plan, model, training, evaluation.

What is named here does without torch; what trains is imported from its own module.
"""

from raymix.proxy.environment import WORKER_ENV
from raymix.proxy.plan import Batches
from raymix.proxy.recipe import resolve
from raymix.proxy.shape import ProxyShape

__all__ = ["WORKER_ENV", "Batches", "ProxyShape", "resolve"]
