"""What ends a trial, or all of them, before their last token."""

from __future__ import annotations

import logging
import time
from typing import Any

from ray import tune

from raymix.search import MixtureSearch
from raymix.store import StoreError
from raymix.study.confirm import beside_the_budget
from raymix.study.ledger import Ledger

log = logging.getLogger(__name__)

HOUR = 3600.0
GRACE = 0.1  # of budget.hours: time for trials under way to end


def out_of_hours(ledger: Ledger, hours: float, command: str) -> str | None:
    """What is said where the budget's hours are long over and trials of it have not ended; else None."""
    limit = ledger.space.budget.hours
    if limit is None or hours <= (1 + GRACE) * limit:
        return None
    asked_for = beside_the_budget(ledger)
    pending = [trial.trial_id in asked_for for trial in ledger.pending()]
    if all(pending):
        return None
    return (
        f"budget.hours: {hours:.3g} of {limit:.3g} are over and trials have not ended ({pending.count(False)}): they "
        f"wait in the study, and go on from their checkpoints with more hours: {command} --set budget.hours=N"
    )


class Ending(tune.Stopper):  # type: ignore[misc]
    """A trial that is clearly poor ends; all do where nothing that they report could be recorded any more, and where
    the budget's hours are long over: they may wait for a node that never comes, or take longer than was thought.
    """

    def __init__(self, search: MixtureSearch, command: str) -> None:
        self._search = search
        self._command = command
        self._began = time.monotonic() - HOUR * search.ledger.hours
        self._over = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Called at every result."""
        return self._search.poor(trial_id, result)

    def stop_all(self) -> bool:
        """Called at every turn of Tune's loop: GPUs would train on for hours, and another driver may train the same."""
        ledger, hours = self._search.ledger, (time.monotonic() - self._began) / HOUR
        if not self._over and (why := out_of_hours(ledger, hours, self._command)):
            self._over = True
            log.warning("%s", why)
            try:
                ledger.note("hours", {"hours": hours})  # or the same command would go on as long again
            except StoreError as error:
                self._search.give_up(error)
        return self._over or self._search.failure is not None
