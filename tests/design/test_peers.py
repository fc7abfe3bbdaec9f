"""Others' methods: the parametrisation, and that each answers better than the prior on a world it can fit."""

import sys

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from raymix.design import ModelFree, RegMix, SpaceFilling, make_designer
from raymix.design.model_free import point_of_ratios, point_of_spacings, ratios, spacings
from raymix.design.numbering import numbered
from raymix.observations import Observations
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


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown sampler 'grid': tpe, gp, cmaes, random"):
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
