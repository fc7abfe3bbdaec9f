"""Money and what a budget resolves: by hand where a hand can, and in the right direction elsewhere."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from raymix import Study
from raymix.cli import app
from raymix.clusters.money import RESTART_SECONDS, price
from raymix.clusters.prices import read_prices
from raymix.commands.cluster import add_costs
from raymix.design import Proposal
from raymix.plan import Plan, RungPlan
from raymix.screens.screen import Screen
from raymix.space import Scale
from raymix.study.noise import ASSUMED, Noise, noise_of
from raymix.study.resolution import compare_budgets
from raymix.yaml12 import SpaceError
from tests import worlds

FLOPS = 121e12 * 0.25 * 3600  # one hour of an L4 at the assumed utilisation


def plan_of(hours: float, trials: int = 10) -> Plan:
    rung = RungPlan(20_000_000, 1e9, "", trials, FLOPS * hours / trials, 1.0)
    return Plan(trials, 1e10, FLOPS * hours, 4, 1.0, [rung], [], [])


def test_hours_times_price_and_the_head_while_it_lasts() -> None:
    found = price(plan_of(hours=100), read_prices(), "aws", "L4", workers=4, checkpoint_seconds=60)
    assert found.hours == pytest.approx(100)
    assert found.wall_hours == pytest.approx(25)
    assert found.on_demand == pytest.approx(100 * 0.805 + 25 * 0.2016)
    assert found.preemptions == pytest.approx(100 * 0.05)
    lost = 5 * (30 + RESTART_SECONDS) / 3600
    assert found.spot == pytest.approx((100 + lost) * 0.805 * 0.45 + 25 * 0.2016)


def test_a_machine_of_eight_gpus_is_priced_by_the_gpu() -> None:
    found = price(plan_of(hours=100), read_prices(), "aws", "A100", workers=1, checkpoint_seconds=60)
    hours = 100 * 121 / 312
    assert found.hours == pytest.approx(hours)
    assert found.rungs[0].on_demand == pytest.approx(hours * 21.96 / 8)
    assert found.wall_hours == pytest.approx(hours / 8)
    assert found.preemptions == pytest.approx(hours / 8 * 0.05)


def test_what_the_table_does_not_have_is_named() -> None:
    with pytest.raises(SpaceError, match="no 'L4' at azure; it has T4"):
        price(plan_of(1), read_prices(), "azure", "L4", 1, 60)
    with pytest.raises(SpaceError, match="no cloud 'moon'"):
        price(plan_of(1), read_prices(), "moon", None, 1, 60)


def test_more_trials_resolve_smaller_gains_and_noise_scales_them() -> None:
    quiet = [budget.resolves for budget in compare_budgets(worlds.space(), [16, 32, 64, 128], noise=0.01)]
    assert quiet == sorted(quiet, reverse=True)
    # Past the prior's reach the half-width falls as the root of the trials: a factor of 8 in trials is 2.8.
    assert 2.0 < quiet[0] / quiet[-1] < 4.0
    loud = [budget.resolves for budget in compare_budgets(worlds.space(), [64], noise=0.02)]
    assert loud[0] == pytest.approx(2 * quiet[2], rel=0.05)
    with pytest.raises(ValueError, match="noise"):
        compare_budgets(worlds.space(), [8], noise=0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--noise", "0"], "--noise 0: it must be a number of nats above 0"),
        (["--noise", "-1"], "--noise -1"),
        (["--noise", "nan"], "--noise nan"),
        (["--gpu", "L4"], "say at which cloud"),
        (["--cloud", "moon"], "no cloud 'moon'"),
    ],
)
def test_what_a_plan_cannot_answer_is_refused_before_it_is_made(words: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["plan", "not-even-read.yaml", *words])
    assert isinstance(done.exception, SpaceError)  # exit code 2 through main()
    assert says in str(done.exception)


def test_runs_of_confirmation_resolve_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    rungs = [RungPlan(1, 1e9, "", 40, 1.0, 1.0), RungPlan(1, 1e9, "", 24, 1.0, 1.0, purpose="confirm")]
    add_costs(
        Screen(True),
        worlds.space(),
        Plan(64, 1e10, 1.0, 4, 1.0, rungs, [], []),
        None,
        None,
        4,
        None,
        Noise(0.01, "as given"),
    )
    budgets = json.loads(capsys.readouterr().out)["budgets"]
    assert [budget["trials"] for budget in budgets] == [10, 20, 40, 80, 160]
    assert budgets[2]["resolves"] == compare_budgets(worlds.space(), [160, 40], 0.01)[1].resolves


def test_no_gpu_is_said_as_submit_takes_it() -> None:
    """Past the check of costs: the next thing a plan needs is its space."""
    done = CliRunner().invoke(app, ["plan", "not-there.yaml", "--cloud", "aws", "--gpu", "none"])
    assert "not-there.yaml: there is no such file" in str(done.exception)


def test_the_noise_of_a_plan_is_that_of_the_runs_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs of each of four mixtures that differ by .2 nats in the objective: an sd of .2 / sqrt 2."""
    where = str(tmp_path / "s")
    assert noise_of(worlds.space(), where) == Noise(ASSUMED, "assumed: give --noise", assumed=True)
    study = Study.create(worlds.space(), where)
    with study.writing() as ledger:
        for i, mix_K in enumerate(np.repeat(np.random.default_rng(0).dirichlet(np.ones(3), 4), 2, axis=0)):
            (trial,) = ledger.propose([Proposal(mix_K, Scale(1e5, 5e5), 0)])
            loss_M = worlds.losses(mix_K, 1e5, 5e5) + 0.2 * (i % 2)
            ledger.observe(trial.trial_id, {f"loss/{n}": v for n, v in zip(worlds.DOMAINS, loss_M, strict=True)})
    found = noise_of(worlds.space(), where)
    assert (found.nats, found.assumed) == (pytest.approx(0.2 / 2**0.5), False)
    assert found.source == f"as seen in 8 trials of {where}"
    other = worlds.space(name="other", **{"from": [{"study": where}]})
    assert noise_of(other, str(tmp_path / "none")).nats == pytest.approx(0.2 / 2**0.5)
    assert noise_of(worlds.space(name="third"), where).assumed  # another space: its runs are not of this one
    add_costs(Screen(True), other, Plan(4, 1.0, 1.0, 4, 1.0, [RungPlan(1, 1e9, "", 4, 1.0, 1.0)], [], []), None, None,
              4, None, found)  # fmt: skip
    assert json.loads(capsys.readouterr().out)["noise"] == asdict(found)
