"""Ask and tell: a study with somebody else's trainer, in Python and from the shell."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from raymix import Study
from raymix.cli import app, main
from raymix.formats.exporters import export_study
from raymix.results import results
from raymix.space import SpaceError
from raymix.store import StoreError
from raymix.study.trial import Trial
from tests import worlds


def train(trial: Trial) -> dict[str, float]:
    """Stands for anybody's trainer."""
    mix_K = np.asarray([trial.mixture[name] for name in worlds.DOMAINS])
    return dict(zip(worlds.DOMAINS, worlds.losses(mix_K, trial.n_params, trial.n_tokens).tolist(), strict=True))


def test_the_readme_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very lines of the README, with names, ladder and target alone in the space."""
    names = {"domains": [{"name": n} for n in worlds.DOMAINS], "eval_domains": [{"name": n} for n in worlds.DOMAINS]}
    scales = {"ladder": [{"n_params": 1e5, "n_tokens": 5e5}], "target": {"n_params": 4e6, "n_tokens": 1e7}}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({"name": "names only", **names, **scales}))
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "study.ask" in block]
    monkeypatch.chdir(tmp_path)
    said: list[Any] = []
    exec(compile(code, "README.md", "exec"), {"train": train, "print": said.append})
    found = Study.open(tmp_path / "runs" / "mine").recommend()
    assert said == [found.mixture]
    assert sum(found.mixture.values()) == pytest.approx(1, abs=1e-9)
    assert Study.open(tmp_path / "runs" / "mine").recommend(scale=(1e9, 1e7)).scale["n_params"] == 1e9


def test_checkpoints_failures_and_mistakes(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    one, two = study.ask(2)
    study.tell(one.trial_id, train(one), n_tokens=one.n_tokens / 2, status="checkpoint")
    study.tell(one.trial_id, train(one), tokens_seen={"web": 1e5})
    study.fail(two.trial_id, "node lost")
    assert study.table().status_B.tolist() == ["checkpoint", "done", "failed"]
    with pytest.raises(ValueError, match="'exams' is not an eval domain"):
        study.tell(one.trial_id, {"exams": 1.0})
    with pytest.raises(ValueError, match="never proposed"):
        study.tell("nobody", train(one))
    with pytest.raises(StoreError, match="there is a study already"):
        Study.create(worlds.space(), tmp_path / "s")


def test_resume_refuses_another_space_and_names_the_difference(tmp_path: Path) -> None:
    Study.resume(worlds.space(), tmp_path / "s").ask(1)
    with pytest.raises(SpaceError, match=r"target\.n_tokens: 10000000\.0 -> 20000000\.0"):
        Study.resume(worlds.space(target={"n_params": 4e6, "n_tokens": 2e7}), tmp_path / "s")
    with pytest.raises(SpaceError, match="begun with seed 0, not 7"):
        Study.resume(worlds.space(), tmp_path / "s", seed=7)
    larger = Study.resume(worlds.space(budget={"trials": 20}), tmp_path / "s")
    assert larger.space.budget.trials == 20
    assert len(larger.ledger.trials) == 1
    assert Study.open(tmp_path / "s").space.budget.trials == 20


def test_ask_and_tell_from_the_shell(tmp_path: Path) -> None:
    Study.create(worlds.space(), tmp_path / "s")
    raymix = [sys.executable, "-m", "raymix"]
    out = subprocess.run([*raymix, "ask", str(tmp_path / "s"), "-n", "4"], capture_output=True, text=True, check=True)
    trials = [Trial(**json.loads(line)) for line in out.stdout.splitlines()]
    with open(tmp_path / "results.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["trial_id", *(f"loss/{name}" for name in worlds.DOMAINS)])
        table.writerows([trial.trial_id, *train(trial).values()] for trial in trials)
    subprocess.run([*raymix, "tell", str(tmp_path / "s"), str(tmp_path / "results.csv")], check=True)
    state = subprocess.run(
        [*raymix, "status", str(tmp_path / "s"), "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(state.stdout)["done"] == 4
    done = subprocess.run([*raymix, "report", str(tmp_path / "s")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "s" / "report.html").is_file()


def test_results_are_read_back_until_something_changes(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    for trial in study.ask(8):
        study.tell(trial.trial_id, train(trial))
    written = results(study)
    before = (tmp_path / "s" / "report.html").stat().st_mtime_ns
    assert results(Study.open(tmp_path / "s")) == written
    assert (tmp_path / "s" / "report.html").stat().st_mtime_ns == before
    (trial,) = study.ask(1)
    study.tell(trial.trial_id, train(trial))
    assert results(study).evidence["trials"] == 9
    worst = Study.resume(worlds.space(objective={"reduce": "worst"}), tmp_path / "s")
    assert results(worst).objective != written.objective


def test_a_fork_keeps_what_is_still_valid(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = Study.create(worlds.space(), tmp_path / "old", seed=3)
    for trial in old.ask(4):
        old.tell(trial.trial_id, train(trial))
    changed = worlds.space(target={"n_params": 4e6, "n_tokens": 2e7})
    with pytest.raises(SpaceError, match="--fork NEW"):
        Study.resume(changed, tmp_path / "old")
    new = Study.fork(changed, tmp_path / "old", tmp_path / "new", seed=0)
    np.testing.assert_allclose(new.table().loss_BM, old.table().loss_BM)
    assert not new.ledger.trials  # what was taken costs nothing of the budget
    again = Study.fork(changed, tmp_path / "old", tmp_path / "new")  # the same command again resumes
    assert len(again.table()) == 4
    assert Study.open(tmp_path / "old").space == worlds.space()
    other = worlds.space(recipe={"learning_rate": 0.0123})
    assert len(Study.fork(other, tmp_path / "old", tmp_path / "other").table()) == 0
    assert "trained by another recipe" in caplog.text


def test_a_study_of_ones_own_trainer_says_what_continues_it(tmp_path: Path) -> None:
    """Not `raymix resume`, which would have nothing to train."""
    where = str(Study.create(worlds.space(), tmp_path / "s").store.where)
    said = CliRunner().invoke(app, ["status", where], env={"COLUMNS": "1000"}).output.replace("\n", "")
    assert f"continue with: raymix ask {where}, then raymix tell {where} RESULTS.csv" in said


def test_export_before_any_report_says_what_recommends(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    with pytest.raises(StoreError, match="nothing was recommended yet; this does it: raymix report"):
        export_study(study, "megatron")


@pytest.mark.parametrize("words", [["ask", "none"], ["status", "none"], ["tell", "none", "none.csv"]])
def test_a_study_or_file_that_is_not_there_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["raymix", *words])
    monkeypatch.setattr("signal.signal", lambda number, handler: None)  # the test run keeps its own
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "raymix: " in capsys.readouterr().err
