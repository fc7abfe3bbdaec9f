"""Others' methods: the parametrisation, and that each answers better than the prior on a world it can fit."""

import sys

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from raymix import simplex
from raymix.design import (
    Climb,
    ModelFree,
    Olmix,
    Optimal,
    Proposal,
    RandomDirichlet,
    RegMix,
    SpaceFilling,
    make_designer,
)
from raymix.design.learned import learn
from raymix.design.model_free import point_of_ratios, point_of_spacings, ratios, spacings
from raymix.design.schedule import numbered
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import SearchSpace
from tests.design.worlds import observed, play, regret, space


def test_uniform_points_are_uniform_mixtures() -> None:
    x_BK = np.random.default_rng(0).random((2000, 5))
    share_B = np.stack([spacings(x_K) for x_K in x_BK])[:, 2]
    assert stats.kstest(share_B, stats.beta(1, 4).cdf).pvalue > 0.01  # a share of a uniform mixture is Beta(1, K - 1)


@pytest.mark.parametrize("mix_K", [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.999, 0.001, 0.0]])
def test_a_mixture_and_its_point_agree(mix_K: list[float]) -> None:
    assert spacings(point_of_spacings(np.array(mix_K))) == pytest.approx(mix_K, abs=1e-5)


@pytest.mark.parametrize("mix_K", [[0.2, 0.3, 0.5], [0.5, 0.1, 0.4], [0.9, 0.05, 0.05]])
def test_near_the_prior_a_mixture_and_its_point_agree(mix_K: list[float]) -> None:
    centre_K = np.array([0.5, 0.1, 0.4])
    assert ratios(np.full(3, 0.5), centre_K) == pytest.approx(centre_K)
    assert ratios(point_of_ratios(np.array(mix_K), centre_K), centre_K) == pytest.approx(mix_K, abs=1e-5)


def test_a_mixture_beyond_reach_of_the_prior_keeps_its_largest_share() -> None:
    centre_K = np.array([0.5, 0.1, 0.4])
    found_K = ratios(point_of_ratios(np.array([0.0, 1.0, 0.0]), centre_K), centre_K)
    assert found_K[1] > 0.97  # e^6 to 1 before normalising, from .1 to .5


@pytest.mark.parametrize("name", ["tpe", "cmaes", "climb", "olmix", "random"])
def test_peers_answer_better_than_the_prior(name: str) -> None:
    if name == "climb":  # a plane, which stands in for its trees, has its optimum in a corner
        pytest.importorskip("lightgbm")
    designer = make_designer(name, space(3))
    table = observed(designer.space, play(designer, 32), noise=0.002)
    assert regret(designer.space, designer.recommend(table)) < 0.7  # type: ignore[attr-defined]


@pytest.mark.slow
def test_regmix_with_its_trees_answers_better_than_the_prior() -> None:
    pytest.importorskip("lightgbm")
    designer = RegMix(space(3), n_candidates=2000)
    table = observed(designer.space, play(designer, 100, batch=100))
    assert regret(designer.space, designer.recommend(table)) < 0.5


def test_regmix_uses_the_linear_regression_without_lightgbm(monkeypatch: pytest.MonkeyPatch) -> None:
    designer = RegMix(space(4), n_candidates=2000)
    table = observed(designer.space, play(designer, 24))
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    found_K = designer.recommend(table)
    assert space(4).polytope().contains(found_K).all()
    assert found_K.max() > 0.9, "a plane has its optimum in a corner"


