"""`MixtureSearch`: the Ray Tune searcher. Tune's trial ids and flat results on one side, the ledger on the other.

Use it in any `tune.Tuner`: the config of a trial holds `mixture` ({domain: share}), `n_params`, `n_tokens`, `seed`
and `trial_id` (and `continues`, the trial of the same mixture, size and seed that it goes on from, where it does); the
trainable reports `loss/<eval domain>` (nats per token) and `n_tokens`, as often as it likes.
A trial that a scheduler stops (ASHA, say) is a row `stopped`, and its checkpoints count. `tune.Tuner.restore` goes on
with all that was known; where a study's directory knows it, the script that began it goes on when it is run again.
"""

import json
import logging
import math
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from raymix.design import Designer
from raymix.space import SearchSpace
from raymix.store import StoreError
from raymix.study.agenda import Thought, act, more, next_trials, search_over, thinking
from raymix.study.deaths import Deaths
from raymix.study.evidence import take_evidence
from raymix.study.ledger import Ledger
from raymix.study.reported import NO_TOKENS, REPEATED, STOPPED, falls_short
from raymix.study.row import ON_THE_WAY
from raymix.study.stacks import Sizes, Stack, stacks_of
from raymix.study.stopping import clearly_poor
from raymix.study.trial import Trial

log = logging.getLogger(__name__)

NOT_HELD = (
    "the study of this ledger is held by nobody, so another job could write over its records: take the ledger of "
    "`with study.writing() as ledger:`, and fit inside that block"
)
NOT_RESTORED = (
    "this searcher's trials are in the directory of its study, which tune.Tuner.restore does not read: run the script "
    "that began it again, and it goes on"
)


