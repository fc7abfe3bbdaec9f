"""`Study`: a search with a memory on disk. Run it on Ray, or ask and tell with a trainer of your own.

study = Study.create(space, "runs/first", seed=0)
for trial in study.ask(8):
    study.tell(trial.trial_id, losses=my_trainer(trial.mixture, trial.n_params, trial.n_tokens, trial.seed))
print(study.recommend().mixture)
"""

import logging
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from raymix.design import Designer
from raymix.observations import Observations
from raymix.space import Scale, SearchSpace, SpaceError
from raymix.store import Store, StoreError
from raymix.study.agenda import next_trials, over, search_over
from raymix.study.changes import differences
from raymix.study.confirm import Confirmation, confirmation, confirmed_mixture, due, skipped
from raymix.study.evidence import changed_evidence, take_evidence
from raymix.study.files import FORMAT, read_identity, read_space, upgrade, write_identity, write_space
from raymix.study.ledger import Ledger
from raymix.study.row import WITHOUT_RESULT, told_by_hand
from raymix.study.stopping import stopped
from raymix.study.telling import check_rows, told_again, told_row
from raymix.study.trial import Trial
from raymix.study.weighed import weighed
from raymix.tables.notes import loss_notes, score_notes
from raymix.target.held_out import HeldOut
from raymix.target.recommend import Recommendation, fit_law, recommend, target_at

log = logging.getLogger(__name__)

AnyScale = Scale | Sequence[float] | Mapping[str, float]
TURN = 60.0  # seconds that ask and tell wait for another process to ask or tell
LEFT = "the rest of the budget may not pay for more until some have been told"


