"""A stack of proxies is its proxies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from raymix.corpus import Corpus
from raymix.proxy import model as models
from raymix.proxy import resolve, train_proxy
from raymix.proxy.loop import Run
from raymix.proxy.plan import Batches
from raymix.proxy.stacked import Job, Stack, train_stacked
from raymix.space import SearchSpace

MakeSpace = Callable[..., SearchSpace]
CPU = torch.device("cpu")
JOBS = [Job(np.asarray([share, 1 - share]), seed) for share, seed in ((0.2, 0), (0.5, 1), (1.0, 2))]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_losses_of_a_stack_are_those_of_its_proxies(
    corpus: Corpus, make_space: MakeSpace, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "fast_dtype", lambda device: torch.float32)
    space = make_space(family=family)
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


def test_rows_of_a_stack_are_those_of_separate_trials(corpus: Corpus, make_space: MakeSpace) -> None:
    space = make_space()
    found = list(train_stacked(corpus, space, JOBS, 1e4, 2048, "cpu", "eager"))
    for index, job in enumerate(JOBS):
        alone = list(train_proxy(corpus, space, job.mixture_K, 1e4, 2048, job.seed, "cpu", 1, "eager"))
        rows: list[dict[str, Any]] = [result.row for result in found if result.proxy == index]
        assert len(rows) == len(alone) == 3
        for row, expected in zip(rows, alone, strict=True):
            assert set(row) == set(expected) - {"seconds"}
            for key, value in row.items():
                assert value == pytest.approx(expected[key], abs=1e-5), key


def test_one_that_diverges_does_not_harm_the_rest(
    corpus: Corpus, make_space: MakeSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(shape: Any, seed: int, attention: str) -> Any:
        model = build(shape, seed, attention)
        if seed == 1:
            next(model.parameters()).data[:] = float("nan")
        return model

    build = models.build
    healthy = [r for r in train_stacked(corpus, make_space(), JOBS, 1e4, 2048, "cpu", "eager") if r.proxy != 1]
    monkeypatch.setattr(models, "build", poisoned)
    found = list(train_stacked(corpus, make_space(), JOBS, 1e4, 2048, "cpu", "eager"))
    assert [r.reason for r in found if r.proxy == 1] == [
        "the training loss is nan at step 4 of 16, learning rate 0.012"
    ]
    assert [r for r in found if r.proxy != 1] == healthy


def test_an_encoder_is_not_stacked(corpus: Corpus, make_space: MakeSpace) -> None:
    with pytest.raises(ValueError, match="only decoders from scratch"):
        next(train_stacked(corpus, make_space(family="bert"), JOBS, 1e4, 2048))
