"""What a study will cost counts everything its budget pays for."""

from collections.abc import Callable
from typing import Any

import pytest

from raymix.corpus import Corpus
from raymix.plan import RungPlan, _wall, plan
from raymix.proxy import resolve
from raymix.space import SearchSpace
from raymix.study.budget import CLOSE
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
    left = FLOPS - search.trials * search.flops
    assert search.flops < confirm.flops <= left / confirm.trials * CLOSE  # beyond the ladder, as far as it pays for
    assert confirm.seconds / confirm.flops == pytest.approx(search.seconds / search.flops)


@pytest.mark.parametrize(("pays_for", "runs"), [(4, 4), (3, 2), (1, 0)])
def test_of_runs_at_a_named_scale_it_plans_those_that_the_budget_pays_for(
    corpus: Corpus, with_budget: Callable[..., SearchSpace], pays_for: int, runs: int
) -> None:
    named = {"n_params": 2e4, "n_tokens": 2048}
    each = plan(with_budget({"trials": 20}, seeds=3), corpus, slots=2).rungs[0].flops
    space = with_budget({"trials": 18, "flops": (14.01 + pays_for) * each}, seeds=2, share=0.01, scale=named)
    found = plan(space, corpus, slots=2)
    assert sum(rung.trials for rung in found.rungs if rung.purpose == "confirm") == runs
    said = [warning for warning in found.warnings if warning.startswith("confirmation")]
    assert said == ([] if runs == 4 else [f"confirmation: the budget pays for {runs} of 4 runs at confirm.scale "
                                          "(20k parameters, 2.05k tokens)"])  # fmt: skip


def test_what_a_search_limited_in_trials_leaves_is_for_confirmation(
    corpus: Corpus, with_budget: Callable[..., SearchSpace]
) -> None:
    space = with_budget({"trials": 20, "flops": 1000 * FLOPS}, seeds=3, share=1e-6)
    search, confirm = plan(space, corpus, slots=2).rungs
    assert (search.trials, confirm.trials) == (14, 6)
    assert confirm.n_tokens == 8192  # the target: what was set aside alone would not pay for the smallest rung


def test_without_it_there_is_the_search_alone(corpus: Corpus, with_budget: Callable[..., SearchSpace]) -> None:
    assert [rung.purpose for rung in plan(with_budget({"trials": 6}), corpus, slots=1).rungs] == ["search"]


def test_the_time_of_a_trial_counts_its_evaluations(
    corpus: Corpus, with_budget: Callable[..., SearchSpace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raymix.plan.seconds_per_step", lambda *_: 1.0)
    space = with_budget({"trials": 6})
    shape = resolve(space.recipe, *space.ladder[0].scale, corpus.vocab)
    steps = 2 * len(shape.checkpoint_steps) * space.recipe.eval_tokens / shape.tokens_per_step  # two eval domains
    assert plan(space, corpus, slots=1).rungs[0].seconds == pytest.approx(shape.n_steps + steps / 3)


def test_two_sizes_of_equal_tokens_take_their_own_time() -> None:
    equal = [{"n_params": n_params, "n_tokens": 1e6} for n_params in (1e5, 1e6)]
    parts = [RungPlan(0, 1e6, "", trials, 0.0, seconds) for trials, seconds in ((12, 10.0), (4, 100.0))]
    assert _wall(worlds.space(ladder=equal, budget={"trials": 16}), parts, slots=1) == 12 * 10 + 4 * 100


def test_a_target_below_every_proxy_is_questioned(corpus: Corpus, with_budget: Callable[..., SearchSpace]) -> None:
    space = with_budget({"trials": 6})
    target = space.target.model_copy(update={"n_params": 7.0, "n_tokens": 2.0})
    said = plan(space.model_copy(update={"target": target}), corpus, slots=1).warnings
    assert "target.n_params is 7, below the 2e+04 of every proxy: is its unit right?" in said
    assert "target.n_tokens is 2, below the 2.05e+03 of every proxy: is its unit right?" in said
    assert not any("unit" in warning for warning in plan(space, corpus, slots=1).warnings)


@pytest.mark.parametrize(("promote", "says"), [(True, True), (False, False)])
def test_trials_that_may_go_on_are_counted_in_full_and_that_is_said(
    corpus: Corpus, with_budget: Callable[..., SearchSpace], promote: bool, says: bool
) -> None:
    one_rung = with_budget({"trials": 6})
    given = one_rung.model_dump(mode="json", exclude_none=True)
    lengths = [{"n_params": 2e4, "n_tokens": n} for n in (1024, 2048)]
    recipe = {**given["recipe"], "promote": promote, "schedule": "constant"}
    space = SearchSpace.parse({**given, "ladder": lengths, "recipe": recipe}).with_available(corpus.tokens)
    said = plan(space, corpus, slots=1).warnings
    assert any("may go on" in warning for warning in said) == says
    assert any("the searcher chooses the rung" in warning for warning in said)
    assert not any("the searcher" in warning for warning in plan(one_rung, corpus, slots=1).warnings)
