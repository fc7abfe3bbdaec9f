"""The simplex and its capped polytope: what every other floor stands on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raymix import simplex
from raymix.simplex import Polytope


@st.composite
def polytopes(draw: st.DrawFn) -> Polytope:
    """Non-empty polytopes of 2 to 12 domains with bounds and up to two groups around a hidden feasible point."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    k = draw(st.integers(2, 12))
    inside = rng.dirichlet(np.full(k, draw(st.sampled_from([0.3, 1.0, 5.0]))))
    lower = inside * rng.uniform(0, 1, k) * draw(st.sampled_from([0.0, 1.0]))
    upper = np.minimum(1, inside + rng.uniform(0.001, draw(st.sampled_from([0.02, 0.5, 2.0])), k))
    rows = rng.integers(0, 2, (draw(st.integers(0, 2)), k)).astype(float)
    return Polytope(lower, upper, rows, rows @ inside + rng.uniform(0.001, 0.2, len(rows)))


@given(polytopes(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_samples_lie_in_the_polytope(polytope: Polytope, seed: int) -> None:
    mix_BK = simplex.sample(polytope, 16, np.random.default_rng(seed))
    assert polytope.contains(mix_BK, 1e-9).all()


@given(polytopes(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_projection_is_inside_and_nearest(polytope: Polytope, seed: int) -> None:
    rng = np.random.default_rng(seed)
    point = rng.normal(1 / polytope.n_domains, 0.5, polytope.n_domains)
    nearest = simplex.project(polytope, point)
    assert polytope.contains(nearest, 1e-8).all()
    # The projection makes an obtuse angle with every point of a convex set; 1e-6 is Dykstra's stopping error.
    others = simplex.sample(polytope, 16, rng)
    assert ((others - nearest) @ (point - nearest)).max() <= 1e-6


def fixed_groups(K: int, *members: tuple[int, ...]) -> Polytope:
    """Groups with min = max, at what equal shares give them."""
    rows_GK = np.array([np.isin(np.arange(K), group).astype(float) for group in members])
    limit_G = rows_GK.sum(axis=1) / K
    return Polytope(np.zeros(K), np.ones(K), np.vstack([rows_GK, -rows_GK]), np.concatenate([limit_G, -limit_G]))


@pytest.mark.parametrize("members", [((0, 1),), ((0, 1), (1, 2)), ((0, 1), (2, 3)), ((0, 1, 2, 3, 4, 5),), ((0,),)])
def test_groups_with_min_equal_to_max_are_kept_and_leave_the_rest_free(members: tuple[tuple[int, ...], ...]) -> None:
    polytope, rng = fixed_groups(6, *members), np.random.default_rng(0)
    assert simplex.interior_point(polytope).min() > 0.05
    points_BK = simplex.sample(polytope, 32, rng)
    assert polytope.contains(points_BK, 1e-12).all()
    assert (points_BK.std(axis=0) > 0.01).sum() >= 4, "they are different mixtures"
    for point_K in points_BK:
        assert simplex.project(polytope, point_K) == pytest.approx(point_K, abs=1e-9)
    outside_K = rng.dirichlet(np.ones(6))
    nearest_K = simplex.project(polytope, outside_K)
    assert polytope.contains(nearest_K, 1e-12).all()
    assert ((points_BK - nearest_K) @ (outside_K - nearest_K)).max() <= 1e-9


def test_groups_that_leave_one_mixture() -> None:
    polytope = fixed_groups(3, (0,), (1,))
    for found_BK in (simplex.sample(polytope, 4, np.random.default_rng(0)), simplex.project(polytope, np.eye(3)[0])):
        assert found_BK == pytest.approx(np.full(np.shape(found_BK), 1 / 3), abs=1e-12)


@given(polytopes(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_vertex_is_no_worse_than_any_sample(polytope: Polytope, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost = rng.normal(size=polytope.n_domains)
    vertex = simplex.vertex_along(polytope, cost)
    assert polytope.contains(vertex, 1e-7).all()
    assert (simplex.sample(polytope, 16, rng) @ cost).min() >= vertex @ cost - 1e-7


def test_samples_of_the_whole_simplex_are_uniform() -> None:
    mix_BK = simplex.sample(Polytope.box([0] * 4, [1] * 4), 20_000, np.random.default_rng(0))
    # Dirichlet(1,1,1,1): mean 1/4, variance 3/80; 20,000 points put both within about 1%.
    np.testing.assert_allclose(mix_BK.mean(axis=0), 0.25, atol=0.005)
    np.testing.assert_allclose(mix_BK.var(axis=0), 3 / 80, rtol=0.05)


@pytest.mark.parametrize("k", [2, 40, 100])
def test_tight_caps_are_sampled(k: int) -> None:
    polytope = Polytope.box([0] * k, [1.2 / k] * k)
    mix_BK = simplex.sample(polytope, 50, np.random.default_rng(0))
    assert polytope.contains(mix_BK).all()
    assert mix_BK.std(axis=0).min() > 0.05 / k  # it moves, though at most 0.2 / k is free


def test_inside_is_within_sum_bounds_and_groups() -> None:
    polytope = Polytope(np.array([0.1, 0, 0]), np.array([1, 0.5, 1]), np.array([[0, 1.0, 1.0]]), np.array([0.8]))
    outside = [[0.3, 0.3, 0.3], [0.4, 0.4, 0.3], [0.05, 0.4, 0.55], [0.2, 0.6, 0.2], [0.15, 0.4, 0.45]]
    assert polytope.contains(np.array([[0.2, 0.4, 0.4], *outside])).tolist() == [True] + [False] * 5
    assert polytope.contains(np.array([0.2 - 1e-10, 0.4, 0.4 + 1e-10])).all(), "but for rounding"


def test_a_floor_stops_where_a_bound_leaves_no_room_for_it() -> None:
    floored = Polytope.box([0.2, 0, 0], [1, 0.01, 1]).floored(0.05)
    assert floored.lower_K.tolist() == [0.2, 0.01, 0.05]


def test_infeasible_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="no mixture satisfies"):
        simplex.interior_point(Polytope.box([0.6, 0.6], [1, 1]))
    with pytest.raises(ValueError, match="no mixture satisfies"):
        simplex.project(Polytope.box([0, 0], [0.4, 0.4]), np.asarray([0.5, 0.5]))


@pytest.mark.parametrize(
    ("shares", "words"),
    [([0.5, 0.4], "sum to 0.9"), ([1.2, -0.2], "'b' is -0.2"), ([float("nan"), 1.0], "'a' is nan")],
)
def test_bad_mixtures_name_value_and_domain(shares: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        simplex.as_mixture(shares, ["a", "b"])


def test_rounding_is_renormalised() -> None:
    assert simplex.as_mixture([0.3333333, 0.3333333, 0.3333333], ["a", "b", "c"]).sum() == pytest.approx(1, abs=1e-15)


def test_unimax_gives_small_domains_their_cap_and_splits_the_rest() -> None:
    # 100 tokens to spend, at most 2 epochs: 5 -> 10, then (100 - 10) / 2 = 45 each, all within 2 x 60 and 2 x 200.
    np.testing.assert_allclose(simplex.unimax(np.asarray([60.0, 5.0, 200.0]), 100, 2), [0.45, 0.10, 0.45])


def test_unimax_is_even_where_it_can_be_and_follows_the_caps_where_it_cannot() -> None:
    available_K = np.asarray([60.0, 5.0, 200.0])
    np.testing.assert_allclose(simplex.unimax(available_K, 12, 2), 1 / 3)
    np.testing.assert_allclose(simplex.unimax(available_K, 1e6, 2), available_K / 265)


def test_distances_and_temperatures_by_hand() -> None:
    left_K, right_K = np.asarray([0.64, 0.36, 0.0]), np.asarray([0.16, 0.36, 0.48])
    assert simplex.total_variation(left_K, right_K) == pytest.approx(0.48)
    found_BR = simplex.hellinger(np.stack([left_K, np.eye(3)[2]]), np.stack([right_K, left_K]))
    # root of 1 - sum of roots of products: .8 x .4 + .6 x .6 = .68
    np.testing.assert_allclose(found_BR, np.sqrt([[1 - 0.68, 0.0], [1 - np.sqrt(0.48), 1.0]]), atol=1e-7)
    np.testing.assert_allclose(simplex.temperature(np.asarray([4.0, 1.0, 0.0]), 0.5), [2 / 3, 1 / 3, 0])


def test_spread_takes_far_points_first() -> None:
    corners = np.eye(3)
    middle = np.full((1, 3), 1 / 3)
    chosen = simplex.spread(np.concatenate([middle * 1.0, corners]), 3, taken_BK=middle)
    assert sorted(chosen.tolist()) == [1, 2, 3]


def test_a_line_of_mixtures_is_no_point() -> None:
    """Not even one along which the shares of four domains change as the square roots of 4, 9, 16 and 25 add up."""
    one_K, *pairs = np.eye(24)[[2, 7, 14, 23]].sum(axis=0), (2, 7), (2, 14), (7, 23), (14, 23)
    rows_GK = np.array([np.eye(24)[list(pair)].sum(axis=0) for pair in pairs])
    line = Polytope(np.zeros(24), one_K, np.vstack([rows_GK, -rows_GK]), np.repeat([0.5, -0.5], 4))
    assert not line.is_point
