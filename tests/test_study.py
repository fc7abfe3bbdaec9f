"""Ask and tell: a study with somebody else's trainer, in Python and from the shell."""

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
from raymix.design import Proposal
from raymix.formats.exporters import export_study
from raymix.results import results
from raymix.screens.screen import Screen
from raymix.space import Scale, SearchSpace, SpaceError
from raymix.store import StoreError
from raymix.study.trial import Trial
from raymix.target.recommend import NotEnoughTrialsError
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


def test_perplexities_told_by_a_trainer_are_asked_about(tmp_path: Path) -> None:
    """As of a table of runs: a law of losses has another form, and gains of perplexities are no nats."""
    for name, told, said in (("nats", train, False), ("ppl", lambda trial: perplexities(train(trial)), True)):
        study = Study.create(worlds.space(), tmp_path / name)
        for trial in study.ask(8):
            study.tell(trial.trial_id, told(trial))
        assert any("of perplexities give the logarithms" in note for note in study.recommend().law["notes"]) is said


def test_scores_told_by_a_trainer_as_losses_are_asked_about(tmp_path: Path) -> None:
    """What raymix measures itself is a loss, whatever it is called; a metric is told as one."""
    arc, source = {"name": "arc_acc"}, {"source": {"files": "unused"}}
    trains = [{"name": name, **source} for name in worlds.DOMAINS]
    for changes, said in (
        ({"eval_domains": [{"name": "web"}, arc]}, True),
        ({"eval_domains": [{"name": "web"}, {"name": "arc"}]}, False),
        ({"eval_domains": [{"name": "web"}], "metrics": [arc | {"better": "high"}]}, False),
        ({"eval_domains": [{"name": "web", **source}, arc | source], "domains": trains}, False),
    ):
        study = Study.create(worlds.space(**changes), tmp_path / f"{len(list(tmp_path.iterdir()))}")
        for trial in study.ask(6):
            web, code, _ = train(trial).values()
            told = dict(zip(study.space.eval_names, (web, code / 9), strict=True))
            metrics = {name: told.pop(name) for name in study.space.metric_names}
            study.tell(trial.trial_id, told, metrics=metrics)
        notes = study.recommend().law["notes"]
        assert any("or in a space metrics: [{name: arc_acc, better: high}]" in note for note in notes) is said


def perplexities(losses: dict[str, float]) -> dict[str, float]:
    return {name: float(np.exp(loss)) for name, loss in losses.items()}


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


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"seconds": "abc"}, "seconds is 'abc', it must be a number"),
        ({"loss/code": True}, "loss/code is 'True', it must be a number"),
        ({"loss/code": "3,1"}, "loss/code is '3,1', it must be a number"),
        ({"n_tokens": 0.0}, "n_tokens is 0.0, it must be above 0"),
        ({"n_tokens": -5.0}, "n_tokens is -5.0, it must be above 0"),
        ({"n_tokens": 1000.0}, "n_tokens is 1000, but 500000 was proposed: is it in another unit"),
        ({"n_tokens": 5e5 * 1024, "status": "checkpoint"}, "n_tokens is 5.12e.08, but 500000 was proposed"),
        ({"n_params": 0.1}, "n_params is 0.1, but 100000 was proposed"),
        ({"seconds": -5.0}, "seconds is -5, it must not be below 0"),
        ({"flops": -1e20}, r"flops is -1e\+20, it must not be below 0"),
        ({"unique/web": -1.0}, "unique/web is -1, it must not be below 0"),
        ({"n_params": float("inf")}, "n_params is inf, it must be above 0"),
        ({"status": "finished"}, "status 'finished' is not one of done, checkpoint, start, failed, stopped"),
        ({"loss/typo": 3.0}, "loss/typo is not an eval domain of this study"),
        ({"mixture/web": 0.987}, "mixture/web is 0.987, but .* was proposed"),
        ({"trial_id": "deadbeef"}, "'deadbeef' was never proposed"),
        ({"trial_id": None}, "the trial_id is missing"),
        ({"loss/web": None}, "loss/web was not reported: tell it too, or tell the trial as failed if it will not be"),
    ],
)
def test_rows_that_are_none_are_refused_and_nothing_is_recorded(
    tmp_path: Path, cells: dict[str, Any], words: str
) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    rows = [{"trial_id": t.trial_id, **{f"loss/{name}": v for name, v in train(t).items()}} for t in study.ask(2)]
    with pytest.raises(ValueError, match=f"row 2: .*{words}"):
        study.tell_rows([rows[0], rows[1] | cells])
    assert not len(Study.open(tmp_path / "s").table())
    assert study.tell_rows([rows[0], rows[1] | {"seconds": "2.5"}]) == (0, 0)
    assert Study.open(tmp_path / "s").table().column("seconds")[1] == 2.5


