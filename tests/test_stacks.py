"""Trials trained as one: which of them, and what the searcher makes of their results."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymix.design import Proposal, SpaceFilling
from raymix.search import MixtureSearch
from raymix.space import Scale, SearchSpace, SpaceError
from raymix.store import Store
from raymix.study.ledger import Ledger
from raymix.study.stacks import Stack, begun_with, stacks_of
from raymix.study.trial import Trial
from tests import worlds

RUNG = {"n_params": 1e5, "n_tokens": 5e5}
SIZES = {Scale(*RUNG.values()): 3}


def one_rung(**changes: Any) -> SearchSpace:
    """Rounds of four trials, all of one size."""
    return worlds.space(ladder=[RUNG], **changes)


def searching(ledger: Ledger | None = None, **options: Any) -> tuple[MixtureSearch, list[tuple[str, str]]]:
    """A search in stacks of three, and what it says happened."""
    said: list[tuple[str, str]] = []

    def on_change(event: str, trial: Trial | None) -> None:
        said.append((event, trial.trial_id if trial else ""))

    space = one_rung()
    options = {"retries": 1, "stacks": SIZES, "rounds": True, "on_change": on_change} | options
    ledger = ledger or Ledger(space, designer=SpaceFilling(space))
    return MixtureSearch(ledger=ledger, **options), said


def members(config: Any) -> list[Trial]:
    """The trials that a worker was told of."""
    first = {key: value for key, value in config.items() if key not in ("stack", "retry")}
    return [Trial(**raw) for raw in (first, *config.get("stack", ()))]


def tell(search: MixtureSearch, tune_id: str, trial: Trial, n: int, last: bool = False) -> None:
    """The n-th of a trial's two rows, as a stack reports it; `last` of the stack."""
    row = worlds.rows(trial)[n] | {"member": trial.trial_id, "done": last}
    if last:
        search.on_trial_complete(tune_id, row)
    else:
        search.on_trial_result(tune_id, row)


def test_a_round_is_cut_into_stacks_in_its_order() -> None:
    search, said = searching()
    configs = [search.suggest("s1"), search.suggest("s2")]
    assert search.suggest("s3") is None
    trials = list(search.ledger.trials.values())
    assert [members(config) for config in configs] == [trials[:3], trials[3:]]
    assert "stack" not in configs[1]  # type: ignore[operator]
    assert [event for event in said if event[0] == "started"] == [("started", trial.trial_id) for trial in trials]


def test_stacks_never_cross_rounds_or_sizes() -> None:
    ledger = Ledger(worlds.space(), designer=SpaceFilling(worlds.space()))
    trials = [*ledger.ask(4), *ledger.ask(4)]
    scales = [Scale(trial.n_params, trial.n_tokens) for trial in trials]
    found = stacks_of(ledger, trials, dict.fromkeys(scales, 3))
    assert sorted(trial.trial_id for stack in found for trial in stack.trials) == sorted(ledger.trials)
    assert max(len(stack.trials) for stack in found) == 3
    for stack in found:
        assert len({(trial.round, trial.n_params, trial.n_tokens) for trial in stack.trials}) == 1
        assert stack.trials == tuple(sorted(stack.trials, key=trials.index))
    only_small = stacks_of(ledger, trials, {min(scales): 3})
    assert all(len(stack.trials) == 1 for stack in only_small if stack.trials[0].n_params > min(scales).n_params)


def test_a_trial_that_goes_on_is_trained_alone() -> None:
    longer = {"n_params": 1e5, "n_tokens": 1e6}
    ledger = Ledger(worlds.space(ladder=[RUNG, longer]))
    mixtures = np.random.default_rng(0).dirichlet(np.ones(3), size=4)
    first = ledger.propose([Proposal(mixtures[0], Scale(**RUNG), 0)])[0]
    ledger.observe(first.trial_id, worlds.rows(first)[1])
    trials = ledger.propose([Proposal(mix_K, Scale(**longer), 0) for mix_K in mixtures])
    assert [trial.continues for trial in trials] == [first.trial_id, "", "", ""]
    stacks = stacks_of(ledger, trials, {Scale(**longer): 3})
    assert [stack.ids for stack in stacks] == [[trials[0].trial_id], [trial.trial_id for trial in trials[1:]]]


