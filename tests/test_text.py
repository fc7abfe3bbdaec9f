"""The text of a study stays what its trials were trained on, also where nobody counts its tokens."""

from pathlib import Path

import pytest

from raymix import Study
from raymix.corpus import Corpus
from raymix.on_ray.run import run_study
from raymix.space import SpaceError
from raymix.study.text import check_text
from tests import worlds
from tests.test_study import train


def corpus(folder: Path, **sha256: str) -> Corpus:
    """One that names its files, without any."""
    return Corpus(folder, {kind: {name: {"sha256": found} for name, found in sha256.items()}
                           for kind in ("train", "eval")})  # fmt: skip


def test_a_study_does_not_go_on_with_other_text(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    text = {"web": "0a", "code": "0b", "books": "0c"}
    with study.writing() as ledger:
        check_text(ledger, corpus(tmp_path, **(text | {"web": "00"})).parts)
        check_text(ledger, corpus(tmp_path, **text).parts)  # mended before anything was trained
        check_text(ledger, corpus(tmp_path, **text).parts)
    assert [kind for kind, _ in study.store.records()] == ["text", "text"]
    for trial in study.ask(2):
        study.tell(trial.trial_id, train(trial))
    again = Study.open(tmp_path / "s")
    with pytest.raises(SpaceError, match="the text of domain 'code', eval domain 'code' is not what this study was"):
        run_study(again, corpus(tmp_path, **(text | {"code": "1b"})))
    with again.writing() as ledger:
        check_text(ledger, corpus(tmp_path, **text).parts)


def test_a_fork_says_whose_losses_are_of_other_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = {"web": "0a", "code": "0b", "books": "0c"}
    study = Study.create(worlds.space(), tmp_path / "old")
    with study.writing() as ledger:
        check_text(ledger, corpus(tmp_path, **text).parts)
    for trial in study.ask(2):
        study.tell(trial.trial_id, train(trial))
    said = f"from {tmp_path / 'old'}: its trials met other text of domain 'code', eval domain 'code': its losses are"
    for new, words in ({**text, "new": "0d"}, ""), ({**text, "code": "1b"}, said):
        fork = Study.fork(worlds.space(), tmp_path / "old", tmp_path / f"fork{len(words)}")
        with fork.writing() as ledger:
            check_text(ledger, corpus(tmp_path, **new).parts)
        assert ("its trials met other text" in caplog.text) == bool(words)
        assert words in caplog.text


def test_a_study_of_an_earlier_version_goes_on_with_the_text_that_it_finds(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    for trial in study.ask(2):
        study.tell(trial.trial_id, train(trial))
    found = corpus(tmp_path, web="0a", code="0b", books="0c").parts
    with study.writing() as ledger:
        check_text(ledger, found)
    assert Study.open(tmp_path / "s").ledger.text == found
