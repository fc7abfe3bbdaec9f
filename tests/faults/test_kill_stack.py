"""The driver of a study in stacks is killed within a stack: the same stacks go on, and nothing is recorded twice."""

from collections import Counter
from pathlib import Path

import pytest

from raymix.store import Store
from tests.faults import real_study

# Four starts of Ray, two minutes; killed workers of a stack and its records are in test_stacked_trials and test_stacks.
pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

SETTINGS = ["budget.trials=10", "budget.per_round=5", "ladder.0.stack=3", "ladder.1.stack=2"]


def test_a_study_killed_within_a_stack_ends_like_one_that_is_not(tmp_path: Path) -> None:
    real_study.write(tmp_path)
    for name, kills in (("unkilled", ()), ("killed", ("checkpoint", "ended"))):
        for until in kills:  # the first row of a stack; the end of its first trial, others of it being still to end
            process = real_study.start(tmp_path, name, settings=SETTINGS)
            assert until in real_study.events(process)  # reads no further
            real_study.kill_all(process)
        process = real_study.start(tmp_path, name, settings=SETTINGS)
        list(real_study.events(process))
        assert process.wait() == 0, (tmp_path / f"{name}.log").read_text()
    unkilled, killed = tmp_path / "unkilled", tmp_path / "killed"
    stacks = stacks_in(unkilled)
    assert {len(stack) for stack in stacks} >= {2, 3}
    assert stacks_in(killed) == stacks
    proposed, ended = real_study.ended_in(killed)
    assert sorted(ended) == sorted(proposed)
    assert proposed == real_study.ended_in(unkilled)[0]
    times = Counter((body["trial_id"], body["n_tokens"]) for kind, body in Store(killed).records() if kind == "row")
    assert len(times) == 10 * 3 and set(times.values()) == {1}
    assert real_study.recommendation(killed) == pytest.approx(real_study.recommendation(unkilled), abs=1e-9)


def stacks_in(study: Path) -> list[list[str]]:
    """The trials of each stack, as it was begun."""
    return [body["trials"] for kind, body in Store(study).records() if kind == "together"]
