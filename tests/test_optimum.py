"""The optimum on the polytope, its certificate, and the near-optimal set."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raymix import simplex
from raymix.simplex import Array, Polytope
from raymix.target.near_optimal import exchangeable, near_optimal
from raymix.target.objective import ObjectiveAtScale
from raymix.target.optimum import certify, minimise


class PowerLaw:
    """L_i = 1 + a_i (r_i + e)^-g_i: each eval domain has one domain. Mean objective: known by water-filling."""

    name, convex, notes_ = "power", True, ()

    def __init__(self, a_K: Array, g_K: Array, e: float = 0.01) -> None:
        self.a_K, self.g_K, self.e = a_K, g_K, e

    def predict(self, mix_BK: Array, scale_B2: Array) -> Array:
        return 1 + self.a_K * (np.atleast_2d(mix_BK) + self.e) ** -self.g_K

    def gradient(self, mix_BK: Array, scale_B2: Array) -> Array:
        slope = -self.a_K * self.g_K * (np.atleast_2d(mix_BK) + self.e) ** (-self.g_K - 1)
        return slope[:, :, None] * np.eye(len(self.a_K))

    def water_filled(self, weights_K: Array, upper_K: Array) -> Array:
        """Exact optimum: w a g (r + e)^-(g+1) = lambda where free, by bisection on log lambda."""
        low, high = -60.0, 60.0
        for _ in range(200):
            level = np.exp(0.5 * (low + high))
            mix = np.clip((weights_K * self.a_K * self.g_K / level) ** (1 / (self.g_K + 1)) - self.e, 0, upper_K)
            low, high = (0.5 * (low + high), high) if mix.sum() > 1 else (low, 0.5 * (low + high))
        return np.asarray(mix)


def problem(seed: int, k: int, **more: Any) -> tuple[PowerLaw, ObjectiveAtScale]:
    rng = np.random.default_rng(seed)
    law = PowerLaw(rng.uniform(0.2, 2, k), rng.uniform(0.1, 0.9, k))
    return law, ObjectiveAtScale(law, (1e9, 1e9), simplex.normalise(rng.uniform(0.1, 1, k)), **more)  # type: ignore[arg-type]


@given(st.integers(0, 999), st.sampled_from([2, 3, 7, 17, 40]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_mean_optimum_equals_water_filling(seed: int, k: int, capped: bool) -> None:
    law, objective = problem(seed, k)
    upper = np.full(k, min(1.0, 1.5 / k) if capped else 1.0)
    found = minimise(objective, Polytope.box([0] * k, upper.tolist()))
    exact = float(objective.values(law.water_filled(objective.weights_M, upper))[0])
    assert found.value - exact <= found.gap + 1e-9  # the certificate holds
    assert found.gap <= 1e-4
    assert found.value - exact <= 2e-5


@given(st.integers(0, 999), st.sampled_from([2, 3, 7, 17]))
@settings(max_examples=20, deadline=None)
def test_worst_case_certificate_bounds_every_sample(seed: int, k: int) -> None:
    _, objective = problem(seed, k, reduce="worst")
    polytope = Polytope.box([0] * k, [1] * k)
    found = minimise(objective, polytope)
    assert found.gap <= 1e-4
    samples = simplex.sample(polytope, 300, np.random.default_rng(seed))
    assert objective.values(samples).min() >= found.value - found.gap - 1e-9


class Times:
    """A law in another unit."""

    name, convex, notes_ = "times", True, ()

    def __init__(self, law: PowerLaw, factor: float) -> None:
        self.law, self.factor = law, factor

    def predict(self, mix_BK: Array, scale_B2: Array) -> Array:
        return self.factor * self.law.predict(mix_BK, scale_B2)

    def gradient(self, mix_BK: Array, scale_B2: Array) -> Array:
        return self.factor * self.law.gradient(mix_BK, scale_B2)


@pytest.mark.parametrize("reduce", ["mean", "worst", "guarded"])
@given(st.integers(0, 99), st.sampled_from([1e-6, 1e-4, 1e4, 1e6]))
@settings(max_examples=12, deadline=None)
def test_losses_in_another_unit_have_the_same_answer(reduce: str, seed: int, factor: float) -> None:
    """Solvers stop at absolute differences: losses of 1e-6 left them where they began."""
    K, slack = 4, 0.01
    law, plain = problem(seed, K, reduce="worst" if reduce == "worst" else "mean")
    if reduce == "guarded":
        ceiling_M = plain.losses(np.full(K, 1 / K))[0] + 0.01
        plain = replace(plain, ceiling_M=ceiling_M, prior_K=np.full(K, 1 / K), pull=0.01)
    ceiling_M = None if plain.ceiling_M is None else plain.ceiling_M * factor
    other = replace(plain, law=Times(law, factor), ceiling_M=ceiling_M, pull=plain.pull * factor)  # type: ignore[arg-type]
    polytope = Polytope.box([0] * K, [1] * K)
    one, same = minimise(plain, polytope), minimise(other, polytope)
    # Both within their gaps of the optimum, and the gap as good as that in nats but for the unit's rounding.
    assert same.value / factor == pytest.approx(one.value, abs=one.gap + same.gap / factor + 1e-9)
    assert same.gap / factor < 1e-4
    for near, far in zip(near_optimal(plain, polytope, one, slack), near_optimal(other, polytope, same, slack * factor),
                         strict=True):  # fmt: skip
        np.testing.assert_allclose(far, near, atol=0.01)  # where the set is flat its ends move by the root of a gap
    assert certify(other.in_units(one.mixture_K), polytope, one.mixture_K) < 1e-4
    moved_2KK = [exchangeable(plain, polytope, one, slack),
                 exchangeable(other, polytope, replace(one, value=one.value * factor), slack * factor)]  # fmt: skip
    assert np.abs(moved_2KK[0] - moved_2KK[1]).max() <= 1 / 16


def test_groups_and_bounds_hold_at_the_optimum() -> None:
    _, objective = problem(0, 6)
    group = np.asarray([[1.0, 1, 0, 0, 0, 0], [-1, -1, 0, 0, 0, 0]])
    polytope = Polytope(np.full(6, 0.02), np.full(6, 0.6), group, np.asarray([0.2, -0.1]))
    found = minimise(objective, polytope)
    assert polytope.contains(found.mixture_K, 1e-9).all()
    assert found.gap <= 1e-4


@pytest.mark.parametrize("cap", [1.0, 0.4])
def test_groups_with_min_equal_to_max_hold_at_the_optimum(cap: float) -> None:
    """Along (.5 - t, t, .1 - t, .4 + t); a cap of .4 on the first leaves t = .1 alone."""
    groups, totals = np.array([[1.0, 1, 0, 0], [0, 1, 1, 0]]), np.array([0.5, 0.1])
    polytope = Polytope(np.zeros(4), np.array([cap, 1, 1, 1]), np.vstack([groups, -groups]), np.append(totals, -totals))
    found = minimise(problem(3, 4)[1], polytope)
    assert polytope.contains(found.mixture_K, 1e-12).all()
    assert found.gap <= 2e-5


def test_fixed_shares_leave_the_only_point() -> None:
    _, objective = problem(0, 3)
    found = minimise(objective, Polytope.box([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]))
    np.testing.assert_allclose(found.mixture_K, [0.2, 0.3, 0.5], atol=1e-12)
    assert found.gap <= 1e-9


@pytest.mark.parametrize(("lower", "upper"), [([1.0, 0.0, 0.0], [1.0, 1.0, 1.0]), ([0.0, 0.0, 0.0], [0.5, 0.25, 0.25])])
def test_bounds_that_leave_one_mixture_cost_no_search(lower: list[float], upper: list[float]) -> None:
    """A power of shares has infinite slopes at the shares of 0 here: a solver took half a minute."""
    law, objective = problem(0, 3)
    asked: list[Array] = []
    law.predict = lambda mix_BK, scale_B2: asked.append(mix_BK) or PowerLaw.predict(law, mix_BK, scale_B2)  # type: ignore[method-assign,func-returns-value]
    found = minimise(objective, Polytope.box(lower, upper))
    np.testing.assert_allclose(found.mixture_K, lower if sum(lower) == 1 else upper, atol=1e-12)
    assert found.gap <= 1e-9
    assert len(asked) < 5


def test_eval_domains_of_weight_zero_may_be_unknown() -> None:
    law, _ = problem(0, 3)
    law.a_K = np.asarray([1.0, np.nan, 1.0])
    objective = ObjectiveAtScale(law, (1, 1), np.asarray([0.5, 0.0, 0.5]))  # type: ignore[arg-type]
    assert np.isfinite(objective.values(np.full((1, 3), 1 / 3))).all()


def test_near_optimal_set_reaches_the_slack_and_not_beyond() -> None:
    _, objective = problem(3, 4)
    polytope = Polytope.box([0] * 4, [1] * 4)
    optimum = minimise(objective, polytope)
    low_K, high_K = near_optimal(objective, polytope, optimum, 0.01)
    assert (low_K <= optimum.mixture_K).all()
    assert (high_K >= optimum.mixture_K).all()
    samples = simplex.sample(polytope, 4000, np.random.default_rng(0), steps=100)
    inside = samples[objective.values(samples) <= optimum.value + 0.01]
    assert len(inside) > 30
    assert (inside >= low_K - 2e-3).all()  # SLSQP stops within 1e-3 of a bound
    assert (inside <= high_K + 2e-3).all()


def test_near_optimal_set_asks_for_points_together_and_for_slopes_where_they_are_used() -> None:
    """Point by point, with a gradient for every value, this was two thirds of the time of `raymix optimize`."""
    law, objective = problem(3, 4)
    optimum = minimise(objective, Polytope.box([0] * 4, [1] * 4))
    asked = {"predict": 0, "gradient": 0}

    class Counting(PowerLaw):
        def predict(self, mix_BK: Array, scale_B2: Array) -> Array:
            asked["predict"] += 1
            return super().predict(mix_BK, scale_B2)

        def gradient(self, mix_BK: Array, scale_B2: Array) -> Array:
            asked["gradient"] += 1
            return super().gradient(mix_BK, scale_B2)

    counted = replace(objective, law=Counting(law.a_K, law.g_K))  # type: ignore[arg-type]
    got, want = (near_optimal(each, Polytope.box([0] * 4, [1] * 4), optimum, 0.01) for each in (counted, objective))
    np.testing.assert_array_equal(got, want)
    assert asked["predict"] < 8 * 60  # 8 bounds; it was 105, each with a gradient
    assert asked["gradient"] < 8 * 30


def test_near_optimal_set_of_many_domains_takes_few_steps_for_each() -> None:
    """Shares in units of how far they can go: in shares themselves it took 37 gradients and 543 points for a bound."""
    law, objective = problem(3, 32)
    polytope = Polytope.box([0] * 32, [1] * 32)
    optimum = minimise(objective, polytope)
    asked = {"points": 0, "gradients": 0}

    class Counting(PowerLaw):
        def predict(self, mix_BK: Array, scale_B2: Array) -> Array:
            asked["points"] += len(mix_BK)
            return super().predict(mix_BK, scale_B2)

        def gradient(self, mix_BK: Array, scale_B2: Array) -> Array:
            asked["gradients"] += 1
            return super().gradient(mix_BK, scale_B2)

    near_optimal(replace(objective, law=Counting(law.a_K, law.g_K)), polytope, optimum, 0.01)  # type: ignore[arg-type]
    assert asked["gradients"] < 64 * 20
    assert asked["points"] < 64 * 150


@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("n_guards", [1, 2])
def test_near_optimal_set_is_not_held_at_the_optimum_by_guardrails_that_it_touches(seed: int, n_guards: int) -> None:
    """SLSQP leaves 1e-10 nats between a guardrail and its answer, which was drawn back to where that is 0."""
    _, free = problem(seed, 5)
    polytope = Polytope.box([0] * 5, [1] * 5)
    even_K, best_K = np.full(5, 1 / 5), minimise(free, polytope).mixture_K
    even_M = free.losses(even_K)[0]
    paid = np.argsort(even_M - free.losses(best_K)[0])[:n_guards]
    ceiling_M = np.full(5, np.inf)
    ceiling_M[paid] = even_M[paid]
    objective = replace(free, ceiling_M=ceiling_M, prior_K=even_K)
    optimum = minimise(objective, polytope)
    assert objective.rooms(optimum.mixture_K).min() < 1e-6
    low_K, high_K = near_optimal(objective, polytope, optimum, 0.02)
    around = Polytope.box(*(np.maximum(optimum.mixture_K + side, 0.0).tolist() for side in (-0.03, 0.03)))
    samples = simplex.sample(around, 4000, np.random.default_rng(0), steps=100)
    kept = (objective.values(samples) <= optimum.value + 0.02) & (objective.rooms(samples) >= 0).all(axis=1)
    assert kept.sum() > 20
    assert (samples[kept] >= low_K - 2e-3).all()
    assert (samples[kept] <= high_K + 2e-3).all()


@given(st.integers(0, 99), st.sampled_from(["mean", "worst"]))
@settings(max_examples=20)
def test_guardrails_hold_and_cost_no_more_than_the_certificate_says(seed: int, reduce: str) -> None:
    _, plain = problem(seed, 4, reduce=reduce)
    polytope = Polytope.box([0] * 4, [1] * 4)
    prior = np.full(4, 0.25)
    free = minimise(plain, polytope)
    worse = plain.losses(free.mixture_K)[0] - plain.losses(prior)[0]
    guarded = int(np.argmax(worse))  # the eval domain that pays most for the optimum may not pay at all
    ceiling = np.where(np.arange(4) == guarded, plain.losses(prior)[0], np.inf)
    objective = replace(plain, ceiling_M=ceiling, prior_K=prior)
    found = minimise(objective, polytope)
    assert objective.losses(found.mixture_K)[0, guarded] <= ceiling[guarded] + 1e-6
    assert found.gap <= 1e-4
    samples = simplex.sample(polytope, 500, np.random.default_rng(seed))
    allowed = samples[plain.losses(samples)[:, guarded] <= ceiling[guarded]]
    assert plain.values(allowed).min(initial=np.inf) >= found.value - found.gap - 1e-6


def test_the_pull_moves_the_optimum_to_the_prior() -> None:
    _, plain = problem(5, 5)
    polytope = Polytope.box([0] * 5, [1] * 5)
    prior = np.asarray([0.5, 0.2, 0.1, 0.1, 0.1])
    away = [
        simplex.total_variation(minimise(replace(plain, pull=pull, prior_K=prior), polytope).mixture_K, prior)
        for pull in (0.0, 0.05, 0.5, 50.0)
    ]
    assert away == sorted(away, reverse=True)
    assert away[0] > 0.05
    assert away[-1] < 0.01


def test_domains_that_do_the_same_are_exchangeable() -> None:
    class Twins(PowerLaw):
        """The first two domains count as one."""

        def predict(self, mix_BK: Array, scale_B2: Array) -> Array:
            mix_BK = np.atleast_2d(mix_BK)
            return super().predict(np.stack([mix_BK[:, 0] + mix_BK[:, 1], mix_BK[:, 2]], axis=1), scale_B2)

        def gradient(self, mix_BK: Array, scale_B2: Array) -> Array:
            mix_BK = np.atleast_2d(mix_BK)
            both = super().gradient(np.stack([mix_BK[:, 0] + mix_BK[:, 1], mix_BK[:, 2]], axis=1), scale_B2)
            return both[:, :, [0, 0, 1]]

    law = Twins(np.ones(2), np.full(2, 0.3))
    objective = ObjectiveAtScale(law, (1, 1), np.full(2, 0.5))  # type: ignore[arg-type]
    polytope = Polytope.box([0] * 3, [1] * 3)
    optimum = minimise(objective, polytope)
    moved_KK = exchangeable(objective, polytope, optimum, 1e-4)
    assert moved_KK[0, 1] == pytest.approx(optimum.mixture_K[0], abs=1e-6)  # all of it
    assert moved_KK[0, 2] < 0.05  # the other domain is another matter


@pytest.mark.parametrize("seed", range(4))
def test_what_can_be_exchanged_keeps_to_guardrails_and_counts_the_pull(seed: int) -> None:
    """The largest exchange of each pair stays in the near-optimal set, of which it is a direction."""
    _, plain = problem(seed, 4, pull=0.05)
    prior_K, slack, polytope = np.array([0.7, 0.1, 0.1, 0.1]), 0.01, Polytope.box([0] * 4, [1] * 4)
    ceiling_M = np.array([np.inf, np.inf, np.inf, plain.losses(prior_K)[0, 3]])
    objective = replace(plain, prior_K=prior_K, ceiling_M=ceiling_M)
    optimum = minimise(objective, polytope)
    moved_KK = exchangeable(objective, polytope, optimum, slack)
    assert moved_KK.max() > 0.01
    for k, j in np.argwhere(moved_KK > 0):
        mix_K = optimum.mixture_K + moved_KK[k, j] * (np.eye(4)[j] - np.eye(4)[k])
        assert objective.levels(mix_K).max() <= objective.levels(optimum.mixture_K).max() + slack + 1e-9
        assert objective.rooms(mix_K).min() >= -1e-6
