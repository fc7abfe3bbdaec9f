"""What ends a trial, or all of them, before their last token."""

from __future__ import annotations

from typing import Any

from ray import tune

from raymix.search import MixtureSearch


class Ending(tune.Stopper):  # type: ignore[misc]
    """A trial that is clearly poor ends; all do where nothing that they report could be recorded any more."""

    def __init__(self, search: MixtureSearch) -> None:
        self._search = search

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Called at every result."""
        return self._search.poor(trial_id, result)

    def stop_all(self) -> bool:
        """Called at every turn of Tune's loop: GPUs would train on for hours, and another driver may train the same."""
        return self._search.failure is not None
