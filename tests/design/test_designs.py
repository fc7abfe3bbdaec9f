"""Designs that need no model: halving grid, perturbations, random Dirichlet."""

from dataclasses import replace

import numpy as np
import pytest

from raymix import simplex
from raymix.design import Halving, Perturbations, RandomDirichlet, SpaceFilling
from raymix.design.evidence import best_seen, one_scale
from raymix.design.halving import _kept, grid
from raymix.design.random_dirichlet import dirichlet, into
from raymix.design.schedule import rungs, scale_of
from raymix.design.space_filling import concentrated
from raymix.laws import Law, make_law
from raymix.observations import Observations
from raymix.simplex import Polytope
from tests import worlds as study_worlds
from tests.design.worlds import observed, play, regret, space

NOTHING = observed(space(3), [])


def test_halving_gives_forty_different_mixtures_of_halved_shares() -> None:
    runs = Halving(space(3)).suggest(NOTHING, [], 40, np.random.default_rng(0))
    mix_BK = np.stack([run.mixture_K for run in runs])
    assert len(np.unique(np.round(mix_BK, 9), axis=0)) == 40
    halves = np.append(0.5 ** np.arange(7), 0.0)
    halved_BK = np.isclose(mix_BK[..., None], halves).any(axis=-1)
    assert (halved_BK.sum(axis=1) >= 2).all(), "all shares but the one that takes the rest are halvings of 1"


def test_halving_goes_on_where_it_stopped() -> None:
    whole = Halving(space(3)).suggest(NOTHING, [], 6, np.random.default_rng(0))
    rest = Halving(space(3)).suggest(observed(space(3), whole[:4]), [], 2, np.random.default_rng(1))
    assert all(np.allclose(a.mixture_K, b.mixture_K) for a, b in zip(whole[4:], rest, strict=True))


def test_halving_keeps_the_group_whose_law_errs_least_on_all_runs() -> None:
    rows = observed(space(4), play(Halving(space(4)), 40, batch=40), noise=0.05)

    def error(law: Law) -> float:
        return float(np.abs(law.predict(rows.mix_BK, rows.scale_B2) - rows.loss_BM).mean())

    def of_twenty(seed: int) -> Law:
        group = np.random.default_rng(seed).permutation(40)[:20]
        return make_law("m4").fit(rows.mix_BK[group], rows.scale_B2[group], rows.loss_BM[group])

    others = sorted(error(of_twenty(seed)) for seed in range(20))
    kept = error(_kept(rows, np.random.default_rng(0)))  # the best of sixteen
    assert kept < others[5] and kept < others[10] - 0.5 * (others[10] - others[0])


def test_halving_starts_from_the_largest_allowed_share() -> None:
    grid_BK = grid(Polytope.box([0, 0, 0], [0.6, 0.8, 1.0]), 500, np.random.default_rng(0))
    assert grid_BK.max(axis=0) == pytest.approx([0.6, 0.8, 1.0])


def test_perturbations_are_a_base_and_a_third_and_thrice_of_each_domain() -> None:
    runs = Perturbations(space(3)).suggest(NOTHING, [], 7, np.random.default_rng(0))
    base_K = space(3).prior_K()
    assert runs[0].mixture_K == pytest.approx(base_K)
    for k in range(3):
        for run, factor in zip(runs[1 + 2 * k : 3 + 2 * k], (1 / 3, 3), strict=True):
            relative_K = run.mixture_K / base_K
            assert relative_K[k] / np.delete(relative_K, k) == pytest.approx([factor] * 2)


@pytest.mark.parametrize("designer", [Halving(space(4)), Perturbations(space(4))])
def test_published_pipelines_find_better_than_the_prior(designer: Halving | Perturbations) -> None:
    table = observed(designer.space, play(designer, 40, batch=40))
    assert regret(designer.space, designer.recommend(table)) < 0.25


def test_dirichlet_keeps_caps_without_moving_what_is_inside() -> None:
    free = dirichlet(space(5), 200, np.random.default_rng(0))
    assert (free == 0).any(), "strengths of .1 leave shares below 2e-4, which become 0"
    assert free.mean(axis=0) == pytest.approx(simplex.temperature(space(5).prior_K(), 0.5), abs=0.08)
    capped = space(5, domains=[{"name": f"d{i}", "max_share": 0.25} for i in range(5)])
    drawn = RandomDirichlet(capped).suggest(observed(capped, []), [], 50, np.random.default_rng(0))
    assert capped.polytope().contains(np.stack([run.mixture_K for run in drawn])).all()


def test_dirichlet_gives_no_domain_more_than_fifteen_times_its_prior() -> None:
    scarce = space(4, domains=[{"name": f"d{i}", "prior": 0.01 if i == 0 else 0.33} for i in range(4)])
    drawn_K = dirichlet(scarce, 400, np.random.default_rng(0)).max(axis=0)
    assert 0.1 < drawn_K[0] <= 0.15 + 1e-9 and drawn_K[1:].min() > 0.9


