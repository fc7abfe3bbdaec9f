"""Rows 12 and 15 of the faults: one absurd loss among honest ones; two domains, a hundred, shares of 0 and 1."""

import numpy as np
import pytest

from raymix import SearchSpace
from raymix.design import Proposal, SpaceFilling
from raymix.study.ledger import Ledger
from raymix.target.held_out import noise_of_a_run
from raymix.target.objective import objective_of
from raymix.target.optimum import minimise
from raymix.target.recommend import Recommendation, fit_law, recommend
from tests import worlds


def recommended(outlier: float | None) -> Recommendation:
    """From sixteen trials; one of them says `outlier` at its end."""
    space = worlds.space(budget={"trials": 16, "per_round": 16})
    ledger = Ledger(space, seed=0, designer=SpaceFilling(space))
    for i, trial in enumerate(ledger.ask(16)):
        rows = worlds.rows(trial)
        if i == 9 and outlier is not None:
            rows[-1]["loss/code"] = outlier
        for row in rows:
            ledger.observe(trial.trial_id, row)
    return recommend(space, ledger.table(), fit_law(space, ledger.table()))[0]


@pytest.mark.slow  # fits the law twice and works out the intervals
def test_one_loss_of_a_million_does_not_move_the_recommendation() -> None:
    """A row more or less of sixteen moves a share by some 0.01; its size must have no further say."""
    honest, absurd = recommended(None), recommended(1e6)
    for name in worlds.DOMAINS:
        assert absurd.mixture[name] == pytest.approx(honest.mixture[name], abs=0.02)
    assert absurd.objective.mean == pytest.approx(honest.objective.mean, rel=0.01)


@pytest.mark.parametrize("absurd", [1e-6, 1e6])
def test_one_absurd_replicate_says_nothing_about_the_noise(absurd: float) -> None:
    """Else a search ended early by it, and a gain ten times the noise was within it."""
    space = worlds.space(budget={"trials": 16, "per_round": 16, "replicates": 3})
    ledger = Ledger(space, seed=0, designer=SpaceFilling(space))
    for trial in ledger.ask(16):
        ledger.observe(trial.trial_id, worlds.rows(trial)[-1])
    last = ledger.table().last()
    observed_B = last.loss_BM @ space.weights_M
    predicted_B = worlds.losses(last.mix_BK.T, *last.scale_B2[0]).T @ space.weights_M
    odd_B = np.where(np.arange(16) == 2, absurd * observed_B, observed_B)  # the prior has the first four places
    honest = noise_of_a_run(last, observed_B, predicted_B)
    assert 0 < honest < 0.1
    assert noise_of_a_run(last, odd_B, predicted_B) == pytest.approx(honest, rel=0.5)


@pytest.mark.parametrize("n_domains", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_few_and_many_domains_and_pure_mixtures_are_searched(n_domains: int) -> None:
    names = [f"d{k}" for k in range(n_domains)]
    space = SearchSpace.parse(
        {
            "name": "pure",
            "domains": [{"name": name, "available_tokens": 1e9} for name in names],
            "eval_domains": [{"name": "x"}],
            "ladder": [{"n_params": 1e5, "n_tokens": 5e5}],
            "target": {"n_params": 4e6, "n_tokens": 1e7},
        }
    )
    ledger = Ledger(space, seed=0)
    ledger.propose([Proposal(vertex_K, space.ladder[0].scale, seed=0) for vertex_K in np.eye(n_domains)[:2]])
    ledger.ask(8)
    for trial in ledger.pending():
        ledger.observe(trial.trial_id, {"loss/x": 2 + (0.1 + trial.mixture["d0"]) ** -0.3})
    optimum = minimise(objective_of(space, fit_law(space, ledger.table())), space.polytope())
    assert np.isfinite(optimum.value)
    assert optimum.mixture_K.sum() == pytest.approx(1, abs=1e-9)
    (following,) = ledger.ask(1)
    assert sum(following.mixture.values()) == pytest.approx(1, abs=1e-9)
