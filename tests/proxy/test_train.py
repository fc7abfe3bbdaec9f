"""Training: exact repeats, the same numbers as a plain loop, rows as the table wants them, divergence said."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from raymix.corpus import Corpus
from raymix.observations import Observations
from raymix.proxy import families, resolve, train
from raymix.proxy import model as models
from raymix.proxy.evaluate import _spread, evaluate, held_out
from raymix.proxy.loop import Diverged
from raymix.proxy.plan import Batches
from raymix.proxy.task import example
from raymix.proxy.train import train_proxy
from raymix.space import SearchSpace
from raymix.stages import Stage, seen

MakeSpace = Callable[..., SearchSpace]
HALF = np.asarray([0.5, 0.5])
CPU = torch.device("cpu")


def rows_of(corpus: Corpus, space: SearchSpace, mix_K: Any = HALF, **kwargs: Any) -> list[dict[str, float]]:
    options = {"n_params": 2e4, "n_tokens": 2048, "seed": 0, "device": "cpu", "threads": 1, "attention": "eager"}
    found = list(train_proxy(corpus, space, mix_K, **(options | kwargs)))
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def test_two_runs_are_bit_identical_and_seeds_differ(corpus: Corpus, make_space: MakeSpace) -> None:
    torch.manual_seed(1)
    first = rows_of(corpus, make_space())
    torch.manual_seed(2)  # global randomness has no say
    assert rows_of(corpus, make_space()) == first
    assert rows_of(corpus, make_space(), seed=1) != first


def test_rows_are_observations(corpus: Corpus, make_space: MakeSpace) -> None:
    rows = rows_of(corpus, make_space())
    assert [row["n_tokens"] for row in rows] == [512, 1024, 2048]
    last = rows[-1]
    assert last["tokens/a"] == last["tokens/b"] == 1024
    assert last["unique/a"] == 39 * 32  # 5000 x 2048 / 8192 / 32
    assert last["n_params"] == families.count(models.build(resolve(make_space().recipe, 2e4, 2048, corpus.vocab), 0))
    assert last["bpb/a"] == pytest.approx(last["loss/a"] / math.log(2) / 3)
    assert last["flops"] == 2 * rows[1]["flops"]
    shares = {"mixture/a": 0.5, "mixture/b": 0.5}
    table = Observations.from_rows(
        [{"trial_id": "t", "status": "checkpoint", **shares, **row} for row in rows], "ab", "ab"
    )
    assert np.isfinite(table.loss_BM).all()
    assert np.array_equal(table.tokens_BK[-1], [1024, 1024])


def test_losses_fall_and_follow_the_mixture(corpus: Corpus, make_space: MakeSpace) -> None:
    rows = rows_of(corpus, make_space(), n_tokens=8192)
    assert rows[-1]["loss/a"] < rows[0]["loss/a"] < math.log(corpus.vocab)
    only_a = rows_of(corpus, make_space(), np.asarray([1.0, 0.0]), n_tokens=8192)[-1]
    assert only_a["tokens/b"] == 0
    assert only_a["loss/a"] < rows[-1]["loss/a"]
    assert only_a["loss/b"] > rows[-1]["loss/b"] + 1


def reference_loss(corpus: Corpus, space: SearchSpace, steps: int) -> list[float]:
    """A plain loop with transformers' own loss and unfused AdamW."""
    shape = resolve(space.recipe, 2e4, 2048, corpus.vocab)
    batches = Batches.of(corpus, space, HALF, 0, shape)
    model: Any = models.build(shape, 0, "eager")
    params = list(model.parameters())
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=False)
    losses = []
    for step in range(steps):
        tokens = torch.from_numpy(batches[step])
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = shape.learning_rate * min(1.0, (step + 1) / shape.warmup)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_loop_equals_a_plain_loop(corpus: Corpus, make_space: MakeSpace, family: str) -> None:
    space = make_space(family=family, precision="float32")
    shape = resolve(space.recipe, 2e4, 2048, corpus.vocab)
    run = train.Run(shape, 0, CPU, "eager")
    batches = Batches.of(corpus, space, HALF, 0, shape)
    for step in range(5):
        run.step(step, batches[step])
    assert [float(loss) for loss in run.losses] == pytest.approx(reference_loss(corpus, space, 5), abs=1e-6)


