"""Which trials are trained as one: those of a round and a rung, so many at a time, in their order.

A stack is recorded before it begins, and a study that is killed goes on with the same one, also where some of its
trials have ended: each number of the others is then what it would have been. Only a stack larger than is asked for now
(it did not fit into memory, say) is taken apart. A trial that has ended is never put into another stack, and one that
goes on from another is trained alone.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raymix.space import Scale
from raymix.study.ledger import Ledger
from raymix.study.trial import Trial

MEMBER = "member"  # of a result: the trial that a row of a stack belongs to
Sizes = Mapping[Scale, int]
"""Trials of a stack, by scale; 1 where nothing is said."""


@dataclass(frozen=True)
class Stack:
    """Trials that are trained as one; mostly one alone."""

    trials: tuple[Trial, ...]

    @property
    def ids(self) -> list[str]:
        """Of its trials."""
        return [trial.trial_id for trial in self.trials]

    @property
    def name(self) -> str:
        """What its checkpoints are kept under."""
        return name_of(self.ids)

    def config(self) -> dict[str, Any]:
        """What a worker is told: the first trial, the others under `stack`."""
        first, *others = (trial.to_json() for trial in self.trials)
        return first | ({"stack": others} if others else {})

    def of(self, result: Mapping[str, Any]) -> Trial | None:
        """The trial that a result belongs to; None where it is of another stack."""
        if len(self.trials) == 1:
            return self.trials[0]
        return next((trial for trial in self.trials if trial.trial_id == result.get(MEMBER)), None)

    def left(self, ledger: Ledger) -> list[Trial]:
        """Its trials that have not ended."""
        return [trial for trial in self.trials if ledger.status(trial.trial_id) is None]

    def begin(self, ledger: Ledger) -> None:
        """Record who is trained with whom, where that is not what is known.

        Raises:
            StoreError: it could not be written.
        """
        if any(ledger.together(trial_id) != self.ids for trial_id in self.ids):
            ledger.note("together", {"trials": self.ids})


def name_of(trial_ids: Sequence[str]) -> str:
    """A trial's own id, or one for several together."""
    if len(trial_ids) == 1:
        return trial_ids[0]
    return f"stack-{hashlib.sha256(' '.join(trial_ids).encode()).hexdigest()[:12]}"


def begun_with(ledger: Ledger, trial: Trial) -> Stack:
    """The stack in which a trial was begun, last."""
    return Stack(tuple(ledger.trials[trial_id] for trial_id in ledger.together(trial.trial_id)))


def stacks_of(ledger: Ledger, trials: Sequence[Trial], sizes: Sizes) -> list[Stack]:
    """The stacks to train, so that `trials`, none of which has ended, end; in the order of their first trials."""
    found: list[Stack] = []
    filling: dict[tuple[int, Scale], list[Trial]] = {}
    placed: set[str] = set()
    for trial in trials:
        size, begun = 1 if trial.after else sizes.get(trial.scale, 1), begun_with(ledger, trial)
        if trial.trial_id in placed:
            continue
        if 1 < len(begun.trials) <= size:
            found.append(begun)
            placed.update(begun.ids)
            continue
        if size == 1:
            found.append(Stack((trial,)))
            continue
        mates = filling.setdefault((trial.round, trial.scale), [])
        mates.append(trial)
        if len(mates) == size:
            found.append(Stack(tuple(filling.pop((trial.round, trial.scale)))))
    found += [Stack(tuple(mates)) for mates in filling.values()]
    order = {trial.trial_id: i for i, trial in enumerate(trials)}
    return sorted(found, key=lambda stack: min(order[trial_id] for trial_id in stack.ids if trial_id in order))
