"""Numbers beside the losses as objectives: reported by anybody's trainer, recorded, fitted, minimised or maximised."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from raymix import MixtureSearch, Study, simplex
from raymix.cli import app
from raymix.formats import import_runs
from raymix.observations import Observations
from raymix.results import write_results
from raymix.screens.screen import Screen
from raymix.simplex import Array
from raymix.space import Metric, SearchSpace, SpaceError
from raymix.study.agenda import next_trials
from raymix.study.gain import Gain, words
from raymix.study.ledger import Ledger
from raymix.study.stopping import clearly_poor, stopped
from raymix.study.trial import Trial
from raymix.target.objective import unit, unit_of, with_unit
from raymix.target.reading import Interval
from raymix.target.recommend import NotEnoughTrialsError
from tests import worlds

ACCURACY = {"name": "exams", "better": "high"}
SLOWNESS = {"name": "slow"}


def space(**changes: Any) -> SearchSpace:
    given = {"metrics": [ACCURACY, SLOWNESS], "objective": {"weights": {"exams": 1.0}}}
    return worlds.space(**given | {"budget": {"trials": 16, "per_round": 4}} | changes)


def accuracy(mix_K: Array, n_params: float, n_tokens: float) -> float:
    """Code teaches what the exams ask, books a little; between 0 and 1, and better at scale."""
    return float(1 - worlds.losses(mix_K, n_params, n_tokens) @ np.array([0.0, 0.08, 0.04]))


def slowness(mix_K: Array, n_params: float, n_tokens: float) -> float:
    """Of another unit than losses, and lower is better."""
    return float(100 * worlds.losses(mix_K, n_params, n_tokens)[2])


def losses(trial: Trial) -> dict[str, float]:
    mix_K = np.asarray([trial.mixture[name] for name in worlds.DOMAINS])
    return dict(zip(worlds.DOMAINS, worlds.losses(mix_K, trial.n_params, trial.n_tokens).tolist(), strict=True))


def metrics(trial: Trial) -> dict[str, float]:
    mix_K = np.asarray([trial.mixture[name] for name in worlds.DOMAINS])
    at = mix_K, trial.n_params, trial.n_tokens
    return {"exams": accuracy(*at), "slow": slowness(*at)}


def played(path: Path, **changes: Any) -> Study:
    study = Study.create(space(**changes), path, seed=1)
    while not study.finished:
        for trial in study.ask(4):
            study.tell(trial.trial_id, losses(trial), n_tokens=trial.n_tokens / 2, status="checkpoint")
            study.tell(trial.trial_id, losses(trial), metrics=metrics(trial))
    return study


def test_a_metric_of_ones_own_trainer_is_maximised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mixture recommended has at the target the accuracy of the best one, within a tenth of what there is to gain.

    The truth is smooth and known; the best is the best of 4000 mixtures, and the gain is over the prior.
    """
    study = played(tmp_path / "s")
    found = study.recommend()
    target = study.space.target.scale
    tried_BK = simplex.sample(study.space.polytope(), 4000, np.random.default_rng(0))
    best = max(accuracy(mix_K, *target) for mix_K in tried_BK)
    prior = accuracy(study.space.prior_K(), *target)
    reached = accuracy(study.space.mixture(found.mixture), *target)
    assert best - prior > 0.01
    assert reached > best - 0.1 * (best - prior)
    assert found.objective.low <= 1 - reached <= found.objective.high  # of an accuracy: the zero-one loss
    assert set(found.losses) == {*worlds.DOMAINS, "exams", "slow"}  # what has no weight is read too
    assert found.unit == "1 - exams" and "in 1 - exams (90% interval" in found.verdict["reason"]
    with Screen(as_json=False) as screen:
        screen.recommendation(study, found)
    said = " ".join(capsys.readouterr().out.split())
    assert "nats" not in said and "predicted objective (1 - exams)" in said and "in 1 - exams: error" in said