def test_checkpoint_is_the_mean_of_the_last_tenth(corpus: Corpus, make_space: MakeSpace) -> None:
    space = make_space(checkpoints=1)
    shape = resolve(space.recipe, 2e4, 20 * 128, corpus.vocab)
    batches = Batches.of(corpus, space, HALF, 0, shape)
    run = train.Run(shape, 0, CPU, "eager")
    seen = []
    for step in range(20):
        run.step(step, batches[step])
        seen.append(copy.deepcopy([param.detach() for param in run.params]))
    mean = [torch.stack(last).mean(0) for last in zip(*seen[17:], strict=True)]
    torch.testing.assert_close(run.averaged, mean)
    run.swap()
    torch.testing.assert_close([param.detach() for param in run.params], mean)
    run.swap()
    assert all(torch.equal(param, last) for param, last in zip(run.params, seen[-1], strict=True))


def test_an_average_does_not_reach_beyond_the_checkpoint_before(corpus: Corpus, make_space: MakeSpace) -> None:
    shape = resolve(make_space().recipe, 2e4, 100 * 128, corpus.vocab)
    run = train.Run(replace(shape, checkpoint_steps=(50, 95, 100)), 0, CPU, "eager")
    means = {}
    for done in range(1, 101):
        run.params[0].data.fill_(done)
        run._average(done)
        means[done] = float(run.averaged[0].flatten()[0]) if run.averaged else None
    assert means[50] == pytest.approx(47.5)  # of 45 to 50
    assert means[95] == pytest.approx(90.5)  # of 86 to 95
    assert means[100] == pytest.approx(98.0)  # of 96 to 100, and not of 86 to 100


def test_a_short_run_is_the_beginning_of_a_long_one(corpus: Corpus, make_space: MakeSpace) -> None:
    space = make_space(simulated_epochs=False)
    long = rows_of(corpus, space, n_params=1e4, n_tokens=2 * 128 * 200)
    short = rows_of(corpus, space, n_params=1e4, n_tokens=128 * 200)
    assert long[1] == short[2]


