"""`MixtureSearch`: the Ray Tune searcher. Tune's trial ids and flat results on one side, the ledger on the other.

Use it in any `tune.Tuner`: the config of a trial holds `mixture` ({domain: share}), `n_params`, `n_tokens`, `seed`
and `trial_id`; the trainable reports `loss/<eval domain>` (nats per token) and `n_tokens`, as often as it likes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from raymix.design import Designer
from raymix.ledger import Ledger, Trial
from raymix.space import SearchSpace
from raymix.store import StoreError

log = logging.getLogger(__name__)


class MixtureSearch(Searcher):  # type: ignore[misc]
    """Proposes mixtures from the law fitted to finished trials.

    Args:
        space: the search space; its `budget.trials` ends the search.
        designer: another way to propose; the default is `LawGuided`.
        seed: all randomness of the proposals.
        rounds: propose `budget.per_round` trials together and wait for all of them before the next round, so that
            the proposals depend on nothing but the results. Without rounds a new trial is proposed whenever Tune
            has room, knowing of those pending.
    """

    def __init__(
        self,
        space: SearchSpace | None = None,
        designer: Designer | None = None,
        seed: int = 0,
        rounds: bool = False,
        ledger: Ledger | None = None,
        on_change: Callable[[str, Trial | None], None] | None = None,
    ) -> None:
        super().__init__()  # no metric: the objective is over all eval domains, and a trial may fail without any
        if ledger is None:
            if space is None:
                raise ValueError("MixtureSearch needs a space (or a ledger that has one)")
            ledger = Ledger(space, seed=seed, designer=designer)
        self.ledger = ledger
        self.rounds = rounds
        self.failure: StoreError | None = None
        """Set when the records could not be written; the search then ends, and `Study` raises it."""
        self._queue: deque[Trial] = deque(ledger.pending())
        self._running: dict[str, Trial] = {}
        self._on_change = on_change or _ignore

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config; None while a round is not complete; FINISHED when the budget is spent."""
        try:
            if not self._queue:
                left = self.ledger.space.budget.trials - len(self.ledger.trials)
                if left <= 0 or self.failure:
                    return str(Searcher.FINISHED)
                if self.rounds and self._running:
                    return None
                self._queue.extend(self.ledger.ask(min(left, self.ledger.space.budget.per_round if self.rounds else 1)))
                self._on_change("round", None)
        except StoreError as error:
            return self._give_up(error)
        trial = self._queue.popleft()
        self._running[trial_id] = trial
        self._on_change("started", trial)
        return trial.to_json()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A checkpoint: a row."""
        trial = self._running.get(trial_id)
        if trial is not None and not result.get("done") and "status" not in result:
            result = {**result, "status": "checkpoint"}
        if trial is not None and result.get("status") == "checkpoint":
            self._observe(trial, result)
            self._on_change("checkpoint", trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a trial: a row, whatever happened."""
        trial = self._running.pop(trial_id, None)
        if trial is None:
            log.warning("trial %s is not one of this search's: ignored", trial_id)
            return
        if error or result is None:
            self._fail(trial, "the worker died or raised; see Ray's logs of this trial")
        elif result.get("status") == "failed":
            self._fail(trial, str(result.get("reason") or "no reason given"))
        else:
            self._observe(trial, {**result, "status": "done"})
        self._on_change("ended", trial)

    def _observe(self, trial: Trial, result: dict[str, Any]) -> None:
        try:
            self.ledger.observe(trial.trial_id, result)
        except StoreError as error:
            self._give_up(error)
        except ValueError as error:  # a metric is missing: this trial's fault, and not the search's end
            self._fail(trial, str(error))

    def _fail(self, trial: Trial, reason: str) -> None:
        try:
            self.ledger.fail(trial.trial_id, reason)
        except StoreError as error:
            self._give_up(error)

    def _give_up(self, error: StoreError) -> str:
        log.error("%s", error)
        self.failure = error
        self._queue.clear()
        return str(Searcher.FINISHED)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into its own cache; what watches us (a terminal, say) stays behind."""
        return {**self.__dict__, "_on_change": _ignore}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger's records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: build a new one from the study directory."""


def _ignore(event: str, trial: Trial | None) -> None:
    """Nobody is watching."""
