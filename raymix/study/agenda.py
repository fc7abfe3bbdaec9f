"""What a study does next: more trials of the search, then confirmation, then nothing.

One answer for Ray and for ask/tell. The dear part, a check whether to stop early and the designer's proposals, is a
pure function of a snapshot (`thinking`), so that it can run beside the trials; recording it (`act`) is quick.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from raymix.design import Proposal
from raymix.study import budget, confirm, stopping
from raymix.study.arms import runs
from raymix.study.ledger import Ledger
from raymix.study.trial import Trial
from raymix.target.recommend import NotEnoughTrialsError

GRACE = 0.1  # of budget.hours: time for trials under way to end


@dataclass(frozen=True)
class Thought:
    """What to record: an early stop, or proposals."""

    stop: dict[str, Any] | None = None
    proposals: list[Proposal] = field(default_factory=list)


def next_trials(ledger: Ledger, n: int, early: bool = True) -> list[Trial]:
    """At most n trials to run now, recorded as proposed; none where the study is over or has to wait for results.

    Args:
        early: whether the search may end before its budget (`budget.stop_early`).
    """
    found = confirm.due(ledger, n)
    if not found and search_over(ledger) is None:
        found = act(ledger, thinking(ledger, n, early)())
    return found or confirmations(ledger, n)


def search_over(ledger: Ledger) -> str | None:
    """Why there are no more trials of the search, as a sentence; None while there are."""
    return stopping.stopped(ledger) or budget.exhausted(ledger)


def confirmation_due(ledger: Ledger) -> bool:
    """Whether the last part of the budget is still to be planned."""
    wanted = ledger.space.confirm is not None and not confirm.planned(ledger)
    return wanted and search_over(ledger) is not None


def confirmations(ledger: Ledger, n: int) -> list[Trial]:
    """At most n runs of confirmation, planned once every trial of the search has ended."""
    wanted = ledger.space.confirm
    if wanted is None or not confirmation_due(ledger) or ledger.pending():
        return []
    try:
        confirm.plan_confirmation(ledger, wanted, automatic=True)
    except NotEnoughTrialsError as error:
        confirm.skip_confirmation(ledger, str(error))
    return confirm.due(ledger, n)


def over(ledger: Ledger) -> str | None:
    """Why the whole study is over, as a sentence; None while something is running or due."""
    return None if ledger.pending() or more(ledger) else search_over(ledger)


def out_of_hours(ledger: Ledger, hours: float, command: str) -> str | None:
    """What is said where the budget's hours are long over and trials of it have not ended; else None."""
    limit = ledger.space.budget.hours
    if limit is None or hours <= (1 + GRACE) * limit:
        return None
    asked_for = confirm.beside_the_budget(ledger)
    pending = [trial.trial_id in asked_for for trial in ledger.pending()]
    if all(pending):
        return None
    return (
        f"budget.hours: {hours:.3g} of {limit:.3g} are over and trials have not ended ({pending.count(False)}): they "
        f"wait in the study, and go on from their checkpoints with more hours: {command} --set budget.hours=N"
    )


def more(ledger: Ledger) -> bool:
    """Whether trials may still be proposed, now or once those running have ended."""
    return search_over(ledger) is None or confirmation_due(ledger) or confirm.left(ledger) > 0


def expected_trials(ledger: Ledger) -> int:
    """How many trials the study will have had, confirmation included: those proposed and those still expected.

    Limits in hours become trials at the rate so far; before the first result that says its seconds they are unknown.
    """
    proposed, wanted = len(ledger.trials), ledger.space.confirm
    search = sum(trial.purpose == "search" for trial in ledger.trials.values())
    ahead = 0 if search_over(ledger) else max(0, budget.expected_trials(ledger) - search)
    unplanned = runs(ledger.space) if wanted and not confirm.planned(ledger) else 0
    return proposed + ahead + confirm.left(ledger) + unplanned


def thinking(ledger: Ledger, n: int, early: bool = True) -> Callable[[], Thought]:
    """What to do next, as a function of what is known now alone: it may be called in another thread."""
    room = budget.affordable(ledger, n)
    space, seed, table, suggest = ledger.space, ledger.seed, ledger.table(), ledger.suggestion()
    n_trials = len(ledger.trials)

    def think() -> Thought:
        stop = stopping.early_stop(space, table, seed, n_trials) if early and n_trials else None
        return Thought(stop) if stop else Thought(proposals=suggest(room) if room else [])

    return think


def act(ledger: Ledger, thought: Thought) -> list[Trial]:
    """Record a thought: the stop, or as many of the proposals as the budget pays for."""
    if thought.stop is not None:
        ledger.note("stop", thought.stop)
        return []
    room, paid = budget.Room(ledger), []
    for proposal in thought.proposals:
        scale = room.take(proposal)  # the end of a budget may not pay for the one wanted
        if scale is not None:
            paid.append(replace(proposal, scale=scale))
    return ledger.propose(paid)
