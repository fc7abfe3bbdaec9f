"""Trackers get what a study measures, in their own files; none of them can hold it up or end it."""

import logging
import posixpath
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from raymix.on_ray import trackers
from raymix.on_ray.trackers import Tracking, telling, tracking
from raymix.study.ledger import Ledger
from raymix.study.trial import Trial
from raymix.yaml12 import SpaceError
from tests import worlds
from tests.cluster.head import ROOT, head


def play(tracked: Tracking) -> Ledger:
    """A round of a study, told to trackers as a driver would."""
    ledger = Ledger(worlds.space(), seed=0)
    tell = telling(ledger, tracked, lambda: 2.5)
    trials = ledger.ask(4)
    tell("round", None)
    for trial in trials[:3]:
        for row in worlds.rows(trial):
            ledger.observe(trial.trial_id, row)
            tell("checkpoint" if row["status"] == "checkpoint" else "ended", trial)
    ledger.fail(trials[3].trial_id, "diverged")
    tell("ended", trials[3])
    return ledger


def test_tensorboard_files_hold_the_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMIX_TRACKERS", "tensorboard")
    with tracking("small", tmp_path) as tracked:
        ledger = play(tracked)
    folders = {path.name for path in (tmp_path / "tensorboard").iterdir()}
    assert folders == {*ledger.trials, "study"}
    (file,) = (tmp_path / "tensorboard" / next(iter(ledger.trials))).glob("events.*")
    assert b"loss/web" in file.read_bytes()
    (file,) = (tmp_path / "tensorboard" / "study").glob("events.*")
    assert b"best_predicted_loss" in file.read_bytes()


@pytest.mark.skipif(util.find_spec("mlflow") is None, reason="mlflow is not installed")
@pytest.mark.slow
def test_mlflow_has_a_run_per_trial_below_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("RAYMIX_TRACKERS", "mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with tracking("small", tmp_path) as tracked:
        ledger = play(tracked)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("raymix/small")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {*ledger.trials, "small"}
    *done, failed = ledger.trials
    assert runs[failed].info.status == "FAILED"
    assert runs["small"].data.metrics["trials_done"] == 3
    row = ledger.last_row(done[0])
    assert row is not None and runs[done[0]].data.metrics["loss/web"] == pytest.approx(row["loss/web"])
    assert runs[done[0]].data.tags["mlflow.parentRunId"] == runs["small"].info.run_id


def test_mlflow_is_told_how_a_trial_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that was stopped is no failure there."""
    ends: list[str] = []
    known = SimpleNamespace(experiment_id="1", info=SimpleNamespace(run_id="r"))
    client = SimpleNamespace(
        get_experiment_by_name=lambda name: known, create_run=lambda *args, **named: known,
        log_param=lambda *args: None, set_terminated=lambda run, status: ends.append(status),
    )  # fmt: skip
    monkeypatch.setattr(trackers, "import_module", lambda name: SimpleNamespace(MlflowClient=lambda uri: client))
    tracker = trackers.MLflow("small", tmp_path)
    for trial, status in zip(Ledger(worlds.space()).ask(3), ("done", "stopped", "failed"), strict=True):
        tracker.end(trial, status)
    assert ends == ["FINISHED", "KILLED", "FAILED"]


@pytest.mark.skipif(util.find_spec("wandb") is None, reason="wandb is not installed")
@pytest.mark.slow
def test_wandb_offline_writes_a_run_per_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMIX_TRACKERS", "wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with tracking("small", tmp_path) as tracked:
        play(tracked)
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 5


def test_wandb_draws_losses_over_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: dict[str, list[tuple[int, dict[str, float]]]] = {}

    def init(name: str, **more: Any) -> SimpleNamespace:
        def log(row: dict[str, float], step: int) -> None:
            logged.setdefault(name, []).append((step, row))

        return SimpleNamespace(log=log, finish=lambda exit_code: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.setenv("RAYMIX_TRACKERS", "wandb")
    with tracking("small", tmp_path) as tracked:
        ledger = play(tracked)
    trial = next(iter(ledger.trials.values()))
    last = ledger.last_row(trial.trial_id)
    assert [step for step, _ in logged[trial.trial_id]] == [trial.n_tokens / 2, trial.n_tokens]
    assert last is not None and logged[trial.trial_id][-1][1]["loss/web"] == last["loss/web"]
    assert [step for step, _ in logged["study"]] == [1, 2, 3, 4, 5]


DRIVER = """
import sys, ray
from pathlib import Path
from raymix.on_ray.trackers import tracking
from tests.cluster.test_trackers import play
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
with tracking("small", Path(sys.argv[2])) as tracked:
    play(tracked)
    print("told", flush=True)
    sys.stdin.read()
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(util.find_spec("aiohttp") is None, reason="metrics are exported by ray[default]")
def test_prometheus_scrapes_a_study_from_where_ray_exports_its_own(tmp_path: Path) -> None:
    with head(Path(tempfile.mkdtemp(prefix="rm-"))) as running:
        known = running.environment | {"RAYMIX_TRACKERS": "prometheus", "RAY_metrics_report_interval_ms": "1000"}
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, running.gcs, str(tmp_path)], cwd=ROOT, env=known, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert driver.stdout is not None and driver.stdout.readline() == "told\n"
        found: dict[str, float] = {}
        until = time.monotonic() + 90
        while len(found) < 5 and time.monotonic() < until:
            found = scraped(running.metrics)
            time.sleep(0.5)
        driver.communicate("")
    assert (found["trials_done"], found["trials_failed"], found["trials_stopped"]) == (3, 1, 0)
    assert found["best_predicted_loss"] == 2.5 and "trial_hours" in found