def test_what_was_reported_and_what_is_minimised_are_both_kept(tmp_path: Path) -> None:
    study = played(tmp_path / "s")
    table = Study.open(tmp_path / "s").table()
    done = table.status_B == "done"
    np.testing.assert_allclose(1 - table.column("metric/exams")[done], table.column("loss/exams")[done])
    np.testing.assert_array_equal(table.column("metric/slow")[done], table.column("loss/slow")[done])
    assert np.isnan(table.column("metric/exams")[~done]).all()  # checkpoints came without
    table.write(tmp_path / "t.csv")
    again = import_runs("exchange", tmp_path / "t.csv")
    assert again.metrics == ("exams", "slow")
    np.testing.assert_allclose(again.column("metric/exams"), table.column("metric/exams"))
    np.testing.assert_allclose(Observations.read(tmp_path / "t.csv").loss_BM, table.loss_BM)
    assert study.space.eval_names == again.eval_domains


def test_the_searcher_takes_them_from_a_trainable() -> None:
    search = MixtureSearch(space())
    config = search.suggest("t0")
    assert isinstance(config, dict)
    trial = search.ledger.trials[config["trial_id"]]
    row = {f"loss/{name}": value for name, value in losses(trial).items()} | {"n_tokens": trial.n_tokens}
    search.on_trial_complete("t0", row | {f"metric/{name}": value for name, value in metrics(trial).items()})
    other = search.suggest("t1")
    assert isinstance(other, dict)
    search.on_trial_complete("t1", row)
    table = search.ledger.table()
    assert table.status_B.tolist() == ["done", "failed"]
    assert "metric/exams was not reported" in table.table["reason"].to_pylist()[1]


def test_mistakes_in_a_report(tmp_path: Path) -> None:
    study = Study.create(space(), tmp_path / "s")
    (trial,) = study.ask(1)
    with pytest.raises(ValueError, match="metric/exams was not reported"):
        study.tell(trial.trial_id, losses(trial), metrics={"slow": 40.0})
    with pytest.raises(ValueError, match="metric/exams is 41, above its best, 1: say best in the space"):
        study.tell(trial.trial_id, losses(trial), metrics={"exams": 41.0, "slow": 40.0})
    with pytest.raises(ValueError, match="'exam' is not a metric of this study"):
        study.tell(trial.trial_id, losses(trial), metrics={"exam": 0.41})
    with pytest.raises(ValueError, match="'exams' is not an eval domain of this study"):
        study.tell(trial.trial_id, losses(trial) | {"exams": 0.41})
    assert clearly_poor(study.ledger, trial, {"metric/exams": 41.0, "n_tokens": 1e5}) is None
    study.tell(trial.trial_id, losses(trial), metrics={"exams": float("nan"), "slow": 40.0})
    assert study.table().status_B.tolist() == ["failed"]


def test_results_from_a_shell(tmp_path: Path) -> None:
    study = Study.create(space(), tmp_path / "s")
    trials = study.ask(4)
    rows: list[dict[str, Any]] = [
        {"trial_id": t.trial_id, **{f"loss/{n}": v for n, v in losses(t).items()}}
        | {f"metric/{n}": v for n, v in metrics(t).items()}
        for t in trials
    ]
    with (tmp_path / "r.csv").open("w") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    told = CliRunner().invoke(app, ["tell", str(tmp_path / "s"), str(tmp_path / "r.csv")])
    assert told.exit_code == 0, told.output
    table = Study.open(tmp_path / "s").table()
    np.testing.assert_allclose(table.column("metric/exams"), [row["metric/exams"] for row in rows])


@pytest.mark.parametrize(
    ("metric", "value", "loss"),
    [
        ({"better": "low"}, 31.5, 31.5),
        ({"better": "high"}, 0.25, 0.75),
        ({"better": "high", "best": 100}, 41.0, 59.0),
        ({"better": "high"}, 1.0, 1e-3),  # a perfect score still has a logarithm
    ],
)
def test_what_is_minimised_in_its_place(metric: dict[str, Any], value: float, loss: float) -> None:
    assert Metric.model_validate({"name": "m", **metric}).loss(value) == pytest.approx(loss)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": [{"name": "web"}], "objective": {}}, "'web' is named twice"),
        ({"metrics": [], "objective": {"weights": {"exams": 1}}}, "'exams' is not an eval domain or metric"),
        ({"metrics": [{"name": "exams", "shots": 5}]}, "shots belongs to a task"),
        ({"metrics": [{"name": "exams", "best": 100}]}, "best belongs to better: high"),
    ],
)
def test_nonsense_in_a_space_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        space(**changes)


