"""What ends a trial, or all of them, before their last token."""

import logging
import time
from typing import Any

from ray import tune

from raymix.search import MixtureSearch
from raymix.store import StoreError
from raymix.study.agenda import out_of_hours

log = logging.getLogger(__name__)

HOUR = 3600.0


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
