"""What a study knows, and that it survives everything by its records alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raymix.design import Proposal, cost
from raymix.design.space_filling import SpaceFilling, n_trials
from raymix.observations import Observations
from raymix.space import Rung, Scale
from raymix.store import Store
from raymix.study.budget import spent
from raymix.study.ledger import Ledger
from raymix.study.trial import Trial
from raymix.target.held_out import score_law
from raymix.target.objective import ObjectiveAtScale
from raymix.target.optimum import minimise
from raymix.target.recommend import NotEnoughTrialsError, fit_law, recommend
from tests import worlds


def test_rebuilt_from_records_proposes_the_same(tmp_path: Path) -> None:
    plain = Ledger(worlds.space(), seed=3)
    worlds.play(plain)
    for _ in range(3):  # a new process per round, as after a crash
        durable = Ledger(worlds.space(), seed=3, store=Store(tmp_path))
        for trial in durable.ask(4):
            for row in worlds.rows(trial):
                durable.observe(trial.trial_id, row)
    again = Ledger(worlds.space(), seed=3, store=Store(tmp_path))
    assert list(again.trials) == list(plain.trials)
    np.testing.assert_array_equal(again.table().loss_BM, plain.table().loss_BM)


def test_same_mixture_again_is_a_replicate_with_its_own_seed() -> None:
    ledger = Ledger(worlds.space(budget={"trials": 12, "per_round": 4, "replicates": 3}))
    first = ledger.ask(4)
    assert len({trial.trial_id for trial in first}) == 4
    assert [trial.seed for trial in first] == [0, 1, 2, 3]


def test_unfinished_trials_are_pending_after_a_restart(tmp_path: Path) -> None:
    ledger = Ledger(worlds.space(), store=Store(tmp_path))
    one, two = ledger.ask(2)
    ledger.observe(one.trial_id, worlds.rows(one)[0])  # a checkpoint is no end
    ledger.fail(two.trial_id, "died")
    again = Ledger(worlds.space(), store=Store(tmp_path))
    assert [trial.trial_id for trial in again.pending()] == [one.trial_id]
    assert again.count("failed") == 1


def test_a_trial_under_way_is_one_trial_to_the_designer() -> None:
    counted: list[int] = []

    class Counts(SpaceFilling):
        def suggest(
            self, table: Observations, pending: Sequence[Proposal], n: int, rng: np.random.Generator
        ) -> list[Proposal]:
            counted.append(n_trials(table, pending))
            return super().suggest(table, pending, n, rng)

    ledger = Ledger(worlds.space(), designer=Counts(worlds.space()))
    for trial in ledger.ask(3):
        ledger.observe(trial.trial_id, worlds.rows(trial)[0])
    ledger.ask(1)
    assert counted == [0, 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0])
def test_a_loss_that_is_none_becomes_a_failed_row_with_its_reason(value: float) -> None:
    ledger = Ledger(worlds.space())
    (trial,) = ledger.ask(1)
    ledger.observe(trial.trial_id, worlds.rows(trial)[1] | {"loss/code": value})
    table = ledger.table()
    assert table.status_B.tolist() == ["failed"]
    assert table.table["reason"].to_pylist() == [f"loss/code is {value}"]
    assert len(table.usable()) == 0


def test_a_failure_keeps_the_checkpoints_before_it() -> None:
    ledger = Ledger(worlds.space())
    (trial,) = ledger.ask(1)
    ledger.observe(trial.trial_id, worlds.rows(trial)[0])
    ledger.fail(trial.trial_id, "diverged")
    assert ledger.table().status_B.tolist() == ["checkpoint", "failed"]
    assert len(ledger.table().usable()) == 1


@pytest.mark.parametrize("done_first", [False, True])
def test_the_last_row_of_a_trial_done_is_that_whatever_its_checkpoints_say(done_first: bool) -> None:
    ledger = Ledger(worlds.space(metrics=[{"name": "exams", "better": "high"}]))
    (trial,) = ledger.ask(1)
    checkpoint, done = worlds.rows(trial)
    told = [checkpoint | {"n_tokens": trial.n_tokens * 1.0004}, done | {"metric/exams": 0.3}]
    for row in told[::-1] if done_first else told:
        ledger.observe(trial.trial_id, row)
    last = ledger.last_row(trial.trial_id)
    assert last is not None and last["status"] == "done"
    assert (last["loss/exams"], ledger.tokens_seen(trial.trial_id)) == (0.7, trial.n_tokens)


def test_a_result_told_again_replaces_the_first_whatever_its_tokens(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ledger = Ledger(worlds.space(), store=store)
    (trial,) = ledger.ask(1)
    checkpoint, done = worlds.rows(trial)
    wrong = done | {f"loss/{name}": 40.0 for name in worlds.DOMAINS}
    for row in (checkpoint, wrong, done | {"n_tokens": 0.99 * trial.n_tokens}):
        ledger.observe(trial.trial_id, row)
    for book in (ledger, Ledger(worlds.space(), store=Store(tmp_path))):
        assert book.table().status_B.tolist() == ["checkpoint", "done"]
        assert book.table().loss_BM.max() < 40
        assert book.table().scale_B2[1, 1] == book.tokens_seen(trial.trial_id) == 0.99 * trial.n_tokens


def test_a_result_that_is_withdrawn_counts_no_more() -> None:
    ladder = [{"n_params": 1e5, "n_tokens": 5e5}, {"n_params": 1e5, "n_tokens": 1e6}]
    ledger = Ledger(worlds.space(ladder=ladder))
    (trial,) = ledger.ask(1)
    checkpoint, done = worlds.rows(trial)
    for row in (checkpoint, done):
        ledger.observe(trial.trial_id, row)
    longer = Proposal(ledger.space.mixture(trial.mixture), Scale(1e5, 1e6), trial.seed)
    assert ledger.begun(longer) == trial
    ledger.fail(trial.trial_id, "trained on the wrong shard")
    assert ledger.table().status_B.tolist() == ["checkpoint", "failed"]
    assert ledger.begun(longer) is None
    ledger.observe(trial.trial_id, done)
    assert ledger.table().status_B.tolist() == ["checkpoint", "done"]


def test_a_checkpoint_told_late_does_not_hide_the_result_at_its_tokens() -> None:
    ledger = Ledger(worlds.space())
    (trial,) = ledger.ask(1)
    done = worlds.rows(trial)[1]
    ledger.observe(trial.trial_id, done)
    ledger.observe(trial.trial_id, {name: 2 * value for name, value in done.items() if name.startswith("loss/")}
                   | {"n_tokens": trial.n_tokens, "status": "checkpoint"})  # fmt: skip
    assert ledger.table().status_B.tolist() == ["done"]
    assert ledger.table().loss_BM[0, 0] == done[f"loss/{worlds.DOMAINS[0]}"]


def test_unknown_trials_and_missing_losses_are_refused() -> None:
    ledger = Ledger(worlds.space())
    (trial,) = ledger.ask(1)
    with pytest.raises(ValueError, match=r"'nobody' was never proposed .*no study proposed: from: \[\{table: FILE\}\]"):
        ledger.observe("nobody", {})
    with pytest.raises(ValueError, match="loss/web was not reported"):
        ledger.observe(trial.trial_id, {"loss/code": 1.0})


def test_a_study_of_failures_says_why_there_is_no_law() -> None:
    ledger = Ledger(worlds.space())
    for trial in ledger.ask(4):
        ledger.fail(trial.trial_id, "out of memory")
    with pytest.raises(NotEnoughTrialsError, match=r"0 trials have losses.*out of memory"):
        fit_law(ledger.space, ledger.table())
    assert len(ledger.ask(4)) == 4  # and the search goes on


def test_the_recommendation_is_near_the_true_optimum() -> None:
    ledger = Ledger(worlds.space(), seed=0)
    worlds.play(ledger)
    space = ledger.space
    found, held_out = recommend(space, ledger.table(), fit_law(space, ledger.table()))

    class Truth:
        convex, name, notes_ = True, "truth", ()

        def predict(self, mix_BK: np.ndarray, scale_B2: np.ndarray) -> np.ndarray:
            return np.stack([worlds.losses(w, *scale) for w, scale in zip(mix_BK, scale_B2, strict=True)])

        def gradient(self, mix_BK: np.ndarray, scale_B2: np.ndarray) -> np.ndarray:
            step = 1e-6 * np.eye(mix_BK.shape[1])
            one = [(self.predict(mix_BK + e, scale_B2) - self.predict(mix_BK - e, scale_B2)) / 2e-6 for e in step]
            return np.stack(one, axis=2)

    truth = ObjectiveAtScale(Truth(), space.target.scale, space.weights_M)
    best = minimise(truth, space.polytope())
    gap = truth.values(space.prior_K())[0] - best.value
    # 1% noise per loss over 12 trials: the recommendation keeps at least 3/4 of what there is to gain.
    assert truth.values(space.mixture(found.mixture))[0] - best.value < 0.25 * gap
    assert found.certificate["gap"] <= 1e-4
    assert sum(found.mixture.values()) == pytest.approx(1, abs=1e-9)
    assert all(near["low"] <= found.mixture[n] <= near["high"] for n, near in found.near_optimal.items())
    assert len(held_out.trial_id) == 12


def test_a_rung_that_was_never_trained_is_noted() -> None:
    space = worlds.space(ladder=[{"n_params": 1e5, "n_tokens": 5e5}, {"n_params": 8e6, "n_tokens": 2e7}])
    ledger = Ledger(space)
    for trial in ledger.ask(6):
        for row in worlds.rows(trial):
            ledger.observe(trial.trial_id, row)
    found, _ = recommend(space, ledger.table(), fit_law(space, ledger.table()))
    assert any("no trial at 8M parameters, 20M tokens" in note for note in found.law["notes"])
    assert not any("no trial at 100k" in note for note in found.law["notes"])


def test_the_verdict_abstains_when_nothing_is_to_be_gained() -> None:
    even = {"domains": [{"name": n, "available_tokens": 5e6} for n in worlds.DOMAINS]}
    ledger = Ledger(worlds.space(**even), seed=0)  # the prior is uniform, and by symmetry the optimum
    worlds.play(ledger)
    found, _ = recommend(ledger.space, ledger.table(), fit_law(ledger.space, ledger.table()))
    assert found.verdict["answer"].startswith("keep the baseline")


def test_near_optimal_with_a_share_fixed_at_zero_and_another_bounded_below() -> None:
    bounds = [{"max_share": 0.0}, {"min_share": 0.3}, {}]
    even = zip(worlds.DOMAINS, bounds, strict=True)
    ledger = Ledger(worlds.space(domains=[{"name": n, "available_tokens": 1e7, **bound} for n, bound in even]))
    worlds.play(ledger)
    found, _ = recommend(ledger.space, ledger.table(), fit_law(ledger.space, ledger.table()))
    assert found.mixture["web"] == 0.0
    assert found.near_optimal["code"]["low"] >= 0.3 - 1e-9


LENGTHS = [{"n_params": 1e5, "n_tokens": n} for n in (5e5, 1e6, 4e6)]


def _ended(ledger: Ledger, proposal: Proposal) -> Trial:
    (trial,) = ledger.propose([proposal])
    for row in worlds.rows(trial):
        ledger.observe(trial.trial_id, row)
    return trial


def test_more_tokens_of_a_mixture_go_on_from_its_trial(tmp_path: Path) -> None:
    ledger = Ledger(worlds.space(ladder=LENGTHS), store=Store(tmp_path))
    mix_K, few, more, most = np.array([0.2, 0.3, 0.5]), *(Scale(1e5, n) for n in (5e5, 1e6, 4e6))
    first = _ended(ledger, Proposal(mix_K, few, 0))
    assert (first.continues, first.after) == ("", ())
    second = _ended(ledger, Proposal(mix_K, more, 0))
    (third,) = ledger.propose([Proposal(mix_K, most, 0)])
    assert (second.continues, second.after) == (first.trial_id, (5e5,))
    assert (third.continues, third.after) == (second.trial_id, (5e5, 1e6))
    again = Ledger(worlds.space(ladder=LENGTHS), store=Store(tmp_path))
    assert again.pending() == [third]
    # What it goes on from is paid for: in all as much as one run of 4e6 tokens.
    assert spent(again).flops == pytest.approx(cost(most))
    assert Ledger(worlds.space(ladder=LENGTHS)).propose([Proposal(mix_K, most, 0)])[0].trial_id != third.trial_id


def test_going_on_never_costs_less_than_nothing() -> None:
    ledger = Ledger(worlds.space(ladder=LENGTHS))
    mix_K, few, more = np.array([0.2, 0.3, 0.5]), Scale(1e5, 5e5), Scale(1e5, 1e6)
    (short,) = ledger.propose([Proposal(mix_K, few, 0)])
    ledger.observe(short.trial_id, worlds.rows(short)[1] | {"flops": 3 * cost(few)})  # head and attention counted
    (longer,) = ledger.propose([Proposal(mix_K, more, 0)])
    assert longer.continues == short.trial_id
    assert ledger.flops_of(more, longer.after) == pytest.approx(3 * (cost(more) - cost(few)))
    assert spent(ledger).flops == pytest.approx(3 * cost(more))
    ledger.observe(longer.trial_id, worlds.rows(longer)[0] | {"n_tokens": 4e5})  # of what it began with
    ledger.fail(longer.trial_id, "died")
    assert spent(ledger).flops == pytest.approx(3 * cost(few))
    (anew,) = ledger.propose([Proposal(mix_K, more, 1)])
    ledger.observe(anew.trial_id, worlds.rows(anew)[1] | {"flops": 2 * cost(few)})  # told by another count
    assert ledger.flops_of(more, (few.n_tokens,)) == 0


def test_what_is_not_the_same_run_starts_anew() -> None:
    ledger = Ledger(worlds.space(ladder=LENGTHS))
    mix_K, few, more = np.array([0.2, 0.3, 0.5]), Scale(1e5, 5e5), Scale(1e5, 1e6)
    (pending,) = ledger.propose([Proposal(mix_K, few, 0)])
    ledger.propose([Proposal(mix_K, few, 1)])
    others = [Proposal(mix_K, more, 0), Proposal(mix_K, more, 1), Proposal(mix_K[::-1], more, 0)]
    assert not any(trial.continues for trial in ledger.propose(others)), "nothing has ended"
    ledger.fail(pending.trial_id, "died")
    assert not ledger.propose([Proposal(mix_K, Scale(1e5, 4e6), 0)])[0].continues
    _ended(ledger, Proposal(mix_K, few, 3))
    assert not ledger.propose([Proposal(mix_K, more, 3)], "confirm")[0].continues, "pairs are trained alike"


def test_a_trial_that_starts_anew_is_recorded_as_ever() -> None:
    trial = Ledger(worlds.space()).ask(1)[0]
    assert set(trial.to_json()) == {"trial_id", "mixture", "n_params", "n_tokens", "seed", "purpose", "round"}


def test_longer_runs_are_no_order_of_mixtures() -> None:
    """Losses are noise and tokens alone: within a size and length there is nothing to rank."""
    ledger, rng = Ledger(worlds.space(ladder=LENGTHS)), np.random.default_rng(3)
    for i, mix_K in enumerate(rng.dirichlet(np.ones(3), 24)):
        (trial,) = ledger.propose([Proposal(mix_K, Scale(1e5, LENGTHS[i % 2 * 2]["n_tokens"]), 0)])
        loss_M = worlds.losses(np.full(3, 1 / 3), *trial.scale) * np.exp(0.01 * rng.normal(size=3))
        ledger.observe(trial.trial_id, {f"loss/{n}": v for n, v in zip(worlds.DOMAINS, loss_M, strict=True)})
    score, _ = score_law(ledger.space, ledger.table(), fit_law(ledger.space, ledger.table()))
    assert score["rank_correlation"] > 0.6
    assert score["rank_correlation_within_size"] < 0.3


def test_a_study_of_one_size_read_far_beyond_it_says_confirm_first() -> None:
    ladder = [{"n_params": 1e5, "n_tokens": 1e6}]
    ledger = Ledger(worlds.space(objective={"weights": {worlds.DOMAINS[2]: 1.0}}, ladder=ladder))
    for mix_K in np.random.default_rng(3).dirichlet(np.ones(3), 12):
        _ended(ledger, Proposal(mix_K, Scale(1e5, 1e6), 0))
    law = fit_law(ledger.space, ledger.table())
    assert recommend(ledger.space, ledger.table(), law)[0].verdict["answer"] != "use it"  # at 40 times the size
    near = Rung(n_params=1e6, n_tokens=1e6)
    assert recommend(ledger.space, ledger.table(), law, near)[0].verdict["answer"] == "use it"


def test_a_verdict_does_not_lean_on_a_law_that_the_mixtures_held_out_contradict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = Ledger(worlds.space(objective={"weights": {worlds.DOMAINS[2]: 1.0}}))
    for mix_K in np.random.default_rng(3).dirichlet(np.ones(3), 12):
        _ended(ledger, Proposal(mix_K, Scale(1e5, 1e6), 0))
    law, near = fit_law(ledger.space, ledger.table()), Rung(n_params=1e6, n_tokens=1e6)
    found, held_out = recommend(ledger.space, ledger.table(), law, near)
    assert held_out.order > 0.5 and found.verdict["answer"] == "use it"
    score, _ = score_law(ledger.space, ledger.table(), law)
    turned = replace(held_out, predicted=[-value for value in held_out.predicted])
    monkeypatch.setattr("raymix.target.recommend.score_law", lambda *_: (score, turned))
    turned_down = recommend(ledger.space, ledger.table(), law, near)[0].verdict
    assert turned_down["answer"] == "keep the baseline: law not trusted"


@pytest.mark.parametrize(("must_fall", "answer"), [(0.01, "use it"), (3.0, "keep the baseline: guardrail broken")])
def test_a_guardrail_that_no_mixture_keeps_is_never_use_it(must_fall: float, answer: str) -> None:
    """The nearest mixture to it has a gain of its own; the losses of the truth are above 1.5, and about 5 here."""
    book = worlds.DOMAINS[2]
    ledger = Ledger(worlds.space(objective={"weights": {book: 1.0}, "guardrails": {book: -must_fall}}))
    for mix_K in np.random.default_rng(3).dirichlet(np.ones(3), 12):
        _ended(ledger, Proposal(mix_K, Scale(1e5, 1e6), 0))
    law, near = fit_law(ledger.space, ledger.table()), Rung(n_params=1e6, n_tokens=1e6)
    found = recommend(ledger.space, ledger.table(), law, near)[0]
    assert found.baselines["prior"].gain.low > 0 and found.verdict["answer"] == answer
    assert (f"breaks that of {book!r} by" in found.verdict["reason"]) == (answer != "use it")


def test_where_no_scale_has_trials_to_order_there_is_no_order_within_one() -> None:
    ledger = Ledger(worlds.space())
    for i, mix_K in enumerate(np.random.default_rng(3).dirichlet(np.ones(3), 8)):
        _ended(ledger, Proposal(mix_K, Scale(1e5, 1e6 * 1.5**i), 0))
    score, held_out = score_law(ledger.space, ledger.table(), fit_law(ledger.space, ledger.table()))
    assert np.isfinite(score["rank_correlation"])
    assert np.isnan([score["rank_correlation_within_size"], held_out.order]).all()


@pytest.mark.parametrize("at", [0, 11])
def test_an_absurd_loss_widens_the_gain_as_one_of_six_sds_would(at: int) -> None:
    """Six sds of the .03 that a fit takes for noise at most, one residual of six left free: 7 times the .01 here."""
    found = []
    for absurd in (False, True):
        ledger = Ledger(worlds.space(objective={"weights": {worlds.DOMAINS[2]: 1.0}}))
        for i, mix_K in enumerate(np.random.default_rng(3).dirichlet(np.ones(3), 12)):
            (trial,) = ledger.propose([Proposal(mix_K, Scale(1e5, 5e5), 0)])
            hurt = {f"loss/{worlds.DOMAINS[2]}": 1e6} if absurd and i == at else {}
            ledger.observe(trial.trial_id, worlds.rows(trial)[-1] | hurt)
        recommendation, _ = recommend(ledger.space, ledger.table(), fit_law(ledger.space, ledger.table()))
        found.append(recommendation.baselines["prior"].gain)
    clean, hurt_too = found
    assert hurt_too.high - hurt_too.low < 8 * (clean.high - clean.low)