def scraped(address: str) -> dict[str, float]:
    """Our gauges of the study `small`, by name."""
    with urllib.request.urlopen(address, timeout=30) as answer:
        text = answer.read().decode()
    lines = re.findall(r'^ray_raymix_(\w+)\{[^}]*study="small"[^}]*\} (\S+)$', text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


class Broken:
    """Fails at everything."""

    def __init__(self, name: str, folder: Path) -> None:
        self.calls = 0

    def row(self, trial: Trial, row: Mapping[str, Any]) -> None:
        self.calls += 1
        raise ConnectionError("no route")

    end = study = row  # type: ignore[assignment]

    def close(self) -> None:
        raise AssertionError("a tracker that failed is left alone")


def test_a_failing_tracker_is_left_out_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "broken", Broken)
    monkeypatch.setenv("RAYMIX_TRACKERS", "broken,tensorboard")
    with caplog.at_level(logging.WARNING), tracking("small", tmp_path) as tracked:
        play(tracked)
    assert [record.message for record in caplog.records if "broken" in record.message].__len__() == 1
    assert (tmp_path / "tensorboard" / "study").is_dir()


def test_a_tracker_that_is_not_installed_is_said_and_an_unknown_one_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent(name: str, folder: Path) -> trackers.Tracker:
        raise ModuleNotFoundError("No module named 'wandb'", name="wandb")

    monkeypatch.setitem(trackers.TRACKERS, "wandb", absent)
    monkeypatch.setenv("RAYMIX_TRACKERS", "wandb")
    with caplog.at_level(logging.WARNING), tracking("small", tmp_path) as tracked:
        play(tracked)
    assert "No module named 'wandb': pip install wandb; the study goes on without it" in caplog.text
    monkeypatch.setenv("RAYMIX_TRACKERS", "tensorbord")
    with pytest.raises(SpaceError, match="tensorbord"), tracking("small", tmp_path):
        pass


def test_names_become_what_every_tracker_takes() -> None:
    row = {"loss/naïve <b>": 1.0, "loss/web": float("nan"), "seconds": 2, "mixture/web": 0.5, "status": "done"}
    assert trackers.numbers_of(row) == {"loss/naxefvex20x3cbx3e": 1.0, "seconds": 2.0}


@pytest.mark.parametrize("name", ["../../etc", "a//b", "/a", "a/", ".", ".."])
def test_names_like_paths_that_lead_elsewhere_are_coded(name: str) -> None:
    (key,) = trackers.numbers_of({f"loss/{name}": 1.0})
    assert posixpath.normpath(key) == key and key.startswith("loss/")  # what MLflow asks of a name
    assert ".." not in key
    (other,) = trackers.numbers_of({"loss/a/b.c": 1.0})
    assert other == "loss/a/b.c"


def test_hours_of_trials_are_those_they_took() -> None:
    told: list[Mapping[str, float]] = []
    ledger = Ledger(worlds.space(), seed=0)
    tracked = SimpleNamespace(tell=lambda what, *about: told.append(about[0]) if what == "study" else None)
    tell = telling(ledger, cast(Tracking, tracked), lambda: None)
    for trial in ledger.ask(2):
        for row in worlds.rows(trial):
            ledger.observe(trial.trial_id, row | {"seconds": 1800.0})
        tell("ended", trial)
    assert [numbers["trial_hours"] for numbers in told] == [0.5, 1.0]