class MixtureSearch(Searcher):  # type: ignore[misc]
    """Proposes mixtures from the law fitted to finished trials.

    Args:
        space: the search space; its budget ends the search, and `confirm` then trains the proposal and baselines.
        designer: another way to propose; the default is `LawGuided`.
        seed: all randomness of the proposals.
        rounds: propose `budget.per_round` trials together and wait for all of them before the next round, so that
            the proposals depend on nothing but the results. Without rounds nobody waits: as many are proposed ahead
            in the background, knowing of those pending, while trials run.
        retries: how often a trial whose worker died is begun again before it has got any further, with `retry` (1, 2,
            ...) in its config. Tune's own `max_failures` counts all deaths of a long trial on spot machines, and gives
            up on a worker that dies while it changes from one trial to the next.
        ledger: that of `Study.writing()`, in place of a space: the study's directory then remembers every trial, and
            the study goes on, recommends and reports as any other.
        stacks: how many trials of a scale are one trial of Tune (raymix/study/stacks.py). Its config is then that of
            the first, with those of the others under `stack`; every result says under `member` which trial it is of,
            and under `status` whether that has ended (done; failed, with a `reason`).

    Raises:
        SpaceError: the space allows one mixture alone, or evidence that it names cannot be used.
        ValueError: neither space nor ledger, or the ledger of a study outside `Study.writing()`.
    """

    def __init__(
        self,
        space: SearchSpace | None = None,
        designer: Designer | None = None,
        seed: int = 0,
        rounds: bool = False,
        ledger: Ledger | None = None,
        on_change: Callable[[str, Trial | None], None] | None = None,
        retries: int = 0,
        stacks: Sizes | None = None,
    ) -> None:
        super().__init__()  # no metric: the objective is over all eval domains, and a trial may fail without any
        if ledger is None:
            if space is None:
                raise ValueError("MixtureSearch needs a space (or a ledger that has one)")
            space.check_choice()
            ledger = Ledger(space, seed=seed, designer=designer)
            take_evidence(ledger)
        elif not ledger.recording:
            raise ValueError(NOT_HELD)
        self.ledger = ledger
        self.rounds = rounds
        self.failure: StoreError | None = None
        """Set when the records could not be written, or a node does not see them; it ends the search."""
        self._sizes = stacks or {}
        self._queue: deque[Stack] = deque(stacks_of(ledger, ledger.pending(), self._sizes))
        self._running: dict[str, Stack] = {}
        self.retries = retries
        self._deaths = Deaths(retries)
        self._why: dict[str, str] = {}
        self._said = False  # NO_TOKENS
        self._poor: dict[str, str] = {}
        self._thought: Future[Thought] | None = None
        self._thinker: ThreadPoolExecutor | None = None
        self._on_change = on_change or _ignore
        self._begun: tuple[SearchSpace, int, None, Designer] | None = None
        """Of a copy that Tune made: with what its ledger is built again (`restore`)."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config; None while it has to wait; FINISHED when the budget is spent."""
        if self.ledger is None:
            raise ValueError(NOT_RESTORED)
        try:
            if not self._queue:
                self._refill()
            if self._queue:
                self._queue[0].begin(self.ledger)
        except StoreError as error:
            return self.give_up(error)
        if not self._queue:
            waiting = self._running and not self.failure and (self.retries or more(self.ledger))
            return None if waiting else self._finish()
        stack = self._queue.popleft()
        self._running[trial_id] = stack
        for trial in stack.left(self.ledger):
            self._on_change("started", trial)
        if not self._queue and not self.rounds:
            self._think()  # so that the next call finds its answer ready
        died = self._deaths.counts[stack.name]
        return stack.config() | ({"retry": died} if died else {})

    def poor(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial should end at this result; as `stop` of a `tune.RunConfig`, where the space asks for it."""
        trial = self._trial_of(trial_id, result)
        if trial is None or not self.ledger.space.budget.stop_poor or result.get("status") == "done":
            return False
        reason = clearly_poor(self.ledger, trial, result)
        if reason is not None:
            self._poor[trial.trial_id] = reason
        return reason is not None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A checkpoint: a row. In a stack also the end of a trial."""
        trial = self._trial_of(trial_id, result)
        if trial is None or self.ledger.status(trial.trial_id) is not None:  # NaN before: it has failed
            return
        if not result.get("done") and "status" not in result:
            result = {**result, "status": "checkpoint"}
        if len(self._running[trial_id].trials) > 1:
            self._take_row(trial, result)
        elif result.get("status") in ON_THE_WAY:
            if not self._said and result.get("n_tokens") is None and self.ledger.last_row(trial.trial_id):
                self._said = True
                log.warning(NO_TOKENS)
            self._observe(trial, result)
            self._on_change("checkpoint", trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a trial: a row, whatever happened. One that a scheduler paused and stops has no result."""
        stack = self._running.get(trial_id)
        if stack is None:
            log.warning("trial %s is not one of this search's: ignored", trial_id)
            return
        if result and None in result:
            raise ValueError(REPEATED)
        if error:
            self._lose(stack, self._why.pop(trial_id, ""))
        elif len(stack.trials) > 1:
            self.on_trial_result(trial_id, result or {})
            for trial in stack.left(self.ledger):
                self._fail(trial, STOPPED, "stopped")
                self._on_change("ended", trial)
        else:
            self._end(stack.trials[0], result or self.ledger.last_row(stack.ids[0]))
        del self._running[trial_id]

    def explain(self, trial_id: str, why: str) -> None:
        """Why Tune's trial fails, from whoever knows it before `on_trial_complete` (raymix/on_ray/lost.py)."""
        self._why[trial_id] = why

    def _trial_of(self, trial_id: str, result: dict[str, Any]) -> Trial | None:
        stack = self._running.get(trial_id)
        return None if stack is None else stack.of(result)

    def _lose(self, stack: Stack, why: str) -> None:
        """The worker of a stack is gone: it is begun again, or was for the last time."""
        left = stack.left(self.ledger)  # of one alone that reported NaN: nothing
        again = self._deaths.forgiven(stack, self.ledger) and bool(left) and not self.failure
        if again:
            self._queue.append(stack)
        reason = "the worker died, hung or raised; " + (why or "see Ray's logs of this trial")
        if self.retries and not self.failure:
            log.warning("trial %s %s: %s", stack.name, "is begun again" if again else "has failed", reason)
        for trial in left if len(stack.trials) > 1 else stack.trials:
            if not again and trial in left and not self.failure:
                self._fail(trial, reason)
            self._on_change("lost" if again else "ended", trial)

    def _take_row(self, trial: Trial, result: dict[str, Any]) -> None:
        """A row of a trial in a stack, unless it is known: after a retry the stack tells its rows again."""
        status, last = result.get("status"), self.ledger.last_row(trial.trial_id)
        if status in ON_THE_WAY and last is not None and result.get("n_tokens", math.inf) <= last["n_tokens"]:
            return
        if status == "failed":
            self._fail(trial, str(result.get("reason") or "no reason given"))
        else:
            self._observe(trial, result)
        self._on_change("checkpoint" if self.ledger.status(trial.trial_id) is None else "ended", trial)

    def _end(self, trial: Trial, result: dict[str, Any] | None) -> None:
        """The last result of a trial alone, if it had any."""
        if result is not None and result.get("status") == "failed":
            self._fail(trial, str(result.get("reason") or "no reason given"))
        elif self.ledger.status(trial.trial_id) is None:  # a failure on the way, NaN say, is not undone by the end
            named = self.ledger.space.names_proxies or trial.purpose == "confirm"  # else its length is the trainer's
            stopped = result is None or (named and falls_short(result, trial))
            if result is not None:
                self._observe(trial, {**result, "status": "checkpoint" if stopped else "done"})
            if stopped and self.ledger.status(trial.trial_id) is None:
                self._fail(trial, self._poor.pop(trial.trial_id, STOPPED), "stopped")
        self._on_change("ended", trial)

    def _refill(self) -> None:
        """Put trials into the queue, if there are any to run now."""
        n = self.ledger.space.budget.per_round
        if self.failure or (self.rounds and self._running):
            return
        if self.rounds or search_over(self.ledger) is not None:
            self._take(next_trials(self.ledger, n))
            return
        self._think()
        if self._thought is not None and (self._thought.done() or not self._running):
            thought, self._thought = self._thought, None
            self._take(act(self.ledger, thought.result()))
            if not self._queue and not self._running:  # it was to stop here: confirmation may be due
                self._take(next_trials(self.ledger, n))

    def _think(self) -> None:
        """Begin to work out the next proposals beside the trials, unless that is under way or the search is over."""
        if self._thought is None and not self.failure and search_over(self.ledger) is None:
            self._thinker = self._thinker or ThreadPoolExecutor(max_workers=1, thread_name_prefix="raymix-designer")
            self._thought = self._thinker.submit(thinking(self.ledger, self.ledger.space.budget.per_round))

    def _take(self, trials: list[Trial]) -> None:
        self._queue.extend(stacks_of(self.ledger, trials, self._sizes))
        if trials:
            self._on_change("round", None)

    def _observe(self, trial: Trial, result: dict[str, Any]) -> None:
        try:
            self.ledger.observe(trial.trial_id, result)
        except StoreError as error:
            self.give_up(error)
        except ValueError as error:  # a metric is missing: this trial's fault, and not the search's end
            self._fail(trial, str(error))

    def _fail(self, trial: Trial, reason: str, status: str = "failed") -> None:
        try:
            self.ledger.fail(trial.trial_id, reason, status)
        except StoreError as error:
            self.give_up(error)

    def give_up(self, error: StoreError) -> str:
        """Nothing more is asked for, nor recorded."""
        log.error("%s", error)
        self.failure = error
        self._queue.clear()
        return self._finish()

    def _finish(self) -> str:
        if self._thinker is not None:
            self._thinker.shutdown(wait=False, cancel_futures=True)
            self._thinker = self._thought = None
        return str(Searcher.FINISHED)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into its own cache; what watches us (a terminal, say) and threads stay behind."""
        begun = None if self.ledger is None else (self.ledger.space, self.ledger.seed, None, self.ledger.designer)
        left = {"ledger": None, "_on_change": _ignore, "_thinker": None, "_thought": None}
        return {**self.__dict__, **left, "_queue": deque(), "_running": {}, "_begun": begun}

    def save(self, checkpoint_path: str) -> None:
        """What is known, as JSON, for a restored Tuner; nothing where records in a store are the state."""
        if self.ledger.events is not None:
            running = {trial_id: stack.ids for trial_id, stack in self._running.items()}
            state = {"events": self.ledger.events, "running": running, "deaths": self._deaths.counts}
            Path(checkpoint_path).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Take up what `save` wrote; with a store nothing was, and a new searcher is built from the study.

        Tune copies its own state and ours while both change: it may know of an end that we were not told of yet, and
        never tell it again. A trial measured at its last token has therefore ended.
        """
        state = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        known = self.ledger
        begun = self._begun if known is None else (known.space, known.seed, None, known.designer)
        assert begun is not None
        self.ledger = Ledger(*begun, events=[(kind, body) for kind, body in state["events"]])
        trials = self.ledger.trials
        self._running = {
            trial_id: Stack(tuple(trials[each] for each in ids)) for trial_id, ids in state["running"].items()
        }
        for trial in (trial for stack in self._running.values() for trial in stack.left(self.ledger)):
            row = self.ledger.last_row(trial.trial_id)
            if row is not None and not falls_short(row, trial):
                self._observe(trial, {**row, "status": "done"})
        self._running = {trial_id: stack for trial_id, stack in self._running.items() if stack.left(self.ledger)}
        runs = {each for ids in state["running"].values() for each in ids}
        waiting = [trial for trial in self.ledger.pending() if trial.trial_id not in runs]
        self._queue = deque(stacks_of(self.ledger, waiting, self._sizes))
        self._deaths = Deaths(self.retries, Counter(state["deaths"]))
        self._why, self._said = {}, False  # an earlier version, whose searcher Tune may have kept, had neither


def _ignore(event: str, trial: Trial | None) -> None:
    """Nobody is watching."""
