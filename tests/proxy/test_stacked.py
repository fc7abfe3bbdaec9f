"""A stack of proxies is its proxies."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raymix.corpus import Corpus
from raymix.proxy import model as models
from raymix.proxy import resolve
from raymix.proxy.checkpoint import Checkpoints, Interrupted
from raymix.proxy.loop import Diverged, Run
from raymix.proxy.model import ATTENTIONS
from raymix.proxy.plan import Batches
from raymix.proxy.stack_training import Job, Result, train_stacked
from raymix.proxy.stacked import Stack
from raymix.proxy.train import train_proxy
from raymix.space import SearchSpace

MakeSpace = Callable[..., SearchSpace]
CPU = torch.device("cpu")
JOBS = [Job(np.asarray([share, 1 - share]), seed) for share, seed in ((0.2, 0), (0.5, 1), (1.0, 2))]
STEPS = 30  # more than one look at the losses between two evaluations


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_losses_of_a_stack_are_those_of_its_proxies(corpus: Corpus, make_space: MakeSpace, family: str) -> None:
    space = make_space(family=family, precision="float32")
    shape = resolve(space.recipe, 2e4, 2048, corpus.vocab)
    plans = [Batches.of(corpus, space, job.mixture_K, job.seed, shape) for job in JOBS]
    stack = Stack(shape, [job.seed for job in JOBS], CPU, "eager")
    runs = [Run(shape, job.seed, CPU, "eager") for job in JOBS]
    for step in range(10):
        stack.step(step, np.stack([plan[step] for plan in plans]))
        for run, plan in zip(runs, plans, strict=True):
            run.step(step, plan[step])
    for index, run in enumerate(runs):
        assert [float(loss[index]) for loss in stack.losses] == pytest.approx([float(x) for x in run.losses], abs=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_rows_of_a_stack_are_those_of_separate_trials(corpus: Corpus, make_space: MakeSpace, attention: str) -> None:
    space = make_space(precision="float32")
    found = list(train_stacked(corpus, space, JOBS, 1e4, 2048, "cpu", 1, attention))
    for index, job in enumerate(JOBS):
        alone = list(train_proxy(corpus, space, job.mixture_K, 1e4, 2048, job.seed, "cpu", 1, attention))
        rows: list[dict[str, Any]] = [result.row for result in found if result.proxy == index]
        assert len(rows) == len(alone) == 3
        for row, expected in zip(rows, alone, strict=True):
            assert set(row) == set(expected)
            for key in set(row) - {"seconds"}:
                assert row[key] == pytest.approx(expected[key], abs=1e-5), key


def test_stages_of_the_recipe_hold_in_a_stack(corpus: Corpus, make_space: MakeSpace) -> None:
    space = make_space(stages=[{"tokens": 0.5}, {"tokens": 0.5, "mixture": {"a": 1.0}}], precision="float32")
    found = list(train_stacked(corpus, space, JOBS, 1e4, 2048, "cpu", 1, "eager"))
    for result, job in zip(found, JOBS, strict=True):
        (alone,) = train_proxy(corpus, space, job.mixture_K, 1e4, 2048, job.seed, "cpu", 1, "eager")
        for key in set(alone) - {"seconds"}:
            # float32 sums in another order, 2e-5 with some versions of torch
            assert result.row[key] == pytest.approx(alone[key], abs=5e-5), key


def test_one_that_diverges_does_not_harm_the_rest(
    corpus: Corpus, make_space: MakeSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = [r for r in timeless(train_stacked(corpus, make_space(), JOBS, 1e4, 2048, "cpu", 1)) if r.proxy != 1]
    monkeypatch.setattr(models, "build", poisoned(models.build))
    found = timeless(train_stacked(corpus, make_space(), JOBS, 1e4, 2048, "cpu", 1))
    with pytest.raises(Diverged) as alone:
        list(train_proxy(corpus, make_space(), JOBS[1].mixture_K, 1e4, 2048, 1, "cpu", 1))
    assert [r.reason for r in found if r.proxy == 1] == [str(alone.value)]
    assert [r for r in found if r.proxy != 1] == healthy


def test_a_stack_that_has_diverged_as_a_whole_ends(corpus: Corpus, make_space: MakeSpace) -> None:
    """Each with the words that it would have alone."""
    space = make_space(learning_rate=1e6)
    found = list(train_stacked(corpus, space, JOBS, 1e4, 128 * 100, "cpu", 1, "eager"))
    assert [result.proxy for result in found] == [0, 1, 2]
    for result, job in zip(found, JOBS, strict=True):
        with pytest.raises(Diverged) as alone:
            list(train_proxy(corpus, space, job.mixture_K, 1e4, 128 * 100, job.seed, "cpu", 1, "eager"))
        assert str(alone.value).split(" nats ")[-1] == result.reason.split(" nats ")[-1]
        assert "of 100" in result.reason


@pytest.mark.parametrize("schedule", ["constant", "wsd"])
def test_a_stack_stopped_at_any_step_ends_with_the_same_bits(
    corpus: Corpus, make_space: MakeSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    """One proxy diverges on the way; its end comes again, too, and only once."""
    monkeypatch.setattr(models, "build", poisoned(models.build))
    space, checkpoints = make_space(schedule=schedule), Checkpoints(tmp_path / "stack")
    stops, taken, step = {"after": -1}, list[int](), Stack.step

    def watched(self: Stack, at: int, batch: Any) -> None:
        taken.append(at)
        step(self, at, batch)
        checkpoints.stopping = at == stops["after"]

    def results(stop: int = -1, jobs: Sequence[Job] = JOBS) -> Iterator[Result]:
        stops["after"] = stop
        taken.clear()
        return train_stacked(corpus, space, jobs, 1e4, STEPS * 128, "cpu", 1, "eager", checkpoints=checkpoints)

    monkeypatch.setattr(Stack, "step", watched)
    whole = timeless(results())
    assert [result.proxy for result in whole if result.reason] == [1]
    for stop in (0, 6, 7, 8, 14, 20, STEPS - 2):
        with pytest.raises(Interrupted, match=f"saved at step {stop + 1} of {STEPS}"):
            list(results(stop))
        assert timeless(results()) == whole
        assert taken == list(range(stop + 1, STEPS))  # no step twice
        checkpoints.remove()
    with pytest.raises(Interrupted):
        list(results(5))
    list(results(jobs=[*JOBS[:2], Job(JOBS[2].mixture_K, 7)]))
    assert taken[0] == 0  # what was saved is another stack's


def test_every_step_and_every_evaluated_domain_of_each_is_a_sign_of_life(corpus: Corpus, make_space: MakeSpace) -> None:
    signs: list[None] = []
    space = make_space(checkpoints=2)
    found = list(train_stacked(corpus, space, JOBS, 1e4, 1280, "cpu", 1, alive=lambda: signs.append(None)))
    assert len(found) == 2 * len(JOBS)
    assert len(signs) == 10 + len(found) * len(space.eval_names)


def test_an_encoder_is_not_stacked(corpus: Corpus, make_space: MakeSpace) -> None:
    with pytest.raises(ValueError, match="only decoders from scratch"):
        next(train_stacked(corpus, make_space(family="bert"), JOBS, 1e4, 2048))


def poisoned(build: Any) -> Any:
    """`build`, but what it builds from seed 1 has NaN for weights."""

    def building(shape: Any, seed: int, attention: str = "sdpa") -> Any:
        model = build(shape, seed, attention)
        if seed == 1:
            next(model.parameters()).data[:] = float("nan")
        return model

    return building


def timeless(results: Iterable[Result]) -> list[Result]:
    """Without the seconds."""
    return [r._replace(row={key: value for key, value in r.row.items() if key != "seconds"}) for r in results]
