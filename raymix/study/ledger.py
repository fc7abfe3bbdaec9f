"""What a study knows: trials proposed, rows observed, in order. Proposes the next from exactly that.

The ledger is the one place where proposals are made and results recorded, for Ray and for ask/tell alike. Given a
store, every event is durable before this object, and so the designer, knows of it.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from raymix.design import Designer, LawGuided, Proposal, cost
from raymix.design.schedule import longer_rungs, shorter_rungs
from raymix.observations import Observations
from raymix.space import Scale, SearchSpace, SpaceError
from raymix.store import Store
from raymix.store.log import Event
from raymix.study.row import check_columns, check_mixture, record, unlike, without_result
from raymix.study.rows import ENDED, Rows
from raymix.study.trial import Trial, trial_identity, unknown_trial

log = logging.getLogger(__name__)


class Ledger:
    """Proposals and rows of one study; with a store, durable."""

    def __init__(
        self,
        space: SearchSpace,
        seed: int = 0,
        store: Store | None = None,
        designer: Designer | None = None,
        events: Sequence[Event] = (),
    ) -> None:
        if seed < 0:
            raise SpaceError(f"the seed is {seed}, it must be a whole number of 0 or more")
        self.space = space
        self.seed = seed
        self.designer: Designer = designer or LawGuided(space)
        self.trials: dict[str, Trial] = {}
        self._ended: dict[str, str] = {}
        self.expected_flops: Callable[[Scale], float] = cost
        """Training FLOPs at a scale where no trial has said them yet: 6 N D for anybody's trainer."""
        self._flops: dict[tuple[float, float], float] = {}
        self.hours = 0.0
        """For which the study ran, up to its last row, or until it stopped; counted where the budget limits them."""
        self.stop: dict[str, Any] | None = None
        """Why the search ended before its budget (raymix/study/stopping.py)."""
        self.stacks: dict[Scale, int] = {}
        """How many trials of a scale are trained as one, where that was measured (raymix/on_ray/stacking.py)."""
        self.text: dict[str, str] = {}
        """The text that its trials are trained on (raymix/study/text.py); nothing where somebody else trains."""
        self._together: dict[str, list[str]] = {}
        self.confirmations: list[dict[str, Any]] = []
        """What was to be confirmed, in order (raymix/study/confirm.py)."""
        self._rows = Rows(space)
        self._last: dict[str, dict[str, Any]] = {}
        self.version = 0
        """How many events are known: what is computed from them stays right until it changes."""
        self._space_hash = space.hash()
        self._runs: dict[str, list[Trial]] = {}
        """Trials done that others may go on from, by `_run_of`."""
        self._store = store
        self.events: list[Event] | None = None if store else list(events)
        """All that is known, in order, where no store has it."""
        for kind, body in store.records() if store else events:
            self._apply(kind, body)
        self._hours_before, self._began = self.hours, time.monotonic()

    def ask(self, n: int) -> list[Trial]:
        """n new trials, recorded as proposed. Which ones depends only on the seed and on what is recorded."""
        return self.propose(self.suggestion()(n))

    def suggestion(self) -> Callable[[int], list[Proposal]]:
        """What the designer would propose, from what is known now: a function that may run in another thread."""
        rng = np.random.default_rng([self.seed, len(self.trials)])
        pending = [self._proposal(trial) for trial in self.pending()]
        table, designer = self.table(), self.designer
        return lambda n: designer.suggest(table, pending, n, rng)

    def observe(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """Record one row of a trial: `loss/...`, `metric/...`, n_tokens and whatever else the exchange form has.

        A loss that is not a positive finite number makes the row a failure, with that as its reason. Metrics may be
        measured at the end alone.

        Raises:
            ValueError: the trial is unknown, or the row is none (see `row.record`).
        """
        self.observe_all([(trial_id, row)])

    def observe_all(self, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Record rows of trials: all of them, or none.

        Raises:
            ValueError: see `observe`.
        """
        bodies = [record(self.space, self._known(trial_id), row) for trial_id, row in rows]
        self._record_all([("row", body | self._clock()) for body in bodies])
        far = [words for body in bodies if (words := unlike(self.space, self._known(body["trial_id"]), body))]
        if far:
            log.warning("%s%s", far[0], f" (so do {len(far) - 1} rows more)" if len(far) > 1 else "")

    def check(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """Whether a row could be recorded, and names no other mixture than its trial's, and no other domains.

        Raises:
            ValueError: see `observe`.
        """
        trial = self._known(trial_id)
        check_columns(self.space, row)
        record(self.space, trial, row)
        check_mixture(trial, row)

    def fail(self, trial_id: str, reason: str, status: str = "failed") -> None:
        """Record that a trial ended without a result, and why. Its checkpoints stay; a result told before does not."""
        trial = self._known(trial_id)
        self._record_all([("row", without_result(trial, status, reason) | self._clock())])

    def note(self, kind: str, body: dict[str, Any]) -> None:
        """Record an event that is no proposal or row: `stop`, `confirm`, `reuse`, `stack`, `together`, `text`
        or `hours`."""
        self._record_all([(kind, body)])

    @property
    def recording(self) -> bool:
        """Whether events may be recorded: not in a store that nobody holds."""
        return self._store is None or self._store.held

    @property
    def rounds(self) -> int:
        """How many rounds of trials were proposed."""
        return 1 + max((trial.round for trial in self.trials.values()), default=-1)

    def identity(self, mixture: Mapping[str, float], scale: Scale, seed: int) -> str:
        """The id that a trial of this study has or would have."""
        return trial_identity(self.space.shares(self.space.mixture(mixture)), scale, seed, self._space_hash)

    def flops_of(self, scale: Scale, after: Sequence[float] = ()) -> float:
        """Training FLOPs of a trial at a scale: as recorded where one has ended, else as expected.

        Where no ladder names the proxies, what the last one done tells stands for them all, and a checkpoint that cost
        more. Before the first the target does, if the budget pays for it; else smaller ones are meant, of a cost that
        nobody knows: 0.

        `after` is that of a trial that goes on: what it begins with costs nothing more. Where no trial of the whole
        length has ended, a token costs what it did up to there: both are then counted alike.
        """
        recorded = self._flops.get((scale.n_params, scale.n_tokens))
        if not after:
            expected, limit = self.expected_flops(scale), self.space.budget.flops
            unknown = not self.space.names_proxies and limit is not None and expected > limit
            return recorded or (0.0 if unknown else expected)
        before = self.flops_of(Scale(scale.n_params, after[-1]))
        return max(0.0, (recorded or before * scale.n_tokens / after[-1]) - before)

    def begun(self, proposal: Proposal) -> Trial | None:
        """The longest trial done that one of this mixture, scale and seed goes on from."""
        shares = self.space.shares(proposal.mixture_K)
        for shorter in shorter_rungs(self.space, proposal.scale):
            runs = self._runs.get(self._run_of(shares, shorter, proposal.seed), ())
            ended = [trial for trial in runs if self.status(trial.trial_id) == "done"]
            if ended:
                return ended[0]
        return None

    def status(self, trial_id: str) -> str | None:
        """How a trial ended: done, stopped or failed; None while it has not."""
        return self._ended.get(trial_id)

    def together(self, trial_id: str) -> list[str]:
        """The trials with which one was last begun as a stack (raymix/study/stacks.py), itself among them."""
        return self._together.get(trial_id) or [trial_id]

    def last_row(self, trial_id: str) -> dict[str, Any] | None:
        """The row with which a trial was done, else its checkpoint with the most tokens; None before the first."""
        return self._last.get(trial_id)

    def pending(self) -> list[Trial]:
        """Trials proposed that have not ended, in order."""
        return [trial for trial in self.trials.values() if trial.trial_id not in self._ended]

    def tokens_seen(self, trial_id: str) -> float:
        """Tokens at the last row of a trial; 0 before the first."""
        return float(self._last.get(trial_id, {}).get("n_tokens", 0.0))

    def tokens_begun_with(self) -> float:
        """Tokens that trials with rows have from those they go on from: in the rows of both, and trained once."""
        seen = (trial for trial in self.trials.values() if trial.after and self.tokens_seen(trial.trial_id))
        return float(sum(trial.after[-1] for trial in seen))

    def count(self, status: str) -> int:
        """How many trials ended with this status."""
        return sum(ended == status for ended in self._ended.values())

    @property
    def reused(self) -> dict[str, dict[str, Any]]:
        """Observations taken from elsewhere, by the entry of `from` that asked for them."""
        return self._rows.reused

    def table(self) -> Observations:
        """What is reused from elsewhere, then all rows so far in the order of their trials and tokens."""
        return self._rows.table(self.trials, self._last.values())

    def rows_near(self, trial_ids: Iterable[str], n_tokens: float, within: float) -> Observations:
        """The rows of these trials at so many tokens, give or take the share `within`."""
        return self._rows.near(trial_ids, n_tokens, within)

    def _clock(self) -> dict[str, float]:
        """Hours so far, for the record, where the budget counts them."""
        if self.space.budget.hours is None:
            return {}
        return {"hours": self._hours_before + (time.monotonic() - self._began) / 3600}

    def _known(self, trial_id: str) -> Trial:
        if not isinstance(trial_id, str):
            raise ValueError(f"a {type(trial_id).__name__} was given for a trial: give its trial_id")
        if trial_id not in self.trials:
            raise ValueError(unknown_trial(trial_id, self.trials, [trial.trial_id for trial in self.pending()]))
        return self.trials[trial_id]

    def propose(self, proposals: Sequence[Proposal], purpose: str = "search") -> list[Trial]:
        """Record proposals as the trials of a new round: all of them, or none."""
        round, out = self.rounds, dict[str, Trial]()
        for proposal in proposals:
            shares = self.space.shares(np.maximum(proposal.mixture_K, 0.0))  # rounding may leave -1e-17
            trial = self._new_trial(shares, proposal, out, purpose, round)
            out[trial.trial_id] = trial
        self._record_all([("proposed", trial.to_json()) for trial in out.values()])
        return list(out.values())

    def _new_trial(
        self, shares: dict[str, float], proposal: Proposal, others: Mapping[str, Trial], purpose: str, round: int
    ) -> Trial:
        """The same mixture again is a replicate and gets the next seed; a longer one goes on where it can."""
        while True:
            begun = self.begun(proposal) if purpose == "search" else None
            after = (*begun.after, begun.n_tokens) if begun else ()
            trial_id = trial_identity(shares, proposal.scale, proposal.seed, self._space_hash, after)
            if trial_id not in self.trials and trial_id not in others:
                n_params, n_tokens = map(float, proposal.scale)
                continues = begun.trial_id if begun else ""
                return Trial(trial_id, shares, n_params, n_tokens, proposal.seed, purpose, round, continues, after)
            proposal = replace(proposal, seed=proposal.seed + 1)

    def _run_of(self, shares: Mapping[str, float], scale: Scale, seed: int) -> str:
        """What trials of one mixture, scale and seed have in common, whether they began anew or went on."""
        return trial_identity(shares, scale, seed, self._space_hash)

    def _proposal(self, trial: Trial) -> Proposal:
        return Proposal(self.space.mixture(trial.mixture), trial.scale, trial.seed, trial.trial_id)

    def _record_all(self, events: Sequence[tuple[str, dict[str, Any]]]) -> None:
        if self._store is not None:
            self._store.append_all(events)
        if self.events is not None:
            self.events += events
        for kind, body in events:
            self._apply(kind, body)

    def _apply(self, kind: str, body: dict[str, Any]) -> None:
        self.version += 1
        self.hours = max(self.hours, body.get("hours") or 0.0)
        if kind == "proposed":
            self.trials[body["trial_id"]] = Trial(**body)
        elif kind == "stop":
            self.stop = body
        elif kind == "confirm":
            self.confirmations.append(body)
        elif kind == "reuse":
            self._rows.reuse(body)
        elif kind == "stack":
            self.stacks[Scale(body["n_params"], body["n_tokens"])] = body["size"]
        elif kind == "text":
            self.text = body
        elif kind == "together":
            self._together.update(dict.fromkeys(body["trials"], body["trials"]))
        elif kind == "row":  # any other kind is of a later version: nothing here depends on it
            self._apply_row(body)

    def _apply_row(self, body: dict[str, Any]) -> None:
        trial_id, status = body["trial_id"], body["status"]
        if status in ENDED:
            self._ended[trial_id] = status
        if not self._rows.add(body):
            return
        trial = self.trials[trial_id]
        if not self.space.names_proxies and status not in ENDED[1:]:
            told, at = Scale(body["n_params"], body["n_tokens"]), (trial.n_params, trial.n_tokens)
            flops = body.get("flops") or self.expected_flops(told)
            self._flops[at] = flops if status == "done" else max(flops, self._flops.get(at, 0.0))
        if status == "done":
            if body.get("flops") and not trial.after:
                self._flops[trial.n_params, trial.n_tokens] = body["flops"]
            if trial.purpose == "search" and longer_rungs(self.space, trial.scale):
                self._runs.setdefault(self._run_of(trial.mixture, trial.scale, trial.seed), []).append(trial)
        later = self.status(trial_id) != "done" and body["n_tokens"] >= self.tokens_seen(trial_id)
        if status == "done" or (status not in ENDED and later):
            self._last[trial_id] = body