@pytest.mark.parametrize(
    ("weights", "unit"),
    [
        (None, "nats"),
        ({"web": 1.0, "exams": 0.0}, "nats"),
        ({"exams": 1.0}, "1 - exams"),
        ({"slow": 1.0}, "slow"),
        ({"exams": 1.0, "slow": 1.0}, "units of the metrics"),
        ({"web": 1.0, "exams": 1.0}, "nats and metrics together"),
    ],
)
def test_only_an_objective_of_losses_is_in_nats(weights: dict[str, float] | None, unit: str) -> None:
    """So say the sentences of an early stop and of a confirmation too."""
    book = Ledger(space(objective={"weights": weights}))
    assert unit_of(book.space) == unit
    book.note("stop", {"trials": 9, "expected_improvement": 0.01, "noise": 0.02})
    said = words("prior", Gain(Interval(0.05, 0.01, 0.09), None, None, None, None, 0, {}), 2, unit)
    for sentence in (str(stopped(book)), said):
        assert (" nats" in sentence) == ("nats" in unit) and unit in sentence


@pytest.mark.parametrize(
    ("names", "weights", "said"),
    [
        (("mmlu_bpb", "code:bits_per_byte"), (1, 1), "bits per byte"),
        (("mmlu_bpb", "web"), (1, 0), "bits per byte"),
        (("mmlu_bpb", "web"), (1, 1), "bits per byte and nats together"),
        (("mmlu_bpb", "exams"), (1, 1), "bits per byte and metrics together"),
        (("web", "subpbank", "habits"), (1, 1, 1), "nats"),
    ],
)
def test_losses_called_bits_per_byte_are_not_said_to_be_nats(
    names: tuple[str, ...], weights: tuple[float, ...], said: str
) -> None:
    found = unit(names, np.array(weights), {"exams": "1 - exams"})
    assert found == said
    if said == "bits per byte":
        assert with_unit(".05", found) == ".05 bits per byte"


def test_metrics_weigh_nothing_until_they_are_named() -> None:
    np.testing.assert_allclose(space(objective={}).weights_M, [1 / 3, 1 / 3, 1 / 3, 0, 0])
    np.testing.assert_array_equal(space().own_M, [0, 1, 2, -1, -1])
    assert space().hash() != worlds.space().hash()
    assert space(metrics=[], objective={}).hash() == worlds.space().hash()


def test_evidence_with_metrics_counts_where_they_mean_the_same(tmp_path: Path) -> None:
    played(tmp_path / "old")
    Study.open(tmp_path / "old").table().write(tmp_path / "old.parquet")
    same = Study.create(space(**{"from": [{"study": str(tmp_path / "old")}]}), tmp_path / "same").table()
    assert np.isfinite(same.loss_BM[:, 3]).sum() == 16
    low = [{**ACCURACY, "better": "low"}, SLOWNESS]
    other = Study.create(space(metrics=low, **{"from": [str(tmp_path / "old")]}), tmp_path / "other")
    assert any("'exams' is another text" in note for body in other.ledger.reused.values() for note in body["notes"])
    table = Observations.read(tmp_path / "old.parquet")
    bare = table.table.drop_columns(["loss/exams", "loss/slow"])
    pyarrow.parquet.write_table(bare, tmp_path / "bare.parquet")
    told = Study.create(space(**{"from": [str(tmp_path / "bare.parquet")]}), tmp_path / "told").table()
    np.testing.assert_allclose(told.loss_BM, same.loss_BM)


