"""Masked language modelling: the masks of BERT, and transformers' own loss."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from raymix.corpus import Corpus
from raymix.proxy import loop, resolve
from raymix.proxy import model as models
from raymix.proxy.evaluate import evaluate, held_out
from raymix.proxy.plan import Batches
from raymix.proxy.task import example
from raymix.proxy.train import train_proxy
from raymix.space import SearchSpace

MakeSpace = Callable[..., SearchSpace]
CPU = torch.device("cpu")
HALF = np.asarray([0.5, 0.5])


def test_masks_are_those_of_bert_and_follow_the_key() -> None:
    tokens = np.random.default_rng(0).integers(300, size=(400, 129))
    found = example(tokens, 300, 300, (0, 7))
    assert found.places is not None
    assert found.places.shape == (400, 19)  # 15% of 128
    assert all(len(set(row)) == 19 for row in found.places)
    assert np.array_equal(np.take_along_axis(tokens, found.places, 1), found.targets)
    shown = np.take_along_axis(found.inputs, found.places, 1)
    n = shown.size  # 7600: three standard errors of a share of .8 are .014
    assert (shown == 300).mean() == pytest.approx(0.8, abs=3 * (0.16 / n) ** 0.5)
    assert (shown == found.targets).mean() == pytest.approx(0.1 + 0.1 / 300, abs=3 * (0.09 / n) ** 0.5)
    elsewhere = np.ones(found.inputs.shape, bool)
    np.put_along_axis(elsewhere, found.places, False, 1)
    assert np.array_equal(found.inputs[elsewhere], tokens[:, :-1][elsewhere])
    again, other = example(tokens, 300, 300, (0, 7)), example(tokens, 300, 300, (0, 8))
    assert np.array_equal(again.inputs, found.inputs)
    assert not np.array_equal(other.inputs, found.inputs)


def test_a_decoder_is_asked_for_the_next_token() -> None:
    tokens = np.arange(12).reshape(2, 6)
    found = example(tokens, None, 300, (0, 0))
    assert found.places is None
    assert np.array_equal(found.inputs + 1, found.targets)


def labels(task: Any) -> torch.Tensor:
    found = np.full(task.inputs.shape, -100)
    np.put_along_axis(found, task.places, task.targets, 1)
    return torch.from_numpy(found)


def test_training_equals_a_plain_loop_around_transformers_own_loss(corpus: Corpus, make_space: MakeSpace) -> None:
    space = make_space(family="bert", precision="float32")
    shape = resolve(space.recipe, 2e4, 2048, corpus.vocab)
    batches = Batches.of(corpus, space, HALF, 3, shape)
    run, model = loop.Run(shape, 3, CPU, "eager"), models.build(shape, 3, "eager")
    params: list[Any] = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in params if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
    )
    expected = []
    for step in range(8):
        task = example(batches[step], corpus.vocab, corpus.vocab, (3, step))
        loss = model(input_ids=torch.from_numpy(task.inputs), labels=labels(task)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = shape.rate(step)
        optimizer.step()
        expected.append(loss.item())
        run.step(step, batches[step])
    assert [float(loss) for loss in run.losses] == pytest.approx(expected, abs=1e-5)


def test_evaluation_is_transformers_own_loss_on_the_same_masks_every_time(
    corpus: Corpus, make_space: MakeSpace
) -> None:
    space = make_space(family="bert", eval_tokens=320)
    shape = resolve(space.recipe, 2e4, 2048, corpus.vocab)
    model: Any = models.build(shape, 0, "sdpa")
    sequences = held_out(corpus, space)
    asked: list[Any] = []

    def watched(*args: Any) -> Any:
        asked.append(example(*args))
        return asked[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raymix.proxy.evaluate.example", watched)
        found = evaluate(model, sequences, CPU, torch.float32, shape.mask_token)
        assert evaluate(model, sequences, CPU, torch.float32, shape.mask_token) == found
    assert np.array_equal(asked[0].inputs, asked[2].inputs)
    for name, task in zip("ab", asked, strict=False):
        expected = model(input_ids=torch.from_numpy(task.inputs), labels=labels(task)).loss
        assert found[name].mean == pytest.approx(expected.item(), abs=1e-5)
        assert 0 < found[name].error < 1


def test_an_encoder_learns(corpus: Corpus, make_space: MakeSpace) -> None:
    rows = list(train_proxy(corpus, make_space(family="bert"), HALF, 2e4, 128 * 200, 0, "cpu", 1, "eager"))
    assert rows[-1]["loss/a"] < rows[0]["loss/a"] < np.log(corpus.vocab) - 1  # words without order: their frequencies
