"""What ends a trial, or all of them, before their last token."""

from __future__ import annotations

import logging
import time
from typing import Any

from ray import tune

from raymix.search import MixtureSearch
from raymix.study.confirm import beside_the_budget

log = logging.getLogger(__name__)

HOUR = 3600.0
GRACE = 0.1  # of budget.hours: time for trials under way to end


class Ending(tune.Stopper):  # type: ignore[misc]
    """A trial that is clearly poor ends; all do where nothing that they report could be recorded any more, and where
    the budget's hours are long over: they may wait for a node that never comes, or take longer than was thought.
    """

    def __init__(self, search: MixtureSearch) -> None:
        self._search = search
        self._began = time.monotonic() - HOUR * search.ledger.hours
        self._over = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Called at every result."""
        return self._search.poor(trial_id, result)

    def stop_all(self) -> bool:
        """Called at every turn of Tune's loop: GPUs would train on for hours, and another driver may train the same."""
        ledger = self._search.ledger
        limit = ledger.space.budget.hours
        hours = (time.monotonic() - self._began) / HOUR
        if not self._over and limit is not None and hours > (1 + GRACE) * limit:
            asked_for = beside_the_budget(ledger)
            n = sum(trial.trial_id not in asked_for for trial in ledger.pending())
            self._over = n > 0
            if self._over:
                log.warning("budget.hours: %.3g of %.3g are over and trials have not ended (%d): they wait in the "
                            "study, and go on from their checkpoints with more hours", hours, limit, n)  # fmt: skip
        return self._over or self._search.failure is not None
