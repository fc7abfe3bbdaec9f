"""What a study may spend: counted from its records, in trials, FLOPs, hours of trials and hours."""

import gc
import math
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raymix import Study
from raymix.design import Proposal, SpaceFilling, cost, rungs
from raymix.space import Scale, SearchSpace, SpaceError
from raymix.store import Store
from raymix.study.agenda import next_trials, over, search_over
from raymix.study.budget import affordable, exhausted, flops_left, planned_trials, spent
from raymix.study.ledger import Ledger
from raymix.study.stopping import _seen_enough, clearly_poor, early_stop
from raymix.target.improvement import N_LAWS, expected_improvement
from tests import worlds

SMALL, LARGE = rungs(worlds.space())


def ledger(store: Store | None = None, **changes: Any) -> Ledger:
    space = worlds.space(**changes)
    return Ledger(space, seed=0, store=store, designer=SpaceFilling(space))


def play(book: Ledger, seconds_per_flop: float = 0.0, noise: float = 0.01) -> None:
    """Train whatever is due until nothing is."""
    while trials := next_trials(book, book.space.budget.per_round):
        for trial in trials:
            for row in worlds.rows(trial, noise):
                flops = cost(Scale(trial.n_params, row["n_tokens"]))
                book.observe(trial.trial_id, row | ({"seconds": flops * seconds_per_flop} if seconds_per_flop else {}))


def test_24_trials_if_nothing_is_given_and_only_then() -> None:
    assert worlds.space(budget={}).budget.limits() == {"trials": 24}
    assert worlds.space(budget={"hours": 2}).budget.limits() == {"hours": 2}
    assert worlds.space(budget={"hours": 2, "trials": 3}).budget.limits() == {"trials": 3, "hours": 2}
    kept = SearchSpace.parse(worlds.space(budget={"flops": 1e15}).model_dump(mode="json", exclude_none=True))
    assert kept.budget.limits() == {"flops": 1e15}


@pytest.mark.parametrize("given", [{"flops": 0}, {"gpu_hours": -1}, {"minutes": 3}, {"trials": 0}])
def test_a_budget_that_is_none_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(SpaceError, match="budget"):
        worlds.space(budget=given)


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        ({"flops": 10 * cost(SMALL)}, {}),  # the target alone would cost 160 times that
        ({"flops": 1e6}, {"flops": 1e5}),
        ({"gpu_hours": 10}, {"seconds": 3600.0}),
    ],
)
def test_a_budget_counts_the_proxies_that_a_trainer_of_ones_own_tells(
    tmp_path: Path, budget: dict[str, float], told: dict[str, float]
) -> None:
    names = {"domains": list(worlds.DOMAINS), "eval_domains": list(worlds.DOMAINS)}
    target = {"n_params": 4e6, "n_tokens": 2e7}
    space = SearchSpace.parse({"name": "own", **names, "target": target, "budget": budget})
    study, asked = Study.create(space, tmp_path / "s", designer=SpaceFilling(space)), 0
    while trials := study.ask(4):
        asked += len(trials)
        for trial in trials:
            losses = dict.fromkeys(worlds.DOMAINS, 3.0)
            half = {"n_params": SMALL.n_params, "n_tokens": SMALL.n_tokens / 2}
            study.tell(trial.trial_id, losses, status="checkpoint", **half, **{key: told[key] / 2 for key in told})
            study.tell(trial.trial_id, losses, **SMALL._asdict(), **told)
    assert asked == 10
    assert study.finished


def test_a_checkpoint_of_a_trainer_of_ones_own_makes_no_room(tmp_path: Path) -> None:
    names = list(worlds.DOMAINS)
    raw = {"name": "own", "domains": names, "eval_domains": names, "target": {"n_params": 4e6, "n_tokens": 2e9}}
    study = Study.create(SearchSpace.parse(raw | {"budget": {"flops": 10 * cost(SMALL)}}), tmp_path / "s")
    losses, (first, second) = dict.fromkeys(names, 3.0), study.ask(2)
    study.tell(first.trial_id, losses, **SMALL._asdict())
    study.tell(second.trial_id, losses, SMALL.n_params, SMALL.n_tokens / 100, status="checkpoint")
    assert len(study.ask(64)) == 8  # it costs what the first did, in the end


