"""What ends a study on Ray before all its trials have."""

import pytest

from raymix.on_ray.ending import Ending
from raymix.search import MixtureSearch
from raymix.space_study import Confirm
from raymix.study.agenda import next_trials
from raymix.study.confirm import due, plan_confirmation
from raymix.study.ledger import Ledger
from tests import worlds
from tests.test_confirm import ledger, play


def spent_hours() -> Ledger:
    """A study that has trained for 1.2 of its 1 hours, and has no trial left."""
    book = ledger(budget={"trials": 8, "hours": 1.0, "per_round": 4, "stop_early": False}, confirm=None)
    play(book)
    book.hours = 1.2
    return book


def test_runs_of_a_confirmation_that_was_asked_for_are_beside_the_hours_too(caplog: pytest.LogCaptureFixture) -> None:
    """As they are beside all other limits: `raymix confirm` would end as soon as it has begun."""
    book = spent_hours()
    plan_confirmation(book, Confirm(seeds=1))
    assert len(due(book, 2)) == 2
    assert not Ending(MixtureSearch(ledger=book, rounds=True), "raymix resume s").stop_all()
    assert not caplog.text


def test_hours_that_are_over_end_trials_of_the_budget_and_no_study_without_any(
    caplog: pytest.LogCaptureFixture,
) -> None:
    book = spent_hours()
    assert not Ending(MixtureSearch(ledger=book, rounds=True), "raymix resume s").stop_all()
    assert not caplog.text
    fresh = Ledger(worlds.space(budget={"trials": 8, "hours": 1.0, "per_round": 4}))
    next_trials(fresh, 4)
    fresh.hours = 1.05
    assert not Ending(MixtureSearch(ledger=fresh, rounds=True), "raymix resume s").stop_all()
    fresh.hours = 1.2
    assert Ending(MixtureSearch(ledger=fresh, rounds=True), "raymix resume s").stop_all()
    assert "trials have not ended (4)" in caplog.text and "raymix resume s --set budget.hours=N" in caplog.text
    again = Ledger(fresh.space, events=fresh.events or ())  # no trial of it said that these hours had passed
    assert again.hours >= 1.2 and Ending(MixtureSearch(ledger=again, rounds=True), "raymix resume s").stop_all()