def test_of_scales_trained_equally_often_the_largest_counts() -> None:
    asked = space(3, rungs=2)
    small, large = (rung.scale for rung in asked.ladder)
    runs = play(SpaceFilling(asked), 5)
    table = observed(asked, [replace(run, scale=(large, small)[i % 2]) for i, run in enumerate(runs)])
    assert one_scale(asked, table.select(np.arange(4))).scale_B2.tolist() == [list(large)] * 2
    assert one_scale(asked, table.select(np.array([0, 1, 3]))).scale_B2.tolist() == [list(small)] * 2


def test_into_is_the_projection_where_there_are_bounds_alone() -> None:
    box = Polytope.box([0.1, 0, 0, 0], [0.3, 0.4, 0.5, 0.6])
    mix_BK = np.random.default_rng(0).dirichlet(np.ones(4), size=50)
    moved_BK = into(box, mix_BK)
    assert moved_BK == pytest.approx(np.stack([simplex.project(box, mix_K) for mix_K in mix_BK]), abs=1e-12)


def test_into_keeps_groups() -> None:
    box = Polytope(np.zeros(4), np.ones(4), np.array([[1.0, 1.0, 0, 0]]), np.array([0.2]))
    assert box.contains(into(box, np.random.default_rng(0).dirichlet(np.ones(4), size=50))).all()


def test_into_spreads_over_a_group_with_min_equal_to_max() -> None:
    group_K = np.array([1.0, 1, 0, 0])
    box = Polytope(np.zeros(4), np.array([1, 1, 1, 0.3]), np.stack([group_K, -group_K]), np.array([0.5, -0.5]))
    moved_BK = into(box, np.random.default_rng(0).dirichlet(np.ones(4), size=50))
    assert box.contains(moved_BK, 1e-12).all()
    assert len(np.unique(np.round(moved_BK, 6), axis=0)) == 50


def test_into_leaves_no_share_below_its_bound_by_rounding() -> None:
    """-1e-18 is no share: a study with such a trial pending could not be read."""
    held_K, loose_K = np.array([1.0, 1, 0, 0, 0, 0]), np.array([0, 1.0, 1, 0, 0, 0])
    limits = np.array([0.3, -0.3, 0.25, -0.2])
    box = Polytope(np.zeros(6), np.ones(6), np.stack([held_K, -held_K, loose_K, -loose_K]), limits)
    moved_BK = into(box, np.random.default_rng(0).dirichlet(np.full(6, 0.3), size=500))
    assert moved_BK.min() == 0
    assert box.contains(moved_BK, 1e-12).all()


def test_filling_takes_corners_and_mixtures_in_turn() -> None:
    """Corners alone leave the inside to the law's priors; mixtures alone leave its floor unseen."""
    asked = space(4)
    mix_BK = np.array([proposal.mixture_K for proposal in play(SpaceFilling(asked), 12)])
    corner_BK = np.isclose(mix_BK[:, None], concentrated(asked.polytope())[None], rtol=0, atol=1e-9).all(axis=2)
    first = 1 + asked.budget.replicates
    assert corner_BK.any(axis=1).tolist() == [i % 2 == 0 and first <= i < 8 for i in range(12)]
    assert corner_BK.sum(axis=0).max() == 1, "no corner twice"
    assert len(np.unique(mix_BK.round(9), axis=0)) == 12 - asked.budget.replicates


def test_a_fixed_schedule_takes_the_larger_rungs_in_turn_after_the_first_round() -> None:
    asked = space(3, rungs=3)
    order = [rungs(asked).index(scale_of(asked, position)) for position in range(18)]
    assert order == [0] * 8 + [1, 0, 2, 0, 1, 0, 2, 0, 1, 0]
    assert {scale_of(space(3), position) for position in range(18)} == {space(3).ladder[0].scale}


def test_the_best_seen_is_not_the_one_that_ran_longest() -> None:
    ladder = [{"n_params": 1e5, "n_tokens": n_tokens} for n_tokens in (5e5, 4e6)]
    given, good_K, bad_K = study_worlds.space(ladder=ladder), np.full(3, 1 / 3), np.array([0.02, 0.08, 0.9])
    rows = [
        {"trial_id": str(i), "n_params": 1e5, "n_tokens": n_tokens}
        | {f"mixture/{name}": share for name, share in zip(study_worlds.DOMAINS, mix_K, strict=True)}
        | {f"loss/{n}": v for n, v in zip(study_worlds.DOMAINS, study_worlds.losses(mix_K, 1e5, n_tokens), strict=True)}
        for i, (mix_K, n_tokens) in enumerate([(good_K, 5e5), (good_K, 4.98e5), (bad_K, 5e5), (bad_K, 4e6)])
    ]
    table = Observations.from_rows(rows, study_worlds.DOMAINS, study_worlds.DOMAINS)
    assert table.loss_BM[3].mean() < table.loss_BM[:2].mean()
    assert best_seen(given, table) == pytest.approx(good_K)
