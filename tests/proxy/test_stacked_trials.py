"""A study in stacks on real Ray: the rows of one without, also where a worker dies or a proxy diverges."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raymix import SearchSpace, Study
from raymix.corpus import Corpus
from raymix.on_ray import run
from raymix.on_ray.progress import Progress
from raymix.proxy import stack_training
from raymix.proxy.stacked import Stack
from tests.proxy.test_trial_faults import Faulty

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]  # starts Ray and trains proxies

STEPS = 60
RATE = 0.002  # at six times that a spike in the loss makes .01 nats of a rounding, in a proxy alone too
ROUNDING = 2e-5  # nats: sums in another order differ by 5e-7 (float32) in the steps of such a run


class Sick(Stack):
    """A stack whose second proxy has NaN for weights from its 20th step on."""

    def step(self, step: int, batch: Any) -> None:
        super().step(step, batch)
        if step == 20:
            self.params[0].data[1] = float("nan")


class OfTheSick(Faulty):
    """Trains such stacks."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        stack_training.Stack = Sick  # type: ignore[misc]
        return super().reset_config(new_config)


@pytest.fixture
def studied(
    corpus: Corpus, make_space: Callable[..., SearchSpace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Study, list[tuple[str, Progress]]]]:
    """One round of seven trials in stacks of a size, run to its end; and what was said of it."""

    def go(name: str, stack: int, trainable: Any = Faulty, fault: str = "") -> tuple[Study, Any]:
        space = make_space(checkpoint_seconds=1e-3, learning_rate=RATE, precision="float32")
        raw = space.model_dump(mode="json", exclude_none=True)
        raw |= {"ladder": [{"n_params": 1e4, "n_tokens": 128 * STEPS, "stack": stack}]}
        raw |= {"budget": {"trials": 7, "per_round": 7}}
        study = Study.create(SearchSpace.parse(raw), tmp_path / name, seed=0)
        first = study.ask(7)[0]
        (tmp_path / name / "faults.json").write_text(f'{{"{first.trial_id}": "{fault}"}}')
        monkeypatch.setattr(run, "ProxyTrial", trainable)
        said: list[tuple[str, Progress]] = []
        run.run_study(study, corpus, lambda event, progress: said.append((event, Progress(**vars(progress)))))
        return Study.open(study.store.path), said

    return go


def rows(study: Study) -> dict[tuple[str, float], dict[str, Any]]:
    """By trial and tokens; each is recorded once."""
    bodies = [body for kind, body in study.store.records() if kind == "row"]
    found = {(body["trial_id"], body["n_tokens"]): body for body in bodies if body["status"] != "failed"}
    assert len(found) == len([body for body in bodies if body["status"] != "failed"])
    return found


def lives(study: Study) -> dict[str, int]:
    """How often each worker began something, by the first trial of it."""
    files = study.store.path.glob("lives-*")
    return {file.name.removeprefix("lives-"): file.read_text().count("begun") for file in files}


def test_a_study_in_stacks_has_the_rows_of_one_without(studied: Callable[..., Any]) -> None:
    (alone, _), (stacked, said) = studied("alone", 1), studied("stacked", 3)
    trials = list(stacked.ledger.trials)
    assert lives(alone) == dict.fromkeys(alone.ledger.trials, 1)
    assert lives(stacked) == dict.fromkeys(trials[::3], 1)  # three, three and the last
    expected, found = rows(alone), rows(stacked)
    assert sorted(found) == sorted(expected) and len(found) == 7 * 3
    for key, row in expected.items():
        assert set(found[key]) == set(row)
        for column, value in row.items():
            if column.startswith(("loss/", "loss_se/", "bpb/")):
                assert found[key][column] == pytest.approx(value, abs=ROUNDING), column
            elif column != "seconds":
                assert found[key][column] == value, column
    assert Counter(event for event, _ in said) >= Counter({"started": 7, "checkpoint": 14, "ended": 7})
    running = 0
    for event, progress in said:
        running += {"started": 1, "ended": -1}.get(event, 0)
        assert event != "started" or progress.running == running, "each trial of a stack is one that runs"
    assert [progress.running for event, progress in said if event == "ended"] == list(range(6, -1, -1))
    last = said[-1][1]
    assert (last.running, last.done, last.failed) == (0, 7, 0)
    assert not (stacked.store.path / run.CHECKPOINTS).exists()


def test_a_stack_whose_worker_is_killed_ends_with_the_same_bits(studied: Callable[..., Any]) -> None:
    """One of its proxies diverges: that is a failed row with its reason, and the others go on."""
    (unkilled, _), (killed, said) = studied("unkilled", 3, OfTheSick), studied("killed", 3, OfTheSick, "killed once")
    trials = list(killed.ledger.trials)
    sick = [trials[1], trials[4]]
    assert lives(killed) == {trials[0]: 2, trials[3]: 1, trials[6]: 1}
    for study in (unkilled, killed):
        ended = {trial_id: study.ledger.status(trial_id) for trial_id in trials}
        assert ended == {trial_id: "failed" if trial_id in sick else "done" for trial_id in trials}
        bodies = [body for kind, body in study.store.records() if kind == "row"]
        reasons = [body["reason"] for body in bodies if body["status"] == "failed"]
        assert reasons == ["the training loss is nan at step 30 of 60 (3840 tokens), learning rate 0.002"] * 2
    expected, found = rows(unkilled), rows(killed)
    assert sorted(found) == sorted(expected)
    for key, row in expected.items():
        assert {name: value for name, value in found[key].items() if name != "seconds"} == {
            name: value for name, value in row.items() if name != "seconds"
        }
    assert [event for event, _ in said].count("lost") == 3
    assert said[-1][1].running == 0
    assert not (killed.store.path / run.CHECKPOINTS).exists()


def test_a_stack_that_does_not_fit_into_its_gpu_fails_each_of_its_trials_with_the_reason(
    studied: Callable[..., Any],
) -> None:
    study, _ = studied("full", 4, fault="GPU full")
    last = {row["trial_id"]: row for row in study.table().table.to_pylist()}
    full = {trial_id for trial_id, row in last.items() if "out of memory on its GPU" in (row["reason"] or "")}
    assert full == set(list(last)[:4])
    assert (study.ledger.count("failed"), study.ledger.count("done")) == (4, 3)