def test_flops_end_the_search_and_are_never_exceeded() -> None:
    book = ledger(budget={"flops": 20 * cost(SMALL), "per_round": 4, "stop_early": False})
    play(book)
    used = spent(book).flops
    assert 19 * cost(SMALL) < used <= 20 * cost(SMALL) * (1 + 1e-9)
    assert "budget.flops" in str(over(book))
    # A large trial costs eight small ones: where it no longer fits, its mixture is trained small.
    assert {t.n_params for t in book.trials.values()} == {SMALL.n_params, LARGE.n_params}
    assert book.trials[list(book.trials)[-1]].n_params == SMALL.n_params


def test_the_first_of_several_limits_ends_it() -> None:
    book = ledger(budget={"flops": 1e30, "trials": 5, "per_round": 4})
    play(book)
    assert len(book.trials) == 5
    assert "budget.trials: 5 of 5 spent" in str(over(book))


def test_gpu_hours_are_those_of_the_trials() -> None:
    per_flop = 3600 / cost(SMALL)  # a small trial takes an hour
    book = ledger(budget={"gpu_hours": 12, "per_round": 4, "stop_early": False})
    play(book, seconds_per_flop=per_flop)
    assert 11 <= spent(book).gpu_hours <= 12 + 1e-6
    assert spent(book).rate == pytest.approx(1 / per_flop)
    # 1 of 13 hours is too little for another trial only because a trial is known to take one.
    assert exhausted(ledger(budget={"gpu_hours": 1})) is None


@pytest.mark.parametrize(("gpu", "trials"), [(4, 3), (0.25, 48), (0, 12)])
def test_a_trial_on_four_gpus_spends_four_hours_in_one(gpu: float, trials: int) -> None:
    rung = {"n_params": 1e5, "n_tokens": 5e5, "resources": {"gpu": gpu}}
    book = ledger(ladder=[rung], budget={"gpu_hours": 12, "per_round": 3, "stop_early": False})
    play(book, seconds_per_flop=3600 / cost(SMALL))  # an hour each
    assert len(book.trials) == trials
    assert spent(book).gpu_hours == pytest.approx(12)


def test_hours_are_counted_over_all_runs_of_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("raymix.study.ledger.time.monotonic", lambda: now[0])
    changes = {"budget": {"hours": 1.0, "per_round": 2}}
    for expected in (1500 / 3600, 3000 / 3600):  # two sessions of 25 minutes with a long pause between them
        with Store(tmp_path).locked():
            pass
        store = Store(tmp_path)
        with store.locked():
            book = ledger(store, **changes)
            for trial in next_trials(book, 2):
                now[0] += 750
                book.observe(trial.trial_id, worlds.rows(trial)[1])
            assert book.hours == pytest.approx(expected)
            assert exhausted(book) is None
        now[0] += 1e6
    store = Store(tmp_path)
    with store.locked():
        book = ledger(store, **changes)
        trial = next_trials(book, 1)[0]
        now[0] += 700
        book.observe(trial.trial_id, worlds.rows(trial)[1])
        assert "budget.hours" in str(exhausted(book))


def test_recorded_flops_win_and_a_resumed_study_counts_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    changes = {"budget": {"flops": 10.0, "per_round": 2, "stop_early": False}, "ladder": [SMALL._asdict()]}
    with store.locked():
        book = ledger(store, **changes)
        book.expected_flops = lambda scale: 2.0
        for trial in next_trials(book, 2):
            book.observe(trial.trial_id, worlds.rows(trial)[1] | {"flops": 3.0})
        assert spent(book).flops == 6
        assert affordable(book, 8) == 1
        assert flops_left(book) == 4
    again = ledger(Store(tmp_path), **changes)  # 6 N D is not asked where a trial of that scale has said its FLOPs
    assert (spent(again).flops, affordable(again, 8)) == (6, 1)


def test_what_was_added_up_does_not_keep_a_ledger() -> None:
    class Watcher:
        def __init__(self, book: Ledger) -> None:
            self.book = book

        def flops(self, scale: Scale) -> float:
            return cost(scale)

    book = ledger()
    book.expected_flops = Watcher(book).flops  # as a run on Ray has it: it holds the ledger
    assert spent(book).flops == 0
    gone = weakref.ref(book)
    del book
    gc.collect()
    assert gone() is None


def test_unfinished_trials_count_in_full_and_failures_too() -> None:
    book = ledger(budget={"flops": 8 * cost(SMALL), "per_round": 4, "stop_early": False})
    one, two, *_ = next_trials(book, 4)
    assert spent(book).flops == pytest.approx(4 * cost(SMALL))
    book.observe(one.trial_id, worlds.rows(one)[0])
    book.fail(two.trial_id, "died before its first row")
    assert spent(book).flops == pytest.approx(4 * cost(SMALL))


