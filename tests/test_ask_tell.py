"""Ask and tell as somebody else's trainer does it: several processes at once, odd words, slips of numbers."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from raymix import SearchSpace, Study
from raymix.cli import app
from raymix.design import LawGuided, Proposal
from raymix.search import MixtureSearch
from raymix.space import Scale, SpaceError
from raymix.store import StoreError
from raymix.study import study as study_module
from tests import worlds
from tests.test_study import train


def together(*jobs: Callable[[], object]) -> list[BaseException]:
    """Run jobs at once; what they raised."""
    raised: list[BaseException] = []

    def guarded(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_workers_that_ask_and_tell_at_once_wait_for_each_other(tmp_path: Path) -> None:
    space = worlds.space(budget={"trials": 24, "per_round": 4})
    Study.create(space, tmp_path / "s")

    def work() -> None:
        own = Study.open(tmp_path / "s")
        for _ in range(3):
            for trial in own.ask(2):
                own.tell(trial.trial_id, train(trial))

    assert together(work, work, work) == []
    assert len(Study.open(tmp_path / "s").ledger.trials) == 18
    assert Study.open(tmp_path / "s").table().status_B.tolist() == ["done"] * 18


def test_two_that_begin_one_study_at_once_share_it(tmp_path: Path) -> None:
    def begin() -> None:
        Study.resume(worlds.space(), tmp_path / "s").ask(2)

    assert together(begin, begin) == []
    assert len(Study.open(tmp_path / "s").ledger.trials) == 4


def test_a_study_that_stays_held_is_refused_with_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "TURN", 0.2)
    study = Study.create(worlds.space(), tmp_path / "s")
    with Study.open(tmp_path / "s").writing(), pytest.raises(StoreError, match="is being run by process"):
        study.ask(1)


@pytest.mark.parametrize("reason", ["a file \udcff with bytes of no text", "a \x00 b", None, ValueError("diverged"), 7])
def test_whatever_a_reason_is_the_study_can_be_read_again(tmp_path: Path, reason: Any) -> None:
    """Python puts such halves of characters into the names of files that are not UTF-8, and so into messages."""
    study = Study.create(worlds.space(), tmp_path / "s")
    one, two = study.ask(2)
    study.fail(one.trial_id, reason)
    study.tell_rows([{"trial_id": two.trial_id, "status": "failed", "reason": reason}])
    again = Study.open(tmp_path / "s")
    assert again.table().status_B.tolist() == ["failed"] * 2
    assert all(again.table().table["reason"].to_pylist())
    assert len(again.ask(2)) == 2
    again.table().write(tmp_path / "t.csv")


def test_a_share_that_rounding_left_below_0_is_0(tmp_path: Path) -> None:
    class Rounding(LawGuided):
        def suggest(self, *given: Any) -> list[Proposal]:
            return [Proposal(np.array([0.4, 0.6, -3e-18]), Scale(1e5, 5e5), 0)]

    study = Study.create(worlds.space(), tmp_path / "s", designer=Rounding(worlds.space()))
    assert study.ask(1)[0].mixture["books"] == 0
    assert len(study.ask(1)) == 1  # with the first pending


def test_shares_are_printed_without_the_rounding_of_floats(tmp_path: Path) -> None:
    class Rounding(LawGuided):
        def suggest(self, *given: Any) -> list[Proposal]:
            return [Proposal(np.array([0.49999999999999994, 1 / 3, 1 / 6]), Scale(1e5, 5e5), 0)]

    asked = Study.create(worlds.space(), tmp_path / "s", designer=Rounding(worlds.space())).ask(1)[0]
    mixture = asked.shown()["mixture"]
    assert json.dumps(mixture) == '{"web": 0.5, "code": 0.333333333333, "books": 0.166666666667}'
    assert abs(sum(mixture.values()) - 1) < 1e-9
    (told,) = Study.open(tmp_path / "s").ledger.pending()
    assert told.mixture == asked.mixture  # as recorded: whole


@pytest.mark.parametrize("group", [False, True])
def test_where_one_mixture_alone_is_allowed_nothing_is_begun(tmp_path: Path, group: bool) -> None:
    most = [0.5, 0.5, 1.0] if group else [0.5, 0.3, 0.2]
    domains = [{"name": name, "max_share": share} for name, share in zip(worlds.DOMAINS, most, strict=True)]
    groups = [{"domains": ["web", "code"], "min": 1.0}] if group else []
    space = worlds.space(domains=domains, constraints={"groups": groups})
    with pytest.raises(SpaceError, match=r"only one mixture is allowed \(web 0\.5, .*nothing to search: widen"):
        Study.create(space, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    with pytest.raises(SpaceError, match="only one mixture is allowed"):
        MixtureSearch(space)
    domains[0]["max_share"] = 0.501
    Study.create(worlds.space(domains=domains, constraints={"groups": groups}), tmp_path / "s")


def test_a_study_that_somebody_runs_is_no_fault_of_the_file_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1, try again; 2 is wrong input, which a script does not try again."""
    study = Study.create(worlds.space(), tmp_path / "s")
    (trial,) = study.ask(1)
    columns = ",".join(f"loss/{name}" for name in worlds.DOMAINS)
    (tmp_path / "r.csv").write_text(f"trial_id,{columns}\n{trial.trial_id},1,2,3\n")
    monkeypatch.setattr(study_module, "TURN", 0.01)
    with study.writing():
        found = CliRunner().invoke(app, ["tell", str(tmp_path / "s"), str(tmp_path / "r.csv")])
    assert isinstance(found.exception, StoreError)
    assert str(found.exception).startswith(f"{tmp_path / 's'}: this study is being run by process")


