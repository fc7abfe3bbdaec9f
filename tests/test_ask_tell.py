"""Ask and tell as somebody else's trainer does it: several processes at once, odd words, slips of numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymix import Study
from raymix.design import LawGuided, Proposal
from raymix.space import Scale
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
