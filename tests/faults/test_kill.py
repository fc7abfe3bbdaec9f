"""Rows 1 and 2 of the faults: `kill -9` of the driver of a study on Ray, before, between and after its first trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import real_study


@pytest.mark.slow  # four starts of Ray
def test_a_study_whose_driver_is_killed_ends_like_one_that_is_not(tmp_path: Path) -> None:
    real_study.write(tmp_path)
    process = real_study.start(tmp_path, "unkilled")
    assert "finished" in list(real_study.events(process))
    assert process.wait() == 0, (tmp_path / "unkilled.log").read_text()

    study = tmp_path / "killed"
    known: set[str] = set()
    for n_ended in (0, 2):  # at the start, and within the rounds; benchmarks/chaos.py kills at random
        process = real_study.start(tmp_path, "killed")
        for event in real_study.events(process):
            n_ended -= event == "ended"
            if n_ended <= 0:
                break
        process.kill()
        process.wait()
        assert real_study.done(study) >= known
        known = real_study.done(study)
        real_study.kill_all(process)  # what Ray has not yet ended by itself
    process = real_study.start(tmp_path, "killed")
    list(real_study.events(process))
    assert process.wait() == 0, (tmp_path / "killed.log").read_text()

    proposed, ended = real_study.ended_in(study)
    assert sorted(ended) == sorted(proposed)  # each once, and none again after its end
    assert proposed == real_study.ended_in(tmp_path / "unkilled")[0]
    truth = real_study.recommendation(tmp_path / "unkilled")
    assert real_study.recommendation(study) == pytest.approx(truth, abs=1e-9)
