"""What a study will cost counts everything its budget pays for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raymix.corpus import Corpus
from raymix.plan import RungPlan, _wall, plan
from raymix.space import SearchSpace
from tests import worlds

FLOPS = 2e10


@pytest.fixture
def with_budget(corpus: Corpus, make_space: Callable[..., SearchSpace]) -> Callable[..., SearchSpace]:
    def made(budget: dict[str, Any], **confirm: Any) -> SearchSpace:
        given = make_space().model_dump(mode="json", exclude_none=True) | {"budget": budget, "confirm": confirm or None}
        return SearchSpace.parse(given).with_available(corpus.tokens)

    return made


def test_of_a_budget_in_trials_confirmation_takes_its_part(
    corpus: Corpus, with_budget: Callable[..., SearchSpace]
) -> None:
    found = plan(with_budget({"trials": 20}, seeds=3), corpus, slots=2)
    assert [(rung.purpose, rung.trials) for rung in found.rungs] == [("search", 14), ("confirm", 6)]
    assert found.trials == 20
    assert found.rungs[1].n_tokens == found.rungs[0].n_tokens  # the largest rung: trials do not say what they cost
    assert found.tokens == sum(rung.trials * rung.n_tokens for rung in found.rungs)


def test_of_a_budget_in_flops_it_takes_its_share(corpus: Corpus, with_budget: Callable[..., SearchSpace]) -> None:
    found = plan(with_budget({"flops": FLOPS}, seeds=2, share=0.5), corpus, slots=2)
    search, confirm = found.rungs
    assert 0.9 * FLOPS / 2 <= search.trials * search.flops <= FLOPS / 2
    assert search.flops < confirm.flops <= FLOPS / 2 / confirm.trials  # beyond the ladder, as far as it pays for
    assert confirm.seconds / confirm.flops == pytest.approx(search.seconds / search.flops)


def test_without_it_there_is_the_search_alone(corpus: Corpus, with_budget: Callable[..., SearchSpace]) -> None:
    assert [rung.purpose for rung in plan(with_budget({"trials": 6}), corpus, slots=1).rungs] == ["search"]


def test_two_sizes_of_equal_tokens_take_their_own_time() -> None:
    equal = [{"n_params": n_params, "n_tokens": 1e6} for n_params in (1e5, 1e6)]
    parts = [RungPlan(0, 1e6, "", trials, 0.0, seconds) for trials, seconds in ((12, 10.0), (4, 100.0))]
    assert _wall(worlds.space(ladder=equal, budget={"trials": 16}), parts, slots=1) == 12 * 10 + 4 * 100