def test_a_study_in_which_everything_fails_ends() -> None:
    book = ledger(budget={"gpu_hours": 5, "per_round": 8})
    while trials := next_trials(book, 8):
        for trial in trials:
            book.fail(trial.trial_id, "out of memory")
    assert over(book) == "all of the first 24 trials failed"


def test_planned_trials() -> None:
    space = worlds.space(budget={"flops": 20 * cost(SMALL), "per_round": 4})
    assert planned_trials(space) == 6  # 4 small ones, then one of 8 times their cost and a small one; 7 remain
    rate = cost(SMALL) / 3600
    assert planned_trials(worlds.space(budget={"gpu_hours": 4, "per_round": 4}), flops_per_second=rate) == 4
    assert planned_trials(worlds.space(budget={"hours": 2, "per_round": 4}), cost, rate, slots=2) == 4
    assert planned_trials(worlds.space(budget={"hours": 2})) == 24  # no rate is known: what a person would assume


def test_a_search_stops_early_and_goes_on_when_the_budget_is_raised(tmp_path: Path) -> None:
    """With noise of 5%, about as much as there is to gain in all, a few dozen trials tell what can be told."""
    store, budget = Store(tmp_path), {"trials": 60, "per_round": 8}
    with store.locked():
        book = ledger(store, budget=budget)
        play(book, noise=0.05)
    assert 12 <= len(book.trials) < 60  # four per domain at least: below that a law leans on its priors
    assert book.stop is not None
    assert book.stop["expected_improvement"] < book.stop["noise"]
    said = str(over(book))
    assert "less than the noise in their mean" in said
    assert search_over(ledger(Store(tmp_path), budget=budget)) == said
    assert search_over(ledger(Store(tmp_path), budget={**budget, "trials": 80})) is None
    assert search_over(ledger(Store(tmp_path), budget={**budget, "stop_early": False})) is None
    assert search_over(ledger(Store(tmp_path), budget=budget, objective={"weights": {"web": 1}})) is None
    group = {"domains": ["web", "code"], "min": 0.7}
    assert search_over(ledger(Store(tmp_path), budget=budget, constraints={"groups": [group]})) is None


def test_no_more_laws_are_drawn_than_tell_that_a_search_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each law is a fit, of seconds where trials are many; the decision is that of all of them."""
    drawn: list[int] = []

    def laws() -> Iterator[Any]:
        for i in range(N_LAWS):
            drawn.append(i)
            yield SimpleNamespace(values=lambda mix_BK, i=i: np.array([1.0 + i, 1.0]))  # a gain of i

    monkeypatch.setattr("raymix.target.improvement.minimise", lambda *_: SimpleNamespace(mixture_K=np.ones(3) / 3))
    polytope, mix_K = worlds.space().polytope(), np.ones(3) / 3
    assert expected_improvement(laws(), polytope, mix_K) == 7.5 and len(drawn) == N_LAWS
    drawn.clear()
    assert expected_improvement(laws(), polytope, mix_K, bound=0.5) >= 0.5
    assert len(drawn) == 5  # 0 + 1 + 2 + 3 + 4 are more than half of 16 already
    assert expected_improvement(laws(), polytope, mix_K, bound=7.6) == 7.5


def test_a_search_has_seen_enough_when_every_length_has_its_trials() -> None:
    longer = [SMALL._asdict(), {**SMALL._asdict(), "n_tokens": 4 * SMALL.n_tokens}]
    book = ledger(ladder=longer, budget={"trials": 60, "per_round": 8})
    mix_BK = np.random.default_rng(0).dirichlet(np.ones(3), 16)
    for i, mix_K in enumerate(mix_BK):
        assert not _seen_enough(book.space, book.table().usable())
        scale = SMALL if i < 12 else Scale(1.1 * SMALL.n_params, 3.9 * SMALL.n_tokens)  # realised ones differ a little
        (trial,) = book.propose([Proposal(mix_K, scale, 0)])
        for row in worlds.rows(trial):
            book.observe(trial.trial_id, row)
    assert _seen_enough(book.space, book.table().usable())


def test_noise_is_measured_by_a_law_that_knows_of_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without replicates noise is what the law misses; repeats that were recorded it need not miss."""
    monkeypatch.setattr("raymix.study.stopping.refits", lambda *_: [])
    monkeypatch.setattr("raymix.study.stopping.expected_improvement", lambda *_: 0.0)  # it stops whatever the noise
    unique_K = np.array([0.04, 1e3, 1e3]) * SMALL.n_tokens
    book = ledger(ladder=[SMALL._asdict()], budget={"trials": 60, "per_round": 8, "replicates": 0})
    for mix_K in np.random.default_rng(0).dirichlet(np.ones(3), 16):
        (trial,) = book.propose([Proposal(mix_K, SMALL, 0)])
        repeats_K = np.maximum(mix_K * SMALL.n_tokens / unique_K, 1) - 1
        fresh_K = np.where(repeats_K > 0, unique_K / SMALL.n_tokens * (1 + 6 * (1 - np.exp(-repeats_K / 6))), mix_K)
        told = {f"unique/{name}": value for name, value in zip(worlds.DOMAINS, unique_K, strict=True)}
        loss_M = worlds.losses(fresh_K, *SMALL)
        told |= {f"loss/{name}": value for name, value in zip(worlds.DOMAINS, loss_M, strict=True)}
        book.observe(trial.trial_id, told)
    stop = early_stop(book.space, book.table(), 0, 16)
    assert stop is not None
    assert stop["noise"] < 0.01 / np.sqrt(16)


