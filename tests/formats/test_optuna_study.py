"""A study's trials in an Optuna study: what its dashboard reads is what was recorded."""

from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner

from raymix import Study
from raymix.cli import app
from raymix.design import SpaceFilling
from raymix.formats.exporters import EXPORTERS, export_study
from raymix.formats.optuna_study import open_storage
from raymix.space import SearchSpace, SpaceError
from raymix.target.objective import reduce_losses
from tests import worlds


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Four done, one failed, one stopped, one pending."""
    space = worlds.space()
    work = Study.create(space, tmp_path / "s", designer=SpaceFilling(space))
    trials = work.ask(7)
    with work.writing() as ledger:
        for trial in trials[:4]:
            for row in worlds.rows(trial):
                ledger.observe(trial.trial_id, row)
        ledger.fail(trials[4].trial_id, "out of memory")
        ledger.observe(trials[5].trial_id, worlds.rows(trials[5])[0])
        ledger.fail(trials[5].trial_id, "clearly poor", "stopped")
    return work


@pytest.mark.parametrize("storage", ["sqlite:///{}/x.db", "{}/x.log"])
def test_trials_are_read_back_from_any_storage(study: Study, tmp_path: Path, storage: str) -> None:
    where = storage.format(tmp_path)
    done = CliRunner().invoke(app, ["export", str(study.store.path), "--to", "optuna", "--storage", where])
    assert done.exit_code == 0, done.output
    found = optuna.load_study(study_name="small", storage=open_storage(where))
    assert [trial.state for trial in found.trials] == [TrialState.COMPLETE] * 4 + [TrialState.FAIL, TrialState.PRUNED]
    last = study.table().usable().last()
    objective_B = reduce_losses(last.loss_BM, study.space.weights_M, "mean")
    for trial, mix_K, value, trial_id in zip(found.trials[:4], last.mix_BK, objective_B, last.trial_ids, strict=False):
        np.testing.assert_allclose([trial.params[f"share/{name}"] for name in worlds.DOMAINS], mix_K)
        assert trial.value == pytest.approx(value)
        assert trial.user_attrs["raymix_trial_id"] == trial_id
        assert len(trial.intermediate_values) == 2  # checkpoints, by tokens
        assert trial.user_attrs["loss/web"] > 0
    assert found.trials[4].user_attrs["reason"] == "out of memory"
    assert list(found.trials[5].intermediate_values) == [250_000]
    assert found.trials[5].user_attrs["reason"] == "clearly poor"
    assert found.best_value == pytest.approx(objective_B[:4].min())
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()  # the default needs scikit-learn before Optuna 5
    shares = ["share/web", "share/code"]
    assert optuna.importance.get_param_importances(found, evaluator=evaluator, params=shares)  # plots can use it


def test_writing_again_adds_only_what_is_new(study: Study, tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path}/x.db"
    assert export_study(study, "optuna", storage=where)[0].startswith("6 trials written")
    assert export_study(study, "optuna", storage=where)[0].startswith("0 trials written")
    (pending,) = study.ledger.pending()
    study.fail(pending.trial_id, "node lost")
    assert export_study(study, "optuna", storage=where)[0].startswith("1 trials written")
    assert len(optuna.load_study(study_name="small", storage=where).trials) == 7


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--to", "optuno"], "did you mean 'optuna'"),
        (["--to", "optuna"], "needs --storage"),
        (["--to", "optuna", "--storage", "x.db"], "a storage is a URL such as sqlite:///x.db"),
        (["--to", "optuna", "--storage", "nodb://x"], "Optuna cannot open it"),
        (["--to", "optuna", "--storage", "sqlite://", "--packed"], "has no option --packed"),
        (["--to", "megatron", "--storage", "sqlite://"], "has no option --storage"),
    ],
)
def test_mistakes_are_usage(study: Study, words: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["export", str(study.store.path), *words])
    assert isinstance(done.exception, SpaceError)  # exit code 2 through main()
    assert says in str(done.exception)


def test_every_target_is_a_function_of_a_study() -> None:
    assert {"optuna", "megatron", "hf-datasets", "olmo-core"} <= set(EXPORTERS)


def test_trials_are_written_at_the_scale_they_were_trained_at(tmp_path: Path) -> None:
    """However far from the ladder that is: a confirmation may name any scale, and a trainer's proxies are its own."""
    names = list(worlds.DOMAINS)
    target = {"n_params": 1e9, "n_tokens": 1e10}
    space = SearchSpace.parse({"name": "names", "domains": names, "eval_domains": names, "target": target})
    work = Study.create(space, tmp_path / "s")
    for trial, n_params in zip(work.ask(2), (1e4, 1e10), strict=True):
        work.tell(trial.trial_id, dict.fromkeys(names, 3.0), n_params=n_params, n_tokens=3e6)
    export_study(work, "optuna", storage=f"{tmp_path}/x.log")
    found = optuna.load_study(study_name="names", storage=open_storage(f"{tmp_path}/x.log"))
    assert [(trial.params["n_params"], trial.params["n_tokens"]) for trial in found.trials] == [(1e4, 3e6), (1e10, 3e6)]


def test_a_metric_is_no_loss_in_nats(tmp_path: Path) -> None:
    raw = worlds.space().model_dump(mode="json", exclude_none=True)
    raw |= {"metrics": [{"name": "arc", "better": "high"}], "objective": {"weights": {"arc": 1}}}
    del raw["budget"]
    work = Study.create(SearchSpace.parse(raw), tmp_path / "s")
    (trial,) = work.ask(1)
    work.tell(trial.trial_id, dict.fromkeys(worlds.DOMAINS, 3.0), metrics={"arc": 0.75})
    export_study(work, "optuna", storage=f"{tmp_path}/x.log")
    found = optuna.load_study(study_name="small", storage=open_storage(f"{tmp_path}/x.log"))
    assert found.best_value == pytest.approx(0.25)
    assert found.user_attrs["raymix"]["objective"] == "1 \u2212 arc"
    assert found.trials[0].user_attrs["metric/arc"] == 0.75
