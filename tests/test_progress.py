"""What is said to be left follows from what this run trained, and nothing else."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from raymix.design import Proposal
from raymix.on_ray import progress
from raymix.on_ray.kept import Kept
from raymix.screens.screen import Screen
from raymix.screens.status import show_status
from raymix.space import Scale
from raymix.study import Study
from raymix.study.agenda import expected_trials, next_trials
from raymix.study.ledger import Ledger
from raymix.study.trial import Trial
from tests import worlds

SHORT, LONG = Scale(1e5, 4e5), Scale(1e5, 8e5)


class Clock:
    """Seconds, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def ledger() -> Ledger:
    """Two trials in all, of one size at two lengths."""
    ladder = [{"n_params": scale.n_params, "n_tokens": scale.n_tokens} for scale in (SHORT, LONG)]
    return Ledger(worlds.space(ladder=ladder, budget={"trials": 2, "per_round": 1, "replicates": 0}), seed=0)


def proposed(ledger: Ledger, scale: Scale) -> Trial:
    (trial,) = ledger.propose([Proposal(ledger.space.prior_K(), scale, 0)])
    return trial


def told(
    ledger: Ledger, trial: Trial, n_tokens: float, status: str = "checkpoint", seconds: float | None = None
) -> None:
    losses = {f"loss/{name}": 3.0 for name in worlds.DOMAINS}
    ledger.observe(trial.trial_id, losses | {"n_tokens": n_tokens, "status": status, "seconds": seconds})


def watch(ledger: Ledger, tmp_path: Path) -> progress.Watcher:
    return progress.Watcher(ledger.space, ledger, 256, Kept(tmp_path, None), None)


def test_tokens_trained_before_this_run_took_none_of_its_time(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    told(ledger, proposed(ledger, SHORT), SHORT.n_tokens, "done")
    other = Proposal(ledger.space.mixture({"web": 1.0, "code": 0.0, "books": 0.0}), LONG, 0)
    (trial,) = ledger.propose([other])
    told(ledger, trial, 5e5)
    watcher = watch(ledger, tmp_path)  # a new run finds it there
    watcher("started", trial)
    clock.now += 60
    told(ledger, trial, 6e5)
    watcher("checkpoint", trial)
    assert watcher.progress.eta_seconds == pytest.approx(120)  # 1e5 tokens a minute, and 2e5 are left


@pytest.mark.parametrize(("seen", "eta"), [(2e5, None), (4e5, None), (6e5, 60.0)])
def test_a_trial_that_goes_on_has_done_nothing_before_it_is_past_its_beginning(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: float, eta: float | None
) -> None:
    clock = Clock(monkeypatch)
    told(ledger, proposed(ledger, SHORT), SHORT.n_tokens, "done")
    trial = proposed(ledger, LONG)
    assert trial.after == (SHORT.n_tokens,)
    watcher = watch(ledger, tmp_path)
    watcher("started", trial)
    clock.now += 60
    told(ledger, trial, seen)
    watcher("checkpoint", trial)
    assert watcher.progress.eta_seconds == (None if eta is None else pytest.approx(eta))


def test_hours_become_trials_at_the_speed_so_far() -> None:
    one_size = {"ladder": [{"n_params": 1e5, "n_tokens": 4e5}]}
    ledger = Ledger(worlds.space(budget={"gpu_hours": 4, "per_round": 4}, **one_size), seed=0)
    assert expected_trials(ledger) == 24  # nobody has said how long a trial takes
    trials = next_trials(ledger, 4)
    told(ledger, trials[0], 4e5, "done", seconds=360.0)
    assert expected_trials(ledger) == 40


def test_status_counts_the_runs_of_confirmation_from_the_beginning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study.create(worlds.space(confirm={"seeds": 2, "baselines": ["prior"]}), tmp_path / "s")
    for trial in study.ask(4):
        study.tell(trial.trial_id, dict.fromkeys(worlds.DOMAINS, 3.0))
    show_status(Screen(as_json=True), study)
    said = json.loads(capsys.readouterr().out)
    assert (said["done"], said["trials"]) == (4, 12)


def test_a_study_without_a_budget_is_never_said_to_be_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study.create(worlds.space(budget={"per_round": 24}), tmp_path / "s")
    for trial in study.ask(24):
        study.tell(trial.trial_id, dict.fromkeys(worlds.DOMAINS, 3.0))
    assert not study.finished
    show_status(Screen(as_json=True), study)
    said = json.loads(capsys.readouterr().out)
    assert (said["trials"], said["finished"], said["over"], said["budget"]) == (24, False, None, {})
    assert len(study.ask(1)) == 1


def test_what_is_left_is_added_up_once_a_second_and_at_the_end(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of trials with twenty checkpoints each would keep the driver busy with nothing else."""
    clock, asked = Clock(monkeypatch), []
    monkeypatch.setattr(progress, "expected_trials", lambda ledger: asked.append(None) or expected_trials(ledger))
    watcher, trial = watch(ledger, tmp_path), proposed(ledger, SHORT)
    watcher("started", trial)
    before = len(asked)
    for part in range(1, 100):
        told(ledger, trial, part * SHORT.n_tokens / 100)
        watcher("checkpoint", trial)
    assert len(asked) == before
    clock.now += 1
    watcher("checkpoint", trial)
    assert len(asked) > before and watcher.progress.eta_seconds is not None
    before = len(asked)
    told(ledger, trial, SHORT.n_tokens, "done")
    watcher("ended", trial)
    assert len(asked) > before and watcher.progress.running == 0