def test_fit_reads_a_law_of_a_metric_from_a_table(tmp_path: Path) -> None:
    table = played(tmp_path / "s").table()
    pyarrow.csv.write_csv(table.table.drop_columns(["loss/exams", "loss/slow"]), tmp_path / "t.csv")
    run = CliRunner().invoke
    fitted = ["fit", str(tmp_path / "t.csv"), "-o", str(tmp_path / "law.json"), "--law", "union"]
    unsaid = run(app, [*fitted, "--eval", "exams"])
    assert (unsaid.exit_code, "--metric exams=high or --metric exams=low" in unsaid.output) == (2, True)
    refused = run(app, [*fitted, "--metric", "exams=best"])
    assert (refused.exit_code, "write exams=high or exams=low" in refused.output) == (2, True)
    twice = run(app, [*fitted, "--metric", "exams=high", "--metric", "exams=low"])
    assert (twice.exit_code, "a metric stands twice" in twice.output) == (2, True)
    percent = run(app, [*fitted, "--metric", "slow=high"])  # a space says what the best is, a table does not
    assert (percent.exit_code, "divide per cents by 100" in percent.output) == (2, True)
    done = run(app, [*fitted, "--metric", "exams=high", "--weights", "exams=1"])
    assert done.exit_code == 0, done.output
    at = ["--n-params", "4e6", "--n-tokens", "1e7", "-o", str(tmp_path / "r.json")]
    best = run(app, ["optimize", str(tmp_path / "law.json"), *at])
    assert best.exit_code == 0
    assert "nats" not in best.output and "in 1 - exams (90% interval" in best.output
    (tmp_path / "w.json").write_text('{"web": 1}')
    web = run(app, ["optimize", str(tmp_path / "law.json"), *at, "--objective", str(tmp_path / "w.json")])
    assert "nats (90% interval" in web.output and "exams (90%" not in web.output


def test_a_table_of_a_study_says_what_is_minimised_of_a_metric_in_per_cents(tmp_path: Path) -> None:
    table = played(tmp_path / "s").table().table
    for name in ("metric/exams", "loss/exams"):
        column = pa.array([None if value is None else 100 * value for value in table[name].to_pylist()], pa.float64())
        table = table.set_column(table.column_names.index(name), name, column)
    pyarrow.csv.write_csv(table, tmp_path / "t.csv")
    fitted = ["fit", str(tmp_path / "t.csv"), "-o", str(tmp_path / "law.json"), "--law", "union"]
    done = CliRunner().invoke(app, [*fitted, "--metric", "exams=high"])
    assert done.exit_code == 0, done.output


def test_a_trial_is_poor_by_what_is_weighed_alone() -> None:
    small = {"ladder": [{"n_params": 1e5, "n_tokens": 5e5}], "budget": {"trials": 60, "per_round": 8}}
    for weights, poor in (({"web": 1.0}, True), ({"web": 1.0, "exams": 1.0}, False)):  # exams come at the end
        book = Ledger(space(**small, objective={"weights": weights}))
        for trial in book.ask(8):
            measured = {f"metric/{name}": value for name, value in metrics(trial).items()}
            for row in worlds.rows(trial):
                book.observe(trial.trial_id, row | (measured if row["status"] == "done" else {}))
        (trial,) = book.ask(1)
        bad = worlds.rows(trial)[0] | {f"loss/{name}": 9.0 for name in worlds.DOMAINS}
        assert (clearly_poor(book, trial, bad) is not None) == poor


def test_a_metric_that_no_trial_measured_is_a_reason_not_a_crash(tmp_path: Path) -> None:
    study = Study.create(space(confirm={"seeds": 1}), tmp_path / "s")
    while trials := next_trials(study.ledger, 4):  # as a study that may stop early asks
        for trial in trials:
            study.tell(trial.trial_id, losses(trial), n_tokens=trial.n_tokens / 2, status="checkpoint")
            study.fail(trial.trial_id, "the harness did not answer")
    assert len(study.ledger.trials) == 14, "two trials were kept for a confirmation that cannot be planned"
    said = "no trial measured exams, slow.*the harness did not answer"
    assert re.search(said, study.ledger.confirmations[-1]["why"])
    with pytest.raises(NotEnoughTrialsError, match=said):
        write_results(study)
    assert study.store.has("report.html")