def test_evaluation_equals_the_models_own_loss_and_repeats(corpus: Corpus, make_space: MakeSpace) -> None:
    space = make_space(eval_tokens=320)
    shape = resolve(space.recipe, 2e4, 2048, corpus.vocab)
    model: Any = models.build(shape, 0, "sdpa")
    sequences = held_out(corpus, space)
    assert sequences["a"].shape == (10, 33)
    found = evaluate(model, sequences, CPU, torch.float32)
    tokens = torch.from_numpy(sequences["a"])
    logits = model(tokens[:, :-1]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert found["a"].mean == pytest.approx(expected.item(), abs=1e-6)
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    assert found["a"].error == pytest.approx(float(each.detach().view(10, 32).mean(1).std() / 10**0.5), abs=1e-6)
    assert evaluate(model, held_out(corpus, space), CPU, torch.float32) == found


def test_held_out_sequences_reach_from_the_beginning_of_the_text_to_its_end() -> None:
    text = np.arange(101)
    assert _spread(text, 10, 30)[:, 0].tolist() == [0, 40, 90]
    assert _spread(text, 10, 30)[:, -1].tolist() == [10, 50, 100], "the last is a target only"
    assert _spread(text, 10, 5000)[:, 0].tolist() == list(range(0, 100, 10)), "each sequence once"
    assert _spread(text[:6], 10, 30).tolist() == [[0, 1, 2, 3, 4, 5]], "a short text is one short sequence"


def test_bfloat16_gives_nearly_the_same_losses(corpus: Corpus, make_space: MakeSpace) -> None:
    exact, rounded = (rows_of(corpus, make_space(precision=p))[-1] for p in ("float32", "bfloat16"))
    assert rounded["loss/a"] != exact["loss/a"]
    assert rounded["loss/a"] == pytest.approx(exact["loss/a"], rel=0.01)


@pytest.mark.parametrize("has", [False, True])
def test_precision_is_what_was_asked_for_else_what_the_cpu_computes_in(
    corpus: Corpus, make_space: MakeSpace, monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    for probe in models.BF16_PROBES:
        monkeypatch.setattr(torch.cpu, probe, lambda: has)
    found = [
        models.dtype_of(resolve(make_space(precision=precision).recipe, 2e4, 2048, corpus.vocab), CPU)
        for precision in ("auto", "float32", "bfloat16")
    ]
    assert found == [torch.bfloat16 if has else torch.float32, torch.float32, torch.bfloat16]


def test_diverging_run_says_so(corpus: Corpus, make_space: MakeSpace) -> None:
    with pytest.raises(Diverged, match=r"training loss is .* at step .*learning rate 1e\+03"):
        rows_of(corpus, make_space(learning_rate=1e3), n_tokens=8192)


def test_nan_is_divergence(corpus: Corpus, make_space: MakeSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(*args: Any) -> Any:
        model = build(*args)
        next(model.parameters()).data[:] = float("nan")
        return model

    build = models.build
    monkeypatch.setattr(models, "build", poisoned)
    with pytest.raises(Diverged, match="training loss is nan"):
        rows_of(corpus, make_space())


def test_wrong_mixture_is_refused(corpus: Corpus, make_space: MakeSpace) -> None:
    with pytest.raises(ValueError, match=r"sum to 0\.9"):
        rows_of(corpus, make_space(), np.asarray([0.5, 0.4]))


def test_initial_weights_follow_the_seed_alone() -> None:
    shape = resolve(SearchSpace.model_fields["recipe"].default, 2e4, 2048, 300)
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    first = models.build(shape, 5, "eager").state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    again, other = models.build(shape, 5, "sdpa").state_dict(), models.build(shape, 6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_accumulated_gradients_are_those_of_the_batch(corpus: Corpus, make_space: MakeSpace, family: str) -> None:
    whole = rows_of(corpus, make_space(family=family, precision="float32"))
    for at_once in (1, 3):
        parts = rows_of(corpus, make_space(family=family, micro_batch=at_once, precision="float32"))
        for row, expected in zip(parts, whole, strict=True):
            assert row["loss/a"] == pytest.approx(expected["loss/a"], abs=1e-4)  # rounding, after Adam's division
    run_whole, run_parts = (
        train.Run(resolve(make_space(family=family, **how).recipe, 2e4, 2048, corpus.vocab), 0, CPU, "eager")
        for how in ({"precision": "float32"}, {"precision": "float32", "micro_batch": 3})
    )
    batch = Batches.of(corpus, make_space(), HALF, 0, run_whole.shape)[0]
    task = example(batch, run_whole.shape.mask_token, corpus.vocab, (0, 0))
    assert float(run_parts.gradients(task)) == pytest.approx(float(run_whole.gradients(task)), abs=1e-6)
    for mine, theirs in zip(run_parts.params, run_whole.params, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_gradients_stay_in_memory_of_the_run_itself(corpus: Corpus, make_space: MakeSpace, family: str) -> None:
    # A gradient that autograd takes over from a CUDA graph is overwritten, and an error, at the next step.
    run = train.Run(resolve(make_space(family=family).recipe, 2e4, 2048, corpus.vocab), 0, CPU, "eager")
    places = [param.grad.data_ptr() for param in run.params]
    batches = Batches.of(corpus, make_space(), HALF, 0, run.shape)
    for step in range(2):
        run.step(step, batches[step])
    assert [param.grad.data_ptr() for param in run.params] == places


def test_stages_are_rows_of_the_table(corpus: Corpus, make_space: MakeSpace) -> None:
    stages = [Stage(np.asarray([1.0, 0.0]), 1536), Stage(np.asarray([0.25, 0.75]), 512)]
    rows = rows_of(corpus, make_space(), stages)
    assert [row["n_tokens"] for row in rows] == [1536, 2048]
    assert [(row["mixture/a"], row["tokens/a"]) for row in rows] == [(1, 1536), (1664 / 2048, 1664)]
    for row, expected in zip(rows, seen(stages), strict=True):
        assert [row["mixture/a"], row["mixture/b"]] == pytest.approx(expected.mixture_K)
    with pytest.raises(ValueError, match="the stages have 512 tokens, the run 2048"):
        rows_of(corpus, make_space(), stages[1:])


def test_stages_of_the_recipe_are_looked_at_at_the_end(corpus: Corpus, make_space: MakeSpace) -> None:
    parts = [{"tokens": 0.75}, {"tokens": 0.25, "mixture": {"b": 1}}]
    rows = rows_of(corpus, make_space(stages=parts), np.asarray([1.0, 0.0]))
    assert [(row["n_tokens"], row["tokens/a"]) for row in rows] == [(2048, 1536)]
    assert "mixture/a" not in rows[0]  # the trial's own mixture is what was asked


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_a_decayed_run_is_evaluated_as_it_is(corpus: Corpus, make_space: MakeSpace, schedule: str) -> None:
    decayed = rows_of(corpus, make_space(schedule=schedule), n_tokens=8192)
    assert len(decayed) == (3 if schedule == "wsd" else 1)
    assert decayed[-1]["loss/a"] == pytest.approx(rows_of(corpus, make_space(), n_tokens=8192)[-1]["loss/a"], abs=0.2)
