"""Simulated GPU slots: how long their trials take, what they report, and the order in which they end."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from raymix.study.ledger import Ledger
from raymix.study.trial import Trial

DOMAINS = tuple(f"domain{k}" for k in range(5))
IDLE_SECONDS = 0.02  # the longest Tune's loop is held when nothing happens


class Workers:
    """Simulated slots under Tune's real controller."""

    def __init__(self, slots: int, seconds: float, jitter: float, ledger: Ledger) -> None:
        self.slots, self.seconds, self.ledger = slots, seconds, ledger
        self.first_start = self.last_end = 0.0
        self.durations: list[float] = []
        self._jitter = jitter
        self._rng = np.random.default_rng(0)

    def duration(self) -> float:
        """How long the next trial takes: uniform within the jitter."""
        value = self.seconds * float(self._rng.uniform(1 - self._jitter, 1 + self._jitter))
        self.durations.append(value)
        return value

    def losses(self, trial: Trial, fraction: float) -> dict[str, Any]:
        """A row at a fraction of the trial's tokens."""
        mix_K = np.asarray([trial.mixture[name] for name in DOMAINS])
        loss_M = 2.0 + (mix_K + 0.05) ** -0.2 * (0.5 + 0.5 / fraction**0.1)
        row = {f"loss/{name}": float(loss) for name, loss in zip(DOMAINS, loss_M, strict=True)}
        return row | {"n_tokens": trial.n_tokens * fraction}


class Timer:
    """Things to happen later, in order of time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do it then."""
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, action))

    def due(self, patience: float) -> bool:
        """Wait for the next action, at most `patience` seconds, and do it; whether there was one."""
        left = (self._heap[0][0] - time.monotonic()) if self._heap else patience
        if left > 0:
            time.sleep(min(left, patience))
        if not self._heap or self._heap[0][0] > time.monotonic():
            return False
        heapq.heappop(self._heap)[2]()
        return True
