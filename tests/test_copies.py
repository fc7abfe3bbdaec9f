"""Runs that stand in a table twice are one measurement; replicates are two."""

from typing import Any

import pytest

from raymix.copies import copies, without_copies
from raymix.design import Proposal
from raymix.observations import Observations
from raymix.space import Rung, Scale
from raymix.study.ledger import Ledger
from raymix.target.recommend import fit_law, recommend
from tests import worlds

RUN: dict[str, Any] = {
    "n_params": 1e6,
    "n_tokens": 1e9,
    "mixture/a": 0.3,
    "mixture/b": 0.7,
    "loss/x": 3.1,
    "loss/y": 2.9,
}


@pytest.mark.parametrize(
    ("change", "copied"),
    [
        ({}, True),
        ({"mixture/a": 0.3 + 1e-12}, True),  # as after a map to other domains
        ({"loss/x": 3.1 + 1e-12}, False),  # a replicate
        ({"loss/x": float("nan")}, False),  # of a single loss, rounded, it may be chance
        ({"n_tokens": 2e9}, False),
        ({"mixture/a": 0.31, "mixture/b": 0.69}, False),
        ({"trial_id": "first"}, False),
    ],
)
def test_a_copy_is_the_same_in_everything_but_its_name(change: dict[str, Any], copied: bool) -> None:
    second = RUN | {"trial_id": "second"} | change
    if second["trial_id"] == "first":
        second["n_tokens"] = 2e9  # another checkpoint of one trial
    table = Observations.from_rows([RUN | {"trial_id": "first"}, second], ("a", "b"), ("x", "y"))
    assert copies(table) == ({1: 0} if copied else {})
    kept, words = without_copies(table)
    assert len(kept) == (1 if copied else 2)
    assert bool(words) == copied
    assert not words or "('second' of 'first'); each counts once" in words[0]


def test_a_trainer_that_ignores_its_seed_is_noted() -> None:
    ledger = Ledger(worlds.space())
    prior_K = ledger.space.prior_K()
    for mix_K in (prior_K, prior_K, (0.2, 0.3, 0.5), (0.5, 0.3, 0.2), (0.1, 0.8, 0.1)):
        (trial,) = ledger.propose([Proposal(ledger.space.mixture(dict(zip(worlds.DOMAINS, mix_K, strict=True))),
                                            Scale(1e5, 5e5), 0)])  # fmt: skip
        loss_M = worlds.losses(ledger.space.mixture(trial.mixture), *trial.scale)
        ledger.observe(trial.trial_id, {f"loss/{n}": v for n, v in zip(worlds.DOMAINS, loss_M, strict=True)})
    table = ledger.table()
    found, _ = recommend(ledger.space, table, fit_law(ledger.space, table), Rung(n_params=1e5, n_tokens=5e5))
    (note,) = [note for note in found.law["notes"] if "ignores its seed" in note]
    assert note.startswith("1 trial has the mixture, scale and every loss of another")
