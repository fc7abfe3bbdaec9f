"""A longer run that goes on from a shorter one begins with its batches, and ends with the same bits with or without
the state that was left behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymix.corpus import Corpus
from raymix.proxy import resolve
from raymix.proxy.checkpoint import Checkpoints, Interrupted
from raymix.proxy.going_on import Before, going_on, planned
from raymix.proxy.plan import Batches
from raymix.proxy.train import train_proxy
from raymix.space import SearchSpace

MakeSpace = Callable[..., SearchSpace]
MIX = np.asarray([0.3, 0.7])
STEP = 128  # tokens
SHORT, LONG, LONGEST = 8 * STEP, 16 * STEP, 40 * STEP


def batches(corpus: Corpus, space: SearchSpace, n_tokens: float, *lengths: float) -> Batches:
    def fresh(length: float) -> Batches:
        return Batches.of(corpus, space, MIX, 0, resolve(space.recipe, 1e4, length, corpus.vocab))

    return planned(fresh, n_tokens, lengths)


def train(corpus: Corpus, space: SearchSpace, n_tokens: float, **more: Any) -> list[dict[str, Any]]:
    rows = train_proxy(corpus, space, MIX, 1e4, n_tokens, 0, "cpu", 1, "eager", **more)
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize("recipe", [{}, {"simulated_epochs": False}], ids=["simulated", "whole"])
def test_it_begins_with_the_batches_of_those_before(corpus: Corpus, make_space: MakeSpace, recipe: Any) -> None:
    space = make_space(**recipe)
    parts = [batches(corpus, space, SHORT), batches(corpus, space, LONG, SHORT)]
    whole = batches(corpus, space, LONGEST, SHORT, LONG)
    for part in parts:
        for step in range(len(part)):
            assert np.array_equal(part[step], whole[step])
    count_BK = np.cumsum(whole._domain_of[:, None] == np.arange(2), axis=0)
    assert np.abs(count_BK - np.outer(np.arange(1, len(count_BK) + 1), MIX)).max() < 1


def test_text_is_read_as_often_as_by_a_run_from_the_start(corpus: Corpus, make_space: MakeSpace) -> None:
    space = make_space()

    def counts(plan: Batches) -> list[int]:
        starts = plan._start_of[plan._domain_of == 1]
        return sorted(np.unique(starts, return_counts=True)[1].tolist())

    once, after = counts(batches(corpus, space, LONG)), counts(batches(corpus, space, LONG, SHORT))
    assert len(once) == len(after) == batches(corpus, space, LONG).unique_K[1]
    assert max(once) - min(once) <= 1 and max(after) - min(after) <= 1


def test_where_the_shard_is_at_its_end_all_of_it_is_read_again(corpus: Corpus, make_space: MakeSpace) -> None:
    plan = batches(corpus, make_space(simulated_epochs=False), 10 * LONGEST, LONGEST)
    starts = plan._start_of[plan._domain_of == 0]
    assert len(np.unique(starts)) == plan.unique_K[0] < len(starts) / 2
    assert np.ptp(np.unique(starts, return_counts=True)[1]) <= 1


def test_nothing_is_read_twice_while_some_text_is_unread(corpus: Corpus, make_space: MakeSpace) -> None:
    plan = batches(corpus, make_space(simulated_epochs=False), LONG, SHORT)
    starts = plan._start_of[plan._domain_of == 1]
    assert len(starts) < plan.unique_K[1]
    assert len(np.unique(starts)) == len(starts)


@pytest.mark.parametrize("recipe", [{}, {"schedule": "wsd", "family": "bert"}], ids=["gpt2", "bert"])
def test_the_state_left_behind_saves_time_and_changes_no_bit(
    corpus: Corpus, make_space: MakeSpace, tmp_path: Path, recipe: Any
) -> None:
    space, left = make_space(**recipe), Checkpoints(tmp_path / "short", keep_end=True)
    short = train(corpus, space, SHORT, checkpoints=left)
    signs, signs_anew = list[None](), list[None]()  # of life: one per step and evaluated domain
    gone_on = train(corpus, space, LONGEST, before=Before((SHORT,), left), alive=lambda: signs.append(None))
    anew = train(corpus, space, LONGEST, before=Before((SHORT,)), alive=lambda: signs_anew.append(None))
    assert gone_on == anew
    assert len(signs_anew) - len(signs) == SHORT / STEP, "the steps of the shorter run are not taken again"
    assert min(row["n_tokens"] for row in gone_on) > short[-1]["n_tokens"] and gone_on[-1]["n_tokens"] == LONGEST
    per_token = short[-1]["flops"] / SHORT
    assert gone_on[-1]["flops"] == pytest.approx(per_token * (LONGEST - SHORT), rel=1e-12)


def test_one_that_is_stopped_goes_on_from_its_own_state(corpus: Corpus, make_space: MakeSpace, tmp_path: Path) -> None:
    space, left, own = make_space(), Checkpoints(tmp_path / "short", keep_end=True), Checkpoints(tmp_path / "long")
    train(corpus, space, SHORT, checkpoints=left)
    before = Before((SHORT,), left)
    expected = train(corpus, space, LONGEST, before=before)
    rows = train_proxy(corpus, space, MIX, 1e4, LONGEST, 0, "cpu", 1, "eager", checkpoints=own, before=before)
    next(rows)
    own.stopping = True
    with pytest.raises(Interrupted):
        list(rows)
    left.remove()
    assert train(corpus, space, LONGEST, before=before, checkpoints=Checkpoints(tmp_path / "long")) == expected


@pytest.mark.parametrize(
    "recipe", [{"schedule": "cosine"}, {"rates": "step-law"}, {"rates": "deepseek", "batch": "auto"}]
)
def test_what_depends_on_the_length_cannot_go_on(corpus: Corpus, make_space: MakeSpace, recipe: Any) -> None:
    space = make_space(**recipe)
    short, long = (resolve(space.recipe, 1e4, n, corpus.vocab) for n in (SHORT, 100 * LONGEST))
    with pytest.raises(ValueError, match="not the beginning"):
        going_on(long, short)
