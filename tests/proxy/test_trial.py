"""A trial on real Ray whose worker goes away ends with the rows it would have had."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

from raymix import simplex
from raymix.corpus import Corpus
from raymix.design import Proposal
from raymix.on_ray.kept import Kept, needed
from raymix.on_ray.run import MAX_RETRIES
from raymix.on_ray.shards import share
from raymix.on_ray.trial import ProxyTrial, pause
from raymix.proxy import resolve
from raymix.proxy.checkpoint import Checkpoints
from raymix.proxy.train import train_proxy
from raymix.space import Scale, SearchSpace
from raymix.study.ledger import Ledger
from tests import worlds

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]  # starts Ray

TRIAL = {"trial_id": "t1", "mixture": {"a": 0.3, "b": 0.7}, "n_params": 1e4, "n_tokens": 128 * 300, "seed": 0}


class GoOnce(tune.Callback):
    """Sends a signal to the trial's worker after the first of its rows by which a checkpoint was there."""

    def __init__(self, signum: signal.Signals, folder: Path) -> None:
        self.signum, self.folder = signum, folder
        self.sent_at = 0.0
        self.seen: list[dict[str, Any]] = []
        self.steps: list[str] = []

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        self.seen.append(result)
        self.steps = sorted(path.name for path in self.folder.glob("step-*"))
        if self.steps and not self.sent_at:
            self.sent_at = result["n_tokens"]
            os.kill(result["pid"], self.signum)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_trial_whose_worker_goes_away_ends_with_the_same_rows(
    corpus: Corpus, make_space: Callable[..., SearchSpace], tmp_path: Path, signum: signal.Signals
) -> None:
    space = make_space(checkpoint_seconds=1e-3, checkpoints=5)
    folder = tmp_path / "checkpoints"
    going = GoOnce(signum, folder / "t1")
    trainable = tune.with_parameters(
        ProxyTrial, space_json=space.model_dump_json(), folder=str(tmp_path), shards=share(corpus), kept=Kept(folder)
    )
    results = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space=TRIAL,
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "tune"),
            verbose=0,
            callbacks=[going],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=1),
        ),
    ).fit()
    assert not results.errors
    assert going.sent_at
    mixture_K = np.asarray([0.3, 0.7])
    expected = list(train_proxy(corpus, space, mixture_K, 1e4, 128 * 300, 0, device="cpu", threads=1))
    last = {result["n_tokens"]: result for result in going.seen}
    assert len(going.seen) > len(last) == len(expected)  # rows reported before the signal came again
    assert [result["status"] for result in last.values()] == ["checkpoint"] * 4 + ["done"]
    for row in expected:
        for key in (key for key in row if key != "seconds"):
            assert last[row["n_tokens"]][key] == row[key], key
    assert going.steps  # the trial has ended, its records are the driver's: who deletes them is the driver
    run_steps = resolve(space.recipe, 1e4, 128 * 300, corpus.vocab).n_steps
    assert int(going.steps[-1].removeprefix("step-")) < run_steps
    Kept(folder).forget_all_but({"t1"})
    assert (folder / "t1").is_dir()
    Kept(folder).forget_all_but(set())
    assert not folder.exists()


def test_a_promoted_trial_goes_on_from_what_the_shorter_left(
    corpus: Corpus, make_space: Callable[..., SearchSpace], tmp_path: Path
) -> None:
    lengths = [128 * 40.0, 128 * 100.0]
    ladder = [{"n_params": 1e4, "n_tokens": n} for n in lengths]
    space = SearchSpace.parse(make_space().model_dump(mode="json", exclude_none=True) | {"ladder": ladder})
    kept = Kept(tmp_path / "checkpoints")

    def rows(trial: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        runner = ProxyTrial.__new__(ProxyTrial)  # as Tune's actor, here
        before = signal.getsignal(signal.SIGTERM)
        config = TRIAL | {"purpose": "search"} | trial
        runner.setup(config, space.model_dump_json(), str(tmp_path), share(corpus), kept)
        signal.signal(signal.SIGTERM, before)
        while not found or not found[-1].get("done"):
            found.append(runner.step())
        return found

    rows({"trial_id": "short", "n_tokens": lengths[0]})
    assert len(list((tmp_path / "checkpoints" / "short").glob("step-*"))) == 1, "its end"
    longer = {"trial_id": "long", "n_tokens": lengths[1], "continues": "short", "after": [lengths[0]]}
    with_state = rows(longer)
    kept.forget_all_but(set())
    without = rows(longer)
    assert [row["n_tokens"] for row in with_state] == [row["n_tokens"] for row in without]
    for key in (key for key in with_state[-1] if key.startswith("loss/")):
        assert with_state[-1][key] == without[-1][key]


def test_states_are_kept_while_they_may_be_asked_for() -> None:
    lengths = [{"n_params": 1e5, "n_tokens": n} for n in (5e5, 1e6)]
    ledger = Ledger(worlds.space(ladder=lengths, budget={"trials": 5, "per_round": 4}))
    few, more = (Scale(**rung) for rung in lengths)
    mixtures = simplex.sample(ledger.space.polytope(), 4, np.random.default_rng(0))  # what is outside never goes on
    trials = ledger.propose([Proposal(mix_K, few, 0) for mix_K in mixtures])
    assert needed(ledger) == {trial.trial_id for trial in trials}
    for trial in trials:
        for row in worlds.rows(trial):
            ledger.observe(trial.trial_id, row)
    best = sorted(trials, key=lambda trial: ledger.table().loss_BM[1::2].mean(axis=1)[trials.index(trial)])
    assert needed(ledger) == {best[0].trial_id, best[1].trial_id}, "the better half may go on"
    (longer,) = ledger.propose([Proposal(ledger.space.mixture(best[0].mixture), more, 0)])
    assert longer.continues == best[0].trial_id
    assert needed(ledger) >= {longer.trial_id, best[0].trial_id}
    for row in worlds.rows(longer):
        ledger.observe(longer.trial_id, row)
    assert not needed(ledger), "the budget is spent"


def test_a_kept_model_survives_the_end_of_its_trial(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "t1" / "final").mkdir(parents=True)
    (tmp_path / "checkpoints" / "t1" / "step-00000003").mkdir()
    Kept(tmp_path / "checkpoints").forget_all_but(set())
    assert [path.name for path in (tmp_path / "checkpoints" / "t1").iterdir()] == ["final"]
    Checkpoints(tmp_path / "checkpoints" / "t1").remove()
    assert (tmp_path / "checkpoints" / "t1" / "final").is_dir()


def test_each_retry_waits_twice_as_long() -> None:
    assert [pause(retry) for retry in range(1, MAX_RETRIES + 1)] == [5, 10, 20, 40]