def test_a_trial_is_poor_by_earlier_rounds_alone() -> None:
    book = ledger(ladder=[SMALL._asdict()], budget={"trials": 60, "per_round": 8, "stop_poor": True})
    first = next_trials(book, 8)
    for trial in first:
        for row in worlds.rows(trial):
            book.observe(trial.trial_id, row)
    second = next_trials(book, 8)
    bad = worlds.rows(second[0])[0] | {f"loss/{name}": 9.0 for name in worlds.DOMAINS}
    assert "clearly poor" in str(clearly_poor(book, second[0], bad))
    assert clearly_poor(book, second[0], worlds.rows(first[0])[0]) is None
    assert clearly_poor(book, first[0], bad) is None  # nothing is earlier than the first round
    before = bad | {"n_tokens": 0.0, "status": "start"}  # of a checkpoint that is trained on
    assert clearly_poor(book, second[0], before) is None
    for other in second[1:]:  # results of its own round, bad or good, change nothing
        book.observe(other.trial_id, bad)
    assert "of 8 others" in str(clearly_poor(book, second[0], bad))


def test_no_trial_is_poor_for_being_worse_than_those_chosen_to_go_on() -> None:
    long = Scale(SMALL.n_params, 4 * SMALL.n_tokens)
    book = ledger(ladder=[SMALL._asdict(), long._asdict()], budget={"trials": 60, "per_round": 8, "stop_poor": True})
    proposals = [Proposal(mix_K, SMALL, 0) for mix_K in np.random.default_rng(0).dirichlet(np.ones(3), 8)]
    for scale in (SMALL, long):
        for trial in book.propose([replace(each, scale=scale) for each in proposals]):
            for row in worlds.rows(trial):
                book.observe(trial.trial_id, row)
    (fresh,) = book.propose([replace(proposals[0], mixture_K=np.ones(3) / 3, scale=long)])
    bad = worlds.rows(fresh)[0] | {f"loss/{name}": 9.0 for name in worlds.DOMAINS}
    assert clearly_poor(book, fresh, bad) is None
    assert sum(bool(trial.continues) for trial in book.trials.values()) == 8


def test_ask_keeps_to_a_budget_that_was_given(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    free = Study.create(worlds.space(budget={}), tmp_path / "free")
    assert len(free.ask(30)) == 30
    bound = Study.create(worlds.space(budget={"trials": 5}), tmp_path / "bound")
    assert [len(bound.ask(4)) for _ in range(3)] == [4, 1, 0]
    assert "5 trials are still to be told" in caplog.text
    with pytest.raises(ValueError, match="use trials, flops or gpu_hours"):
        Study.create(worlds.space(budget={"hours": 1}), tmp_path / "hours").ask(1)


def test_told_seconds_count(tmp_path: Path) -> None:
    study = Study.create(worlds.space(budget={"gpu_hours": 1}), tmp_path / "s")
    for trial in study.ask(4):
        losses = {k.removeprefix("loss/"): v for k, v in worlds.rows(trial)[1].items() if k.startswith("loss/")}
        study.tell(trial.trial_id, losses, seconds=900)
    assert spent(study.ledger).gpu_hours == pytest.approx(1)
    assert study.ask(1) == []
    assert math.isfinite(flops_left(study.ledger))