def test_a_nan_in_a_file_is_a_failed_row_with_its_reason(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    trials = study.ask(2)
    lines = [f"{trial.trial_id},3.0,{word},2.5" for trial, word in zip(trials, ("nan", "NaN"), strict=True)]
    (tmp_path / "r.csv").write_text("\n".join(["trial_id,loss/web,loss/code,loss/books", *lines]) + "\n")
    told = CliRunner().invoke(app, ["tell", str(tmp_path / "s"), str(tmp_path / "r.csv")])
    assert (told.exit_code, told.stdout) == (0, "2 rows recorded (2 without losses)\n")
    table = Study.open(tmp_path / "s").table()
    assert table.status_B.tolist() == ["failed"] * 2
    assert table.table["reason"].to_pylist() == ["loss/code is nan"] * 2
    (tmp_path / "r.csv").write_text("trial_id,loss/web,loss/code,loss/books\n")  # nothing has ended since: no mistake
    assert CliRunner().invoke(app, ["tell", str(tmp_path / "s"), str(tmp_path / "r.csv")]).stdout == "0 rows recorded\n"


def test_a_status_is_a_word_where_an_empty_number_may_be_na(tmp_path: Path) -> None:
    (trial,) = Study.create(worlds.space(), tmp_path / "s").ask(1)
    lines = ["trial_id,status,seconds,loss/web,loss/code,loss/books", f" {trial.trial_id},%s,NA,3.0,3.1,2.5"]
    (tmp_path / "r.csv").write_text("\n".join(lines) % "NA")
    told = CliRunner().invoke(app, ["tell", str(tmp_path / "s"), str(tmp_path / "r.csv")])
    assert "row 1: trial" in str(told.exception) and "status 'NA' is not one of" in str(told.exception)
    (tmp_path / "r.csv").write_text("\n".join(lines) % " ")
    assert CliRunner().invoke(app, ["tell", str(tmp_path / "s"), str(tmp_path / "r.csv")]).stdout == "1 rows recorded\n"


def test_a_reason_na_is_none(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    (trial,) = study.ask(1)
    (tmp_path / "r.csv").write_text(f"trial_id,status,reason\n{trial.trial_id},failed,NA\n")
    CliRunner().invoke(app, ["tell", str(tmp_path / "s"), str(tmp_path / "r.csv")])
    assert Study.open(tmp_path / "s").table().table["reason"].to_pylist() == ["no reason given"]


def test_the_budget_of_ones_own_trainer_is_raised_from_the_shell(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(worlds.space().model_dump(mode="json", exclude_none=True)))
    study = Study.create(SearchSpace.load(tmp_path / "space.yaml"), tmp_path / "s")
    assert len(study.ask(20)) == 12
    said = CliRunner().invoke(app, ["resume", str(tmp_path / "s"), "--set", "budget.trials=14"])
    assert (said.exit_code, "raymix ask" in said.stdout) == (0, True), said.output
    asked = CliRunner().invoke(app, ["ask", str(tmp_path / "s"), "-n", "4"])
    assert len(asked.stdout.splitlines()) == 2
    forked = CliRunner().invoke(app, ["resume", str(tmp_path / "s"), "--fork", str(tmp_path / "new"), "--json"])
    assert json.loads(forked.stdout)["study"] == str(tmp_path / "new")


def test_ask_says_why_there_are_fewer_than_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    assert len(study.ask(8)) == 8
    assert not caplog.records
    assert len(study.ask(8)) == 4
    assert "4 of the 8 trials asked for: budget.trials: 12 of 12 spent" in caplog.text
    for n in (0, -1):
        with pytest.raises(ValueError, match=f"{n} trials"):
            study.ask(n)


def test_a_seed_below_0_is_refused_before_there_is_a_study(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the seed is -1, it must be a whole number of 0 or more"):
        Study.create(worlds.space(), tmp_path / "s", seed=-1)
    assert not (tmp_path / "s").exists()


def test_a_result_told_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    (trial,) = study.ask(1)
    row = {"trial_id": trial.trial_id, **{f"loss/{name}": v for name, v in train(trial).items()}}
    assert study.tell_rows([row | {"loss/web": float("nan")}]) == (1, 0)
    assert study.tell_rows([row]) == (0, 1)
    assert study.table().status_B.tolist() == ["done"]
    assert study.table().loss_BM[0, 0] == row["loss/web"]


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


@pytest.mark.parametrize(
    ("name", "code", "why"),
    [("s", 1, "[Errno 2] No such file or directory"), ("s/lock", 2, "{}: this is a file; a study is a directory")],
)
def test_a_working_directory_that_was_deleted_is_said(tmp_path: Path, name: str, code: int, why: str) -> None:
    """Another terminal made the folder anew: the path is right, and the system's error names none. Others do."""
    Study.create(worlds.space(), tmp_path / "s")
    (tmp_path / "here").mkdir()
    deleted = "import os; os.rmdir(os.getcwd()); from raymix import cli; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", deleted, "status", str(tmp_path / name)],
        cwd=tmp_path / "here", capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = f"{why.format(tmp_path / name)}; the folder you are in was deleted: cd to it again, or elsewhere"
    assert (done.returncode, done.stderr) == (code, f"raymix: {said}\n")


def test_results_are_read_back_until_something_changes(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    for trial in study.ask(8):
        study.tell(trial.trial_id, train(trial))
    written = results(study)
    before = (tmp_path / "s" / "report.html").stat().st_mtime_ns
    assert results(Study.open(tmp_path / "s")) == written
    assert (tmp_path / "s" / "report.html").stat().st_mtime_ns == before
    (tmp_path / "s" / "law.json").write_text("")  # a copy cut short: of what can be written again nothing is asked back
    assert results(Study.open(tmp_path / "s")) == written
    assert json.loads((tmp_path / "s" / "law.json").read_text())
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


def test_one_mixture_alone_is_a_reason_not_a_crash(tmp_path: Path) -> None:
    study = Study.create(worlds.space(budget={"trials": 4, "replicates": 3}), tmp_path / "s")
    for trial in study.ask(4):
        study.tell(trial.trial_id, train(trial))
    with pytest.raises(NotEnoughTrialsError, match="all 4 trials with losses have one mixture"):
        results(study)
    assert study.store.has("report.html")


def test_one_mixture_up_to_rounding_is_one_mixture(tmp_path: Path) -> None:
    """A prior here, a sum of bounds there."""
    study = Study.create(worlds.space(budget={}), tmp_path / "s")
    both = [np.array([0.7, 0.2, share]) for share in (0.1, np.nextafter(0.1, 1))]
    with study.writing() as ledger:
        ledger.propose([Proposal(mix_K, Scale(1e5, 5e5), seed) for mix_K in both for seed in (0, 1)])
    for trial in study.ledger.pending():
        study.tell(trial.trial_id, train(trial))
    with pytest.raises(NotEnoughTrialsError, match="all 4 trials with losses have one mixture"):
        study.recommend()


def test_scores_that_too_few_ended_trials_tell_are_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study.create(worlds.space(budget={"trials": 6, "replicates": 0}), tmp_path / "s")
    for i, trial in enumerate(study.ask(6)):
        study.tell(trial.trial_id, train(trial), n_tokens=trial.n_tokens / 2, status="checkpoint" if i else "done")
        if i:
            study.fail(trial.trial_id, "node lost")
    found = results(study)
    assert found.law["rank_correlation"] is None
    assert json.loads((tmp_path / "s" / "recommendation.json").read_text())["law"] == found.law
    with Screen(as_json=False) as screen:
        screen.recommendation(study, found)
    assert "objective ? (within a size ?)" in " ".join(capsys.readouterr().out.split())


def test_tokens_that_a_trial_began_with_are_counted_once(tmp_path: Path) -> None:
    lengths = [{"n_params": 1e5, "n_tokens": n_tokens} for n_tokens in (5e5, 1e6, 4e6)]
    study = Study.create(worlds.space(ladder=lengths), tmp_path / "s")
    mix_BK = np.random.default_rng(0).dirichlet(np.ones(3), 4)
    for mix_K, rung in [*((mix_K, 0) for mix_K in mix_BK), (mix_BK[0], 1), (mix_BK[0], 2)]:
        (trial,) = study.ledger.propose([Proposal(mix_K, Scale(1e5, lengths[rung]["n_tokens"]), 0)])
        study.ledger.observe(trial.trial_id, {f"loss/{name}": value for name, value in train(trial).items()})
    assert trial.after == (5e5, 1e6)
    study.ledger.propose([Proposal(mix_BK[1], Scale(1e5, 4e6), 0)])  # goes on too, and has trained nothing yet
    assert study.recommend().evidence["tokens"] == 3 * 5e5 + 4e6


def test_a_study_of_ones_own_trainer_says_what_continues_it(tmp_path: Path) -> None:
    """Not `raymix resume`, which would have nothing to train."""
    where = str(Study.create(worlds.space(), tmp_path / "s").store.where)
    said = CliRunner().invoke(app, ["status", where], env={"COLUMNS": "1000"}).output.replace("\n", "")
    assert f"continue with: raymix ask {where}, then raymix tell {where} RESULTS.csv" in said


def test_status_lists_what_was_asked_and_not_told(tmp_path: Path) -> None:
    """Whoever lost what raymix ask printed gets it again, and an unknown id is met with those that are waited for."""
    study = Study.create(worlds.space(budget={}), tmp_path / "s")
    first, second, third = study.ask(3)
    study.tell(first.trial_id, train(first))
    study.tell(second.trial_id, train(second), n_tokens=second.n_tokens / 2, status="checkpoint")
    state = json.loads(CliRunner().invoke(app, ["status", str(tmp_path / "s"), "--json"]).stdout)
    assert [trial["trial_id"] for trial in state["pending_trials"]] == [second.trial_id, third.trial_id]
    assert state["pending_trials"][1] == third.shown() | {"tokens_told": 0.0}
    assert (state["pending"], state["pending_trials"][0]["tokens_told"]) == (2, second.n_tokens / 2)
    said = CliRunner().invoke(app, ["status", str(tmp_path / "s")]).stdout
    assert f"{second.trial_id}  100k parameters, 500k tokens, seed {second.seed}, told up to 250k" in said
    assert third.trial_id in said and first.trial_id not in said
    with pytest.raises(ValueError, match=f"asked and not told yet: {second.trial_id}, {third.trial_id}"):
        study.tell("run-17", train(third))
    with pytest.raises(ValueError, match=f"did you mean '{third.trial_id}'"):
        study.tell(third.trial_id[:-1] + "?", train(third))
    many = study.ask(30)
    said = CliRunner().invoke(app, ["status", str(tmp_path / "s")]).stdout
    assert "and 12 more" in said and many[-1].trial_id not in said


def test_export_before_any_report_says_what_recommends(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    with study.writing() as ledger:
        worlds.play(ledger)
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


def test_results_are_not_blamed_for_a_study_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("trial_id,loss/web\nt,2\n")
    said = str(CliRunner().invoke(app, ["tell", str(tmp_path / "none"), str(tmp_path / "r.csv")]).exception)
    assert said.startswith(f"{tmp_path / 'none'}: no study here") and "r.csv" not in said
    folder = str(CliRunner().invoke(app, ["tell", str(tmp_path / "none"), str(tmp_path)]).exception)
    assert folder == f"{tmp_path}: this is a folder; name a file in it"


def test_a_shell_begins_a_study_with_a_trainer_of_its_own(tmp_path: Path) -> None:
    space, where = tmp_path / "space.yaml", str(tmp_path / "s")
    space.write_text(yaml.safe_dump(worlds.space().model_dump(mode="json", exclude_none=True)))
    none_yet = CliRunner().invoke(app, ["ask", where])
    assert "raymix ask DIR --space SPACE.yaml" in str(none_yet.exception)
    words = ["ask", where, "--space", str(space), "--seed", "3", "-n", "2"]
    asked = [json.loads(line) for line in CliRunner().invoke(app, words).stdout.splitlines()]
    assert len(asked) == 2
    study = Study.open(where)
    assert (study.seed, list(study.ledger.trials)) == (3, [trial["trial_id"] for trial in asked])
    assert len(CliRunner().invoke(app, ["ask", where, "-n", "1"]).stdout.splitlines()) == 1
    other = CliRunner().invoke(app, [*words[:4], "--set", "target.n_params=5e6"])
    assert "begun with another space" in str(other.exception)
    assert "--space SPACE.yaml" in str(CliRunner().invoke(app, ["ask", where, "--seed", "1"]).exception)


def test_tell_answers_machines(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    (trial,) = study.ask(1)
    (tmp_path / "r.csv").write_text(
        f"trial_id,{','.join(f'loss/{n}' for n in worlds.DOMAINS)}\n{trial.trial_id},2,2,2\n"
    )
    told = CliRunner().invoke(app, ["tell", str(tmp_path / "s"), str(tmp_path / "r.csv"), "--json"])
    assert json.loads(told.stdout) == {"event": "told", "rows": 1, "failed": 0, "again": 0}


@pytest.mark.parametrize(
    ("told", "warns"),
    [
        ({}, ""),
        ({"n_params": 1.5e5}, ""),
        ({"n_tokens": 5e4}, "n_tokens is 5e+04, but 5e+05 was proposed"),
        ({"n_tokens": 1e5, "status": "checkpoint"}, ""),
        ({"n_tokens": 2e6, "status": "checkpoint"}, "n_tokens is 2e+06"),
        ({"n_params": 1e4}, "n_params is 1e+04, but 1e+05 was proposed"),
    ],
)
def test_a_scale_far_from_what_was_proposed_is_said(
    told: dict[str, Any], warns: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    (trial,) = study.ask(1)
    study.tell(trial.trial_id, train(trial), **told)
    assert warns in caplog.text and bool(caplog.text) == bool(warns)
    for key in set(told) - {"status"}:
        assert study.table().table[key].to_pylist() == [told[key]], "what was told is the truth"


def test_without_enough_trials_the_page_is_named(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    said = str(CliRunner().invoke(app, ["report", str(tmp_path / "s")]).exception)
    assert "a law needs at least 4" in said and said.endswith(study.store.url("report.html"))
    assert (tmp_path / "s" / "report.html").is_file()