def test_regmix_answers_with_the_mean_of_its_best_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 of them, not the best alone: that one is where the regression is most optimistic."""
    asked, liked_K, seen = space(3), np.array([0.6, 0.3, 0.1]), []

    def distance(space: SearchSpace, rows: Observations, mix_BK: Array, settings: object) -> Array:
        seen.append(mix_BK)
        return np.asarray(((mix_BK - liked_K) ** 2).sum(axis=1))

    monkeypatch.setattr("raymix.design.regmix.predicted", distance)
    found_K = RegMix(asked, n_candidates=2000).recommend(observed(asked, play(RegMix(asked), 8)))
    (drawn_BK,) = seen
    best_BK = drawn_BK[np.argsort(((drawn_BK - liked_K) ** 2).sum(axis=1))[:128]]
    assert len(drawn_BK) == 2000 and found_K == pytest.approx(best_BK.mean(axis=0), abs=1e-12)


def test_climb_draws_each_round_from_what_it_likes_of_the_rounds_before(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, trained_on = space(3, budget={"trials": 28}), []  # rounds of 16, 8 and 4

    def distance(space: SearchSpace, rows: Observations, mix_BK: Array, settings: object) -> Array:
        trained_on.append(len(rows))
        return np.abs(mix_BK[:, 0] - 0.37)

    monkeypatch.setattr("raymix.design.climb.predicted", distance)
    mix_BK = np.array([run.mixture_K for run in play(Climb(asked), 28, batch=4)])
    assert trained_on == [16, 16, 24], "a round is proposed in parts, and all parts see the same"
    assert np.abs(mix_BK[:16, 0] - 0.37).max() > 0.2, "the first round is drawn around the prior"
    assert np.abs(mix_BK[16:, 0] - 0.37).max() < 0.02  # 32 of 5000 draws lie within about .01
    assert len(np.unique(mix_BK.round(9), axis=0)) == 28, "drawn at random from the best, not the best again"


def test_olmix_is_pulled_to_the_prior() -> None:
    asked = space(3)
    table = observed(asked, play(RandomDirichlet(asked), 24))
    found = [Olmix(asked, **pull).recommend(table) for pull in ({"pull": 0.0}, {}, {"pull": 50.0})]
    away = [simplex.total_variation(mix_K, asked.prior_K()) for mix_K in found]
    assert away[0] > away[1] + 0.01 > away[2] + 0.01 and away[2] < 0.01


def test_optimal_designs_take_what_tells_most_about_the_law_or_about_its_optimum() -> None:
    asked = space(4, rungs=2)
    table = observed(asked, play(SpaceFilling(asked), 24), noise=0.002)
    known = learn(asked, table)
    assert known is not None
    law, optimum = (Optimal(asked, c).suggest(table, [], 1, np.random.default_rng(0))[0] for c in ("D", "I"))
    others_BK = simplex.sample(asked.polytope(), 500, np.random.default_rng(1))
    mix_BK = np.concatenate([[law.mixture_K, optimum.mixture_K], others_BK])
    feature_BMS = known[0].question.features(mix_BK, np.tile(law.scale, (len(mix_BK), 1)))
    entropy_B, gain_B = known[0].question.entropy(feature_BMS), known[0].question.gain(feature_BMS)
    assert entropy_B[0] > entropy_B[1] and gain_B[1] > gain_B[0]
    assert entropy_B[0] >= 0.95 * entropy_B.max() and gain_B[1] >= 0.95 * gain_B.max()  # chosen among 388 candidates
    following = [Optimal(asked, "I").suggest(table, [run], 1, np.random.default_rng(0))[0] for run in (law, optimum)]
    assert np.abs(following[0].mixture_K - following[1].mixture_K).max() > 0.01, "what is pending is known"


def test_model_free_searchers_hold_no_size_against_a_mixture() -> None:
    """Larger proxies have lower losses: only what a mixture gains among its own size counts."""
    asked = space(3, rungs=2)
    few, large = (rung.scale for rung in asked.ladder)
    mix_BK = np.random.default_rng(0).dirichlet(np.ones(3), size=5)
    table = observed(asked, [Proposal(mix_K, scale, 0) for scale in (few, large) for mix_K in mix_BK])
    value_B = ModelFree(asked)._values(table)
    assert table.loss_BM[:5].mean() > table.loss_BM[5:].mean()
    assert np.median(value_B[:5]) == np.median(value_B[5:]) == 0
    assert np.argsort(value_B[:5]).tolist() == np.argsort(table.loss_BM[:5].mean(axis=1)).tolist()


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown sampler 'grid': tpe, gp, cmaes"):
        ModelFree(space(3), sampler="grid")


def test_the_same_mixture_again_gets_a_seed_of_its_own() -> None:
    prior_K, scale = space(3).prior_K(), space(3).ladder[0].scale
    first = numbered(space(3), [prior_K] * 2, [scale] * 2, observed(space(3), []), [])
    tried = observed(space(3), first[:1])
    assert [p.seed for p in first] == [0, 1]
    assert [p.seed for p in numbered(space(3), [prior_K], [scale], tried, first[1:])] == [2]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_where_no_objective_is_known_space_is_filled(sampler: str) -> None:
    """Optuna's samplers drew at random there, and the GP's warned of every share."""
    asked = space(3)
    table = observed(asked, play(SpaceFilling(asked), 12))
    at = table.table.column_names.index("loss/e0")
    blind = table.table.set_column(at, "loss/e0", pa.array([float("nan")] * len(table), pa.float64()))
    unknown = Observations(blind, table.domains, table.eval_domains)
    designers = ModelFree(asked, sampler), SpaceFilling(asked)
    found, filled = (each.suggest(unknown, [], 3, np.random.default_rng(0)) for each in designers)
    assert [p.mixture_K.tolist() for p in found] == [p.mixture_K.tolist() for p in filled]