def test_of_the_one_mixture_that_is_allowed_the_largest_shares_are_named() -> None:
    most = {97: 0.015, 98: 0.005}
    domains = [{"name": f"d{i:02d}", "max_share": most.get(i, 0.01)} for i in range(100)]
    space = worlds.space(domains=domains, eval_domains=[{"name": "d00"}])
    with pytest.raises(SpaceError, match=r"\(d97 0\.015, d00 0\.01, d01 0\.01, d02 0\.01, d03 0\.01, \.\.\.\), so"):
        space.check_choice()


def test_names_and_a_target_are_a_space_for_a_trainer_of_ones_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a ladder the proxies are the trainer's: proposals name the target's scale, what is told counts."""
    names = {"domains": [{"name": n} for n in worlds.DOMAINS], "eval_domains": [{"name": n} for n in worlds.DOMAINS]}
    space = SearchSpace.parse({"name": "names", **names, "target": {"n_params": 7e9, "n_tokens": 2e12}})
    study = Study.create(space, tmp_path / "s")
    for _ in range(2):
        for trial in study.ask(4):
            assert (trial.n_params, trial.n_tokens) == (7e9, 2e12)
            shares = np.array([trial.mixture[name] for name in worlds.DOMAINS])
            losses = dict(zip(worlds.DOMAINS, worlds.losses(shares, 1e5, 5e5).tolist(), strict=True))
            study.tell(trial.trial_id, losses, n_params=1e5, n_tokens=5e5)
    found = Study.open(tmp_path / "s").recommend(scale=(1e5, 5e5))
    assert not caplog.records
    assert not [note for note in found.law["notes"] if "budget" in note or "unit" in note]
    assert Study.resume(space, tmp_path / "s").ask(1)


def test_proxies_of_ours_need_a_ladder() -> None:
    raw = worlds.space().model_dump(mode="json", exclude_none=True)
    raw["domains"] = [d | {"source": {"builtin": "python"}} for d in raw["domains"]]
    with pytest.raises(SpaceError, match="ladder"):
        SearchSpace.parse({key: value for key, value in raw.items() if key != "ladder"})


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        ((0, 1e7), "n_params of the scale is 0, it must be a number above 0"),
        ((1e6, float("nan")), "n_tokens of the scale is nan"),
        ((1e6,), "a scale is n_params and n_tokens"),
        ((1e6, 1e7, 2), "a scale is n_params and n_tokens"),
        (1e9, "a scale is n_params and n_tokens"),
        ("1e9", "a scale is n_params and n_tokens"),
        (("1e6", "7B"), "n_tokens of the scale is '7B'"),
        ({"params": 1e6, "n_tokens": 1e7}, "a scale is n_params and n_tokens"),
    ],
)
def test_a_scale_that_is_none_is_named(tmp_path: Path, scale: Any, words: str) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    for trial in study.ask(4):
        study.tell(trial.trial_id, train(trial))
    with pytest.raises(ValueError, match=words):
        study.recommend(scale)


def test_a_scale_may_be_a_mapping(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    for trial in study.ask(4):
        study.tell(trial.trial_id, train(trial))
    assert study.recommend({"n_params": 1e6, "n_tokens": 1e7}).scale == {"n_params": 1e6, "n_tokens": 1e7}


@pytest.mark.parametrize("n", [0, -1, 1.5, "3", None])
def test_a_number_of_trials_that_is_none_is_named(tmp_path: Path, n: Any) -> None:
    with pytest.raises(ValueError, match="trials were asked for, it must be a whole number from 1 on"):
        Study.create(worlds.space(), tmp_path / "s").ask(n)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -2.5, 0])
def test_a_loss_that_is_none_is_said_where_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, loss: float
) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    trial = study.ask(1)[0]
    study.tell(trial.trial_id, dict.fromkeys(worlds.DOMAINS, 3.0) | {"code": loss})
    assert (
        f"trial {trial.trial_id} counts as failed: the loss code is {loss}, it must be a number above 0" in caplog.text
    )
    assert study.ledger.status(trial.trial_id) == "failed"
    with pytest.raises(ValueError, match="a Trial was given for a trial: give its trial_id"):
        study.tell(trial, dict.fromkeys(worlds.DOMAINS, 3.0))  # type: ignore[arg-type]


def test_ask_takes_json_as_every_command_does(tmp_path: Path) -> None:
    Study.create(worlds.space(), tmp_path / "s")
    asked = CliRunner().invoke(app, ["ask", str(tmp_path / "s"), "-n", "2", "--json"])
    assert asked.exit_code == 0, asked.output
    assert [sorted(json.loads(line))[0] for line in asked.stdout.splitlines()] == ["mixture"] * 2


def test_a_column_of_results_that_is_none_of_the_form_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A slip in an optional name would else count the trial at the scale asked for."""
    (trial,) = Study.create(worlds.space(), tmp_path / "s").ask(1)
    asked = {key: value for key, value in trial.shown().items() if key != "mixture"}
    columns = {**asked, **{f"loss/{name}": 3.0 for name in worlds.DOMAINS}, "n_token": 5e5}
    (tmp_path / "r.csv").write_text(",".join(columns) + "\n" + ",".join(map(str, columns.values())))
    told = CliRunner().invoke(app, ["tell", str(tmp_path / "s"), str(tmp_path / "r.csv")])
    assert (told.exit_code, told.stdout) == (0, "1 rows recorded\n")
    assert caplog.messages == [f"{tmp_path / 'r.csv'}: not part of the exchange form, left out: n_token"]


def test_a_trial_with_two_results_in_one_file_is_counted_as_told_again(tmp_path: Path) -> None:
    """The last counts, as ever; a name written twice by mistake must be seen."""
    study = Study.create(worlds.space(), tmp_path / "s")
    one, other = (trial.trial_id for trial in study.ask(2))
    losses = {f"loss/{name}": 3.0 for name in worlds.DOMAINS}
    way = losses | {"trial_id": other, "status": "checkpoint", "n_tokens": 1e5}
    rows = [losses | {"trial_id": one}, losses | {"trial_id": one, "loss/web": 2.0}, way, losses | {"trial_id": other}]
    assert study.tell_rows(rows) == (0, 1)
    assert study.tell_rows(rows[-1:]) == (0, 1)
