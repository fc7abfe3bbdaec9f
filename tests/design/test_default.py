"""The default: what it believes, what it would learn, at which scale, and that it finds the optimum."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from raymix.design import LawGuided, Proposal, SpaceFilling, fidelity, learned
from raymix.design.belief import Belief
from raymix.design.information import Question
from raymix.design.law_guided import UNLIKE, thompson
from raymix.design.learned import Learned, learn, reached
from raymix.design.stock import losses, unique_at
from raymix.observations import Observations
from raymix.simplex import Array, Polytope, hellinger
from raymix.space import Scale, SearchSpace
from raymix.target.objective import objective_of
from raymix.target.recommend import fit_law
from tests.design.worlds import observed, play, regret, space, truth

SPACE = space(4)
RUNS = play(SpaceFilling(SPACE), 24)
TABLE = observed(SPACE, RUNS, noise=0.002)
FEW, ONE = SPACE.ladder[0].scale, np.array([SPACE.ladder[0].scale])


def known(runs: list[Proposal] = RUNS) -> tuple[Learned, Belief]:
    found = learn(SPACE, observed(SPACE, runs, noise=0.002))
    assert found is not None
    return found


def test_one_guided_search_comes_within_a_tenth_of_the_optimum() -> None:
    designer = LawGuided(SPACE)
    table = observed(SPACE, play(designer, 24, noise=0.005), noise=0.005)
    assert regret(SPACE, designer.recommend(table)) < 0.1


def test_a_refit_comes_with_a_tenth_of_growth() -> None:
    refits = np.unique([reached(n) for n in range(4, 2000)])
    assert refits[:6].tolist() == [4, 5, 6, 7, 8, 9]
    assert (refits[1:] >= 1.1 * refits[:-1]).all() and (refits[1:] < 1.1 * refits[:-1] + 1).all()


def test_a_trial_more_keeps_the_fit_and_moves_the_belief() -> None:
    runs = RUNS[: reached(24)]
    (one, before), (two, after) = known(runs), known([*runs, Proposal(np.array([0.7, 0.1, 0.1, 0.1]), FEW, 0)])
    assert one is two
    assert len(after.sites.mix_RK) == len(before.sites.mix_RK) + 1


def test_what_is_remembered_does_not_matter() -> None:
    with_memory = LawGuided(SPACE).suggest(TABLE, [], 4, np.random.default_rng(0))
    learned._fits.clear()
    without = LawGuided(SPACE).suggest(TABLE, [], 4, np.random.default_rng(0))
    assert all(np.array_equal(a.mixture_K, b.mixture_K) for a, b in zip(with_memory, without, strict=True))


def test_losses_in_another_unit_ask_for_the_same_mixtures() -> None:
    """To .001 of a share: what a solver stops at is relative to the losses, and 1e-6 of a nat was below it."""
    asked = [
        LawGuided(SPACE).suggest(
            observed(SPACE, RUNS[:16], 0.002, lambda *at, unit=unit: unit * truth(*at)), [], 4, np.random.default_rng(0)
        )
        for unit in (1.0, 1e-6)
    ]
    np.testing.assert_allclose(*([each.mixture_K for each in found] for found in asked), atol=1e-3)


def test_draws_agree_where_there_are_trials_and_differ_elsewhere() -> None:
    _, belief = known()
    corner_BK = np.array([[0.0, 0.0, 0.0, 1.0]])
    seen_BK = np.tile(RUNS[0].mixture_K, (1, 1))
    draw_SB = belief.draws(np.concatenate([seen_BK, corner_BK]), 64, np.random.default_rng(0))
    assert draw_SB.std(axis=0)[0] < draw_SB.std(axis=0)[1]


def test_around_a_corner_other_domains_get_a_part() -> None:
    capped = Polytope(np.zeros(4), np.array([1.0, 0.1, 1.0, 1.0]), np.zeros((0, 4)), np.zeros(0))
    corner_K = np.array([0.0, 0.0, 0.0, 1.0])
    found_BK = learned.exchanges(capped, corner_K, 60, np.random.default_rng(0))
    assert all(capped.contains(mix_K) for mix_K in found_BK)
    assert (found_BK[:, :3].max(axis=0) >= [0.2, 0.1, 0.2]).all()
    assert found_BK[:, 3].min() >= 0.5 and np.median(found_BK[:, 3]) < 0.95


def test_every_second_draw_is_unlike_all_that_was_trained() -> None:
    found, belief = known()
    trained_BK = found.candidates_BK[[0, 1, 2]]
    sure = replace(belief, sites=replace(belief.sites, mix_RK=trained_BK))
    with pytest.MonkeyPatch.context() as patch:  # all draws agree on the mixtures trained
        value_B = np.where(np.arange(len(found.candidates_BK)) < 3, -1.0, 0.0)
        patch.setattr(Belief, "draws", lambda self, mix_BK, n, rng: np.tile(value_B, (n, 1)))
        mix_BK = thompson(found, sure, [True, False, True, False], np.random.default_rng(0))
        nothing = replace(found, candidates_BK=trained_BK)
        patch.setattr(Belief, "draws", lambda self, mix_BK, n, rng: np.tile(value_B[:3], (n, 1)))
        repeated_BK = thompson(nothing, sure, [True] * 4, np.random.default_rng(0))
    distance_BR = hellinger(mix_BK, trained_BK)
    assert distance_BR[[0, 2]].min() >= UNLIKE and hellinger(mix_BK[:1], mix_BK[2:3]).item() >= UNLIKE
    assert distance_BR[[1, 3]].min(axis=1) == pytest.approx(0, abs=1e-7)
    assert np.array_equal(repeated_BK, trained_BK[[0, 1, 2, 0]]), "no candidate is unlike them"


def test_pending_trials_take_variance_and_leave_the_mean() -> None:
    _, belief = known()
    mix_BK = np.array([[0.05, 0.9, 0.05, 0.0]])
    after = belief.with_pending(mix_BK, ONE)
    assert after.covariance(mix_BK, ONE)[0, 0] < belief.covariance(mix_BK, ONE)[0, 0]
    assert after.mean(mix_BK, ONE) == pytest.approx(belief.mean(mix_BK, ONE), abs=1e-6)


def test_caution_is_one_sd_of_the_process_on_the_objective() -> None:
    _, belief = known()
    mix_BK, target_B2 = np.array([[0.0, 0.0, 0.0, 1.0], [0.25] * 4]), np.tile(belief.target_2, (2, 1))
    sd_BM = np.sqrt(np.diag(belief.covariance(mix_BK, target_B2)))[:, None] * belief.scale_M
    added_B = (np.exp(belief.mean(mix_BK, target_B2)) * sd_BM) @ SPACE.weights_M
    assert belief.cautious(mix_BK) == pytest.approx(belief.objective(mix_BK) + added_B, rel=1e-9)
    assert added_B[0] > added_B[1] > 0, "a corner is less known than the middle"


def test_draws_of_one_law_vary_by_the_process_only_where_residuals_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, belief = known()
    monkeypatch.setattr("raymix.design.belief.sample", lambda law, n, rng: None)
    sd_2 = [
        replace(belief, likelier_M=np.full(4, likelier)).draws(np.eye(4)[:1], 64, np.random.default_rng(0)).std()
        for likelier in (False, True)
    ]
    assert sd_2[0] < 1e-12 < 1e-6 < sd_2[1]


def test_every_eighth_proposal_is_a_design_point() -> None:
    """One that tells most about the optimum, of mixtures all over the polytope; the 32nd is the next."""
    runs = LawGuided(SPACE).suggest(TABLE, [], 8, np.random.default_rng(0))
    found = learn(SPACE, TABLE)
    assert found is not None
    designed = [bool((found[0].design_BK == run.mixture_K).all(axis=1).any()) for run in runs]
    assert designed == [False] * 7 + [True]
    best = found[0].design_BK[int(np.argmax(found[0].question.gain(found[0].design_BMS)))]
    assert np.array_equal(runs[7].mixture_K, best)


def test_candidates_keep_the_guardrails() -> None:
    guarded = space(4, objective={"weights": {"e0": 1.0}, "guardrails": {"e3": 0.0}})
    found = learn(guarded, observed(guarded, RUNS, noise=0.002))
    assert found is not None
    objective = objective_of(guarded, found[0].law.law_)
    assert objective.ceiling_M is not None
    over_B = (objective.losses(found[0].candidates_BK) - objective.ceiling_M).max(axis=1)
    assert over_B[1:].max() < 1e-5 and len(over_B) > 50


def test_gain_is_the_fall_in_variance_after_the_trial() -> None:
    question = known()[0].question
    feature_BMS = question.features(np.array([[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 1.0]]), np.tile(FEW, (2, 1)))
    gain_B = question.gain(feature_BMS)
    for gain, feature_MS in zip(gain_B, feature_BMS, strict=True):
        assert gain == pytest.approx(question.variance - question.after(feature_MS).variance)
        assert gain >= 0
    assert question.after(feature_BMS[0]).gain(feature_BMS)[0] < gain_B[0], "the second time tells less"
    assert question.after(feature_BMS[0]).entropy(feature_BMS)[0] < question.entropy(feature_BMS)[0]
    one, other = question.entropy(feature_BMS)
    both = [one + question.after(feature_BMS[0]).entropy(feature_BMS)[1]]
    both.append(other + question.after(feature_BMS[1]).entropy(feature_BMS)[0])
    noisy = replace(question, noise_M=1e4 * question.noise_M)
    drowned_B = noisy.gain(noisy.features(np.eye(4)[:2], np.tile(FEW, (2, 1))))
    assert drowned_B.max() < 1e-4 * question.gain(question.features(np.eye(4)[:2], np.tile(FEW, (2, 1)))).min()
    assert both[0] == pytest.approx(both[1]), "what two trials tell of the law does not depend on their order"


def test_a_trial_costs_its_training_and_its_evaluation() -> None:
    """6 N D to train, 2 N per token evaluated, of each eval domain at each checkpoint."""
    asked = space(4, recipe={"eval_tokens": 1000, "checkpoints": 3})
    assert fidelity.flops(asked, Scale(1e6, 1e8)) == pytest.approx(6 * 1e6 * 1e8 + 2 * 1e6 * 1000 * 4 * 3)


def _assigned(n: int, table_runs: list[Proposal], rungs: int = 2) -> list[Scale]:
    two = space(4, rungs=rungs)
    found = learn(two, observed(two, table_runs))
    assert found is not None
    mix_BK = found[0].candidates_BK[:n]
    return fidelity.assign(two, found[0].question, mix_BK, observed(two, table_runs), [])[1]


def test_a_larger_rung_is_tried_as_soon_as_it_is_affordable() -> None:
    small, large = (rung.scale for rung in space(4, rungs=2).ladder)
    runs = [replace(run, scale=small) for run in RUNS]
    assert fidelity.flops(SPACE, large) > 0.5 * 8 * fidelity.flops(SPACE, small)
    assert set(_assigned(4, runs[:8])) == {small}
    assert _assigned(4, runs).count(large) >= 1


@dataclass(frozen=True)
class Told:
    """To which a trial at the larger rung tells `times` what one at the smaller does, and `later` of that after it."""

    times: float
    later: float

    def features(self, mix_BK: Array, scale_B2: Array) -> Array:
        """How much, (B, 1, 1)."""
        return np.where(scale_B2[:, 0] > 1e6, self.times, 1.0)[:, None, None]

    def gain(self, feature_BMS: Array) -> Array:
        """All of it."""
        return np.asarray(feature_BMS[:, 0, 0] * np.where(feature_BMS[:, 0, 0] > 1, self.later, 1.0))

    def after(self, feature_MS: Array) -> "Told":
        """What is known need not be told again."""
        return replace(self, later=0.0) if feature_MS[0, 0] > 1 else self


@pytest.mark.parametrize(("times", "expected"), [(6, [0, 0, 0]), (12, [1, 0, 0])])
def test_a_rung_is_chosen_by_what_it_tells_per_flop_and_is_not_told_twice(times: float, expected: list[int]) -> None:
    """The larger rung costs eight times as much; both have been tried."""
    two = space(4, rungs=2)
    ladder = [rung.scale for rung in two.ladder]
    runs = [replace(run, scale=ladder[i % 2]) for i, run in enumerate(RUNS[:8])]
    question: Any = Told(times, 1.0)
    mix_BK, scales = fidelity.assign(two, question, MIXES[[0, 1, 0]], observed(two, runs), [])
    assert [ladder.index(scale) for scale in scales] == expected
    assert np.array_equal(mix_BK, MIXES[[0, 1, 0]])


def test_with_one_rung_there_is_nothing_to_choose() -> None:
    assert set(_assigned(3, RUNS, rungs=1)) == {FEW}


def test_a_question_needs_no_law_of_a_certain_kind() -> None:
    found = known()[0]
    near_QK = found.candidates_BK[:3]
    asked = Question.of(SPACE, [found.law, found.law.law_], near_QK, np.full(4, 0.01))
    assert asked.variance >= 0


def test_repeats_count_in_what_is_proposed_as_in_what_is_recommended() -> None:
    few = space(4, domains=[{"name": f"d{i}", "available_tokens": 1e7 if i == 1 else 1e9} for i in range(4)])
    table = _with_unique(few, observed(few, RUNS, noise=0.003))
    found = learn(few, table)
    assert found is not None
    told, belief = found
    law = fit_law(few, table)
    assert told.law.law_.predict(MIXES, np.tile(FEW, (2, 1))) == pytest.approx(law.predict(MIXES, np.tile(FEW, (2, 1))))
    target_2 = np.tile(np.asarray(few.target.scale, float), (2, 1))
    expected = objective_of(few, law).losses(MIXES)
    assert losses(few, told.law.law_, MIXES, target_2) == pytest.approx(expected)
    untold = law.predict(MIXES, target_2)
    assert np.abs(expected[0] / untold[0] - 1).max() > 1e-3, "a tenth of the target is more than d1 has"
    # The process is what the law leaves over at the trials, each with the tokens that it could repeat.
    assert belief.sites.unique_RK[:, 1] == pytest.approx(unique_at(few, table.scale_B2)[: len(belief.sites.mix_RK), 1])
    assert np.abs(belief.sites.left_over(law)).max() < 0.05


MIXES = np.array([[0.1, 0.7, 0.1, 0.1], [0.3, 0.1, 0.3, 0.3]])


def _with_unique(few: SearchSpace, table: Observations) -> Observations:
    """The same runs, which say how many tokens they could draw from, and lose by repeats of d1."""
    unique_BK = unique_at(few, table.scale_B2)
    rows = table.table.to_pylist()
    for row, unique_K in zip(rows, unique_BK, strict=True):
        row |= {f"unique/{name}": float(n) for name, n in zip(few.domain_names, unique_K, strict=True)}
        epochs = row["mixture/d1"] * row["n_tokens"] / row["unique/d1"]
        row["loss/e1"] *= 1 + 0.01 * np.log(max(epochs, 1.0))
    return Observations.from_rows(rows, few.domain_names, few.eval_names)