def test_every_row_is_its_trials_and_each_trial_ends_by_itself() -> None:
    search, said = searching()
    a, b, c = members(search.suggest("s1"))
    for trial in (a, b, c):
        tell(search, "s1", trial, 0)
    search.on_trial_result("s1", {"member": b.trial_id, "status": "failed", "reason": "the loss is nan"})
    assert said[-1] == ("ended", b.trial_id)
    tell(search, "s1", b, 1)  # too late
    tell(search, "s1", a, 1)
    assert search.ledger.status(a.trial_id) == "done"
    assert search.ledger.status(c.trial_id) is None
    tell(search, "s1", c, 1, last=True)
    assert [search.ledger.status(trial.trial_id) for trial in (a, b, c)] == ["done", "failed", "done"]
    table = search.ledger.table()
    assert table.status_B.tolist() == ["checkpoint", "done", "checkpoint", "failed", "checkpoint", "done"]
    assert "the loss is nan" in table.table["reason"].to_pylist()
    assert [name for event, name in said if event == "ended"] == [b.trial_id, a.trial_id, c.trial_id]
    assert search.suggest("s2") is not None  # the fourth of the round


def test_results_of_strangers_and_lost_losses_harm_nobody() -> None:
    search, said = searching()
    a, b, c = members(search.suggest("s1"))
    search.on_trial_result("s1", {"member": "nobody", "status": "checkpoint", "n_tokens": 1.0})
    search.on_trial_result("s1", {"member": a.trial_id, "status": "checkpoint", "n_tokens": 1.0})
    assert search.ledger.status(a.trial_id) == "failed"  # it reported no losses
    assert said[-1] == ("ended", a.trial_id)
    tell(search, "s1", b, 1)
    search.on_trial_complete("s1", worlds.rows(c)[0] | {"member": c.trial_id, "done": True})
    assert search.ledger.status(c.trial_id) == "stopped"  # somebody stopped the stack: its checkpoint counts
    assert len(search.ledger.table().usable()) == 2


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The records of a study, held."""
    found = Store(tmp_path / "study")
    with found.locked():
        yield found


def test_a_stack_whose_worker_died_is_begun_again_with_all_of_it(store: Store) -> None:
    """Also those that have ended, without a word of them; rows told again are not recorded again."""
    space = one_rung()
    search, said = searching(Ledger(space, store=store, designer=SpaceFilling(space)))
    config = search.suggest("s1")
    a, b, c = members(config)
    for trial in (a, b, c):
        tell(search, "s1", trial, 0)
    tell(search, "s1", a, 1)
    search.on_trial_complete("s1", error=True)
    assert [name for event, name in said if event == "lost"] == [b.trial_id, c.trial_id]
    assert isinstance(search.suggest("s2"), dict)  # the fourth trial
    said.clear()
    assert search.suggest("s3") == {**config, "retry": 1}  # type: ignore[dict-item]
    assert said == [("started", b.trial_id), ("started", c.trial_id)]
    for trial in (a, b, c):
        tell(search, "s3", trial, 0)
    for trial in (a, b, c):
        tell(search, "s3", trial, 1, last=trial is c)
    rows = [body for kind, body in store.records() if kind == "row"]
    assert [(row["trial_id"], row["status"]) for row in rows] == [
        *((trial.trial_id, "checkpoint") for trial in (a, b, c)), *((trial.trial_id, "done") for trial in (a, b, c))
    ]  # fmt: skip


def test_a_stack_that_dies_too_often_fails_those_that_have_not_ended() -> None:
    search, said = searching(retries=0)
    a, b, c = members(search.suggest("s1"))
    tell(search, "s1", b, 1)
    search.on_trial_complete("s1", error=True)
    assert [search.ledger.status(trial.trial_id) for trial in (a, b, c)] == ["failed", "done", "failed"]
    assert sorted(name for event, name in said if event == "ended") == sorted(t.trial_id for t in (a, b, c))


def test_a_trial_alone_that_failed_by_its_numbers_is_not_begun_again() -> None:
    search, said = searching(stacks=None)
    config = search.suggest("t1")
    (trial,) = members(config)
    search.on_trial_result("t1", worlds.rows(trial)[0] | {"loss/web": float("nan")})
    search.on_trial_complete("t1", error=True)
    assert search.ledger.table().status_B.tolist() == ["failed"]
    assert said[-1] == ("ended", trial.trial_id)


def test_a_killed_study_goes_on_in_the_same_stacks(store: Store) -> None:
    """Whatever has ended since; one larger than is asked for now is taken apart, and what has ended stays out."""
    space = one_rung()
    search, _ = searching(Ledger(space, store=store, designer=SpaceFilling(space)))
    begun = members(search.suggest("s1"))
    tell(search, "s1", begun[0], 1)

    def after(sizes: Any) -> list[list[Trial]]:
        ledger = Ledger(space, store=store)
        return [list(stack.trials) for stack in stacks_of(ledger, ledger.pending(), sizes)]

    fourth = list(search.ledger.trials.values())[3]
    assert after(SIZES) == after(dict.fromkeys(SIZES, 8)) == [begun, [fourth]]
    assert after(dict.fromkeys(SIZES, 2)) == [begun[1:], [fourth]]
    assert after({}) == [[begun[1]], [begun[2]], [fourth]]
    ledger = Ledger(space, store=store)
    Stack((begun[1],)).begin(ledger)
    Stack((begun[1],)).begin(ledger)
    assert begun_with(ledger, begun[1]).trials == (begun[1],)
    assert begun_with(Ledger(space, store=store), begun[2]).trials == tuple(begun)
    assert [kind for kind, _ in store.records()].count("together") == 2


def test_records_of_a_kind_that_is_not_known_are_passed_over(store: Store) -> None:
    space = one_rung()
    (trial,) = Ledger(space, store=store).ask(1)
    store.append_all([("of tomorrow", {"what": 1})])
    assert Ledger(space, store=store).pending() == [trial]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": {"family": "bert"}}, "recipe.family is bert"),
        ({"recipe": {"init_from": "somewhere"}}, "recipe.init_from is given"),
        ({"recipe": {"micro_batch": 2}}, "recipe.micro_batch is given"),
        ({"recipe": {"compile": "always"}}, "recipe.compile is always"),
        ({"recipe": {"keep_weights": True}}, "recipe.keep_weights is true"),
        ({"budget": {"stop_poor": True}}, "budget.stop_poor is true"),
        ({"metrics": [{"name": "arc", "task": "arc_easy", "better": "high"}]}, r"metrics name a task \(arc\)"),
        ({"ladder": [RUNG | {"stack": 4, "resources": {"gpu": 2}}]}, "resources.gpu is 2"),
        ({"ladder": [RUNG | {"stack": 4}, RUNG | {"n_tokens": 1e6}]}, "a longer run of its size may go on"),
    ],
)
def test_a_stack_that_cannot_be_is_refused_with_what_is_in_its_way(changes: dict[str, Any], words: str) -> None:
    stacked: dict[str, Any] = {"ladder": [RUNG | {"stack": 4}]}
    with pytest.raises(SpaceError, match=f"ladder: stack is 4, but {words}.*: say stack: 1, or change that"):
        worlds.space(**stacked | changes)
    alone = [{key: value for key, value in rung.items() if key != "stack"} for rung in (stacked | changes)["ladder"]]
    assert worlds.space(**changes | {"ladder": alone}).ladder[0].stack == "auto"


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "many", None])
def test_a_stack_is_a_number_or_auto(wrong: Any) -> None:
    with pytest.raises(SpaceError, match=r"a stack is a whole number of trials from 1 on, or auto"):
        worlds.space(ladder=[RUNG | {"stack": wrong}])


def test_how_many_are_trained_as_one_is_no_part_of_a_spaces_meaning() -> None:
    assert one_rung().hash() == worlds.space(ladder=[RUNG | {"stack": 7}]).hash()