class Study:
    """One search space, one directory, one seed. Make it with `create`, `open` or `resume`."""

    def __init__(self, store: Store, space: SearchSpace, seed: int, designer: Designer | None = None) -> None:
        self.store = store
        self.space = space
        self.seed = seed
        self._designer = designer
        self._outdated: dict[str, Any] | None = None
        self.ledger = Ledger(space, seed, store, designer)

    @classmethod
    def create(cls, space: SearchSpace, path: str | Path, seed: int = 0, designer: Designer | None = None) -> "Study":
        """Begin a study in an empty or new directory.

        Raises:
            StoreError: there is a study already.
            SpaceError: there is nothing to choose, or evidence cannot be used.
        """
        space.check_choice()
        store = Store(path)
        evidence = Ledger(space, seed)
        take_evidence(evidence)  # a source that cannot be used is said before there is a study
        with store.locked(TURN):
            if store.exists:
                raise StoreError(f"{store.where}: there is a study already; open it, or choose another directory")
            write_space(store, space)
            write_identity(store, space, seed)
            study = cls(store, space, seed, designer)
            for body in evidence.reused.values():
                study.ledger.note("reuse", body)
        return study

    @classmethod
    def open(cls, path: str | Path, designer: Designer | None = None) -> "Study":
        """A study from its directory alone.

        Raises:
            StoreError: there is none, or it is damaged.
        """
        store = Store(path)
        about = read_identity(store)
        study = cls(store, read_space(store, about), int(about["seed"]), designer)
        study._outdated = about if about["format"] < FORMAT else None
        return study

    @classmethod
    def resume(
        cls, space: SearchSpace, path: str | Path, seed: int | None = None, designer: Designer | None = None
    ) -> "Study":
        """The study in `path`, begun if there is none. Budget, objective and constraints may have changed since.

        Raises:
            SpaceError: anything else changed; the message lists what.
        """
        store = Store(path)
        if not store.exists:
            try:
                return cls.create(space, path, seed or 0, designer)
            except StoreError:
                if not store.exists:  # else another process began it meanwhile
                    raise
        study = cls.open(path, designer)
        if study.space.hash() != space.hash():
            changed = "; ".join(differences(study.space.plain(), space.plain())[:5])
            raise SpaceError(
                f"{store.where}: this study was begun with another space ({changed}); undo the change, or begin a new "
                "study that keeps what is still valid with --fork NEW"
            )
        if seed is not None and seed != study.seed:
            raise SpaceError(f"{store.where}: this study was begun with seed {study.seed}, not {seed}")
        if study.space.plain() != space.plain():
            with store.locked(TURN):
                take_evidence(Ledger(space, study.seed, store))
                write_space(store, space)
            outdated, study = study._outdated, cls(store, space, study.seed, designer)
            study._outdated = outdated
        for words in changed_evidence(study.ledger):
            log.warning("%s", words)
        return study

    @classmethod
    def fork(
        cls,
        space: SearchSpace,
        old: str | Path,
        new: str | Path,
        seed: int | None = None,
        designer: Designer | None = None,
    ) -> "Study":
        """The study in `new`, begun if there is none with what `old` measured and is still true in `space`.

        That is what raymix/study/evidence.py finds: rows whose mixture and losses mean the same in both. After a change
        of recipe nothing does.
        """
        source = Store(old)
        read_space(source, read_identity(source))
        raw = space.plain()
        place = source.where if "://" in source.where else str(source.path.resolve())
        raw["from"] = [*raw.get("from", ()), {"study": place}]
        return cls.resume(SearchSpace.parse(raw, folder=space.folder), new, seed, designer)

    @contextmanager
    def writing(self, wait: float = 0.0) -> Iterator[Ledger]:
        """The ledger, up to date and ours alone until the block ends; `wait` as in `Store.locked`."""
        with self.store.locked(wait):
            about = self._outdated
            if about is not None:
                upgrade(self.store, self.space, about)
                self._outdated = None
            if self.store.changed():
                self.ledger = Ledger(self.space, self.seed, self.store, self._designer)
            yield self.ledger

    def ask(self, n: int) -> list[Trial]:
        """n trials to run: each has `trial_id, mixture, n_params, n_tokens, seed`.

        Fewer, and a warning, where the budget of the space leaves fewer or the last trials must be told first; a space
        without a budget has no end. Runs of confirmation come when they are due.

        Raises:
            SpaceError: the budget is in hours alone, which somebody else's trainer does not tell.
            ValueError: n is no whole number, or below 1.
        """
        if not isinstance(n, int | np.integer) or n < 1:
            raise ValueError(f"{n} trials were asked for, it must be a whole number from 1 on")
        budget = self.space.budget
        if list(budget.limits()) == ["hours"]:
            raise SpaceError(
                "budget.hours counts the time of raymix run: for ask and tell use trials, flops or gpu_hours"
            )
        with self.writing(TURN) as ledger:
            bound = budget.given or self.space.confirm is not None
            found = next_trials(ledger, n, early=False) if bound else due(ledger, n) or ledger.ask(n)
            if not found:
                waiting = f"{len(ledger.pending())} trials are still to be told"
                log.warning("nothing to train: %s", over(ledger) or waiting)
            elif len(found) < n and found[-1].purpose == "search":
                log.warning("%d of the %d trials asked for: %s", len(found), n, search_over(ledger) or LEFT)
            return found

    def tell(
        self,
        trial_id: str,
        losses: Mapping[str, float],
        n_params: float | None = None,
        n_tokens: float | None = None,
        tokens_seen: Mapping[str, float] | None = None,
        status: str = "done",
        seconds: float | None = None,
        flops: float | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """The losses (nats per token) of a trial, by eval domain; `status="checkpoint"` for one on the way.

        `metrics` are those of the space, as measured; a checkpoint may come without. `seconds` and `flops` up to there
        count against a budget in them; FLOPs are 6 N D if left out. `tokens_seen` are those drawn, by domain: where all
        domains are told, their sum is `n_tokens` if that is left out, and a mixture more than 1% off the one proposed
        counts as it was drawn.

        Raises:
            ValueError: unknown trial, eval domain, domain or metric; a loss or metric is missing, or above its best.
        """
        measured = told_row(self.space, losses, metrics, tokens_seen)
        given = {"n_params": n_params, "n_tokens": n_tokens, "seconds": seconds, "flops": flops}
        row = measured | {"status": status} | {key: value for key, value in given.items() if value is not None}
        with self.writing(TURN) as ledger, told_by_hand():
            ledger.observe(trial_id, row)
        bad = [f"{name} is {value}" for name, value in losses.items() if not 0 < float(value) < math.inf]
        if bad and status not in WITHOUT_RESULT:
            log.warning("trial %s counts as failed: the loss %s, it must be a number above 0", trial_id, bad[0])

    def tell_rows(self, rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        """Rows in the exchange form, with their `trial_id`: all are recorded, or none.

        Returns how many are of trials without losses, and how many of trials that had ended, before or in a row above.

        Raises:
            ValueError: as `tell`, or a row's mixture is not that of its trial; the message begins with the row.
        """
        given = [{key: value for key, value in row.items() if value is not None} for row in rows]
        with self.writing(TURN) as ledger:
            check_rows(ledger, given)
            again = told_again(ledger, given)
            ledger.observe_all([(str(row["trial_id"]), row) for row in given])
            failed = sum(ledger.status(str(row["trial_id"])) in WITHOUT_RESULT for row in given)
        return failed, again

    def fail(self, trial_id: str, reason: str) -> None:
        """A trial that gave no losses, and why; or whose losses, told before, are not to count."""
        with self.writing(TURN) as ledger:
            ledger.fail(trial_id, reason)

    def table(self) -> Observations:
        """All rows so far."""
        return self.ledger.table()

    @property
    def finished(self) -> bool:
        """Whether the budget is spent, or the search was stopped, and every trial has ended."""
        return over(self.ledger) is not None and not self.endless

    @property
    def endless(self) -> bool:
        """Whether a trainer of your own may ask for ever: nothing was said of a budget."""
        return not (self.space.trains_proxies or self.space.budget.given or self.space.confirm)

    def unfinished(self) -> str | None:
        """What the search still has to do, as a sentence; None where it is over."""
        pending = sum(trial.purpose == "search" for trial in self.ledger.pending())
        if pending:
            return f"{pending} trials of the search have not ended"
        return None if search_over(self.ledger) else "the search has budget left"

    def confirmation(self) -> Confirmation | None:
        """Predicted beside confirmed gains of the proposal, as far as they are; None where none were asked for."""
        return confirmation(self.ledger)

    def recommend(self, scale: AnyScale | None = None) -> Recommendation:
        """The best mixture at `scale`, n_params and n_tokens (default: the target of the space).

        Raises:
            SpaceError: the scale is none.
            NotEnoughTrialsError: as `fit_law`.
        """
        return self.read_law(scale)[0]

    def read_law(self, scale: AnyScale | None = None) -> tuple[Recommendation, HeldOut, dict[str, Any]]:
        """The recommendation, the cross-validation behind it, and the law as JSON."""
        table = self.table()
        law = fit_law(self.space, table)
        target = self.space.target if scale is None else target_at(self.space, scale)
        keep_K = confirmed_mixture(self.ledger)
        found, held_out = recommend(self.space, table, law, target, self.seed, keep_K)
        said = [words for words in (stopped(self.ledger), skipped(self.ledger)) if words] + loss_notes(table.usable())
        said += [] if self.space.trains_proxies else score_notes(table.usable())  # what is measured here is a loss
        tokens = found.evidence["tokens"] - self.ledger.tokens_begun_with()
        found = replace(found.noting(said), evidence={**found.evidence, "tokens": tokens})
        return weighed(found, self.confirmation()), held_out, law.to_json()

    def command(self) -> str:
        """What continues this study from a shell; a trainer of your own asks for trials."""
        where = shlex.quote(self.store.where)
        return f"raymix resume {where}" if self.space.trains_proxies else f"raymix ask {where}"
