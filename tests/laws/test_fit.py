"""The solver: right optima, honest convergence, noise and pooling as documented."""

import numpy as np
import pytest

from raymix.laws import TiedUnion, fit
from raymix.laws.base import Array, Ints
from raymix.laws.fit import FIRST_SIG, HUBER, SIG_RANGE, Prior, Problem, fit_map, noise_by_evidence, pool, solve
from raymix.testing import synthetic_runs


def linear(design_BP: Array, target_MB: Array, used_MB: Array | None = None) -> Problem:
    """log L = design theta: the optimum is known in closed form."""

    def evaluate(params_AP: Array, active_A: Ints, jac: bool) -> tuple[Array, Array | None]:
        return params_AP @ design_BP.T, np.tile(design_BP.T, (len(params_AP), 1, 1)) if jac else None

    return Problem(evaluate, target_MB, np.ones_like(target_MB) if used_MB is None else used_MB)


def world(n_eval: int = 3, noise: float = 0.01) -> tuple[Array, Array, Prior]:
    rng = np.random.default_rng(0)
    design_BP = rng.normal(size=(40, 2))
    target_MB = rng.normal(size=(n_eval, 2)) @ design_BP.T + noise * rng.normal(size=(n_eval, 40))
    return design_BP, target_MB, Prior(np.zeros((n_eval, 2)), np.ones((n_eval, 2)))


def test_linear_problem_has_the_ridge_solution() -> None:
    """Residuals below 1.5 sig: (X'X/sig^2 + 1)^-1 X'y/sig^2."""
    design_BP, target_MB, prior = world(noise=0.001)
    found = solve(linear(design_BP, target_MB), prior, np.full(3, 0.01), prior.mean_MP)
    precision_PP = design_BP.T @ design_BP / 1e-4 + np.eye(2)
    want_MP = np.linalg.solve(precision_PP, design_BP.T @ target_MB.T / 1e-4).T
    assert found.converged_M.all()
    np.testing.assert_allclose(found.params_MP, want_MP, atol=1e-7)


def test_without_rows_the_prior_mean_stays() -> None:
    design_BP, target_MB, prior = world()
    found = solve(linear(design_BP, target_MB, np.zeros_like(target_MB)), prior, np.full(3, 0.01), prior.mean_MP)
    np.testing.assert_array_equal(found.params_MP, prior.mean_MP)
    assert found.converged_M.all()


def test_unused_rows_have_no_say() -> None:
    design_BP, target_MB, prior = world()
    used_MB = np.ones_like(target_MB)
    used_MB[0, :10] = 0
    spoilt_MB = np.where(used_MB == 0, 99.0, target_MB)
    one, other = (fit_map(linear(design_BP, y, used_MB), prior) for y in (target_MB, spoilt_MB))
    np.testing.assert_array_equal(one.params_MP, other.params_MP)


def test_huber_optimum_balances_clipped_residuals() -> None:
    """One outlier of 1000 sig pulls as hard as one of 1.5 sig: psi sums to the prior's pull."""
    target_MB = np.array([[0.0, 0.0, 0.0, 0.0, 10.0]])
    prior = Prior(np.zeros((1, 1)), np.full((1, 1), 1e3))
    found = solve(linear(np.ones((5, 1)), target_MB), prior, np.array([0.01]), prior.mean_MP)
    assert found.params_MP[0, 0] == pytest.approx(HUBER * 0.01 / 4, rel=1e-4)


def test_noise_level_is_found() -> None:
    """sig of 1% noise within 25% (40 rows: sampling sd 11%), and clipped where the fit is perfect."""
    design_BP, target_MB, prior = world(noise=0.01)
    np.testing.assert_allclose(fit_map(linear(design_BP, target_MB), prior).sig_M, 0.01, rtol=0.25)
    design_BP, target_MB, prior = world(noise=0.0)
    np.testing.assert_array_equal(fit_map(linear(design_BP, target_MB), prior).sig_M, SIG_RANGE[0])


def test_evidence_counts_the_parameters_that_the_data_decide() -> None:
    """8 rows, 6 parameters: held by their priors they leave 8 residuals to tell the noise, free ones 2."""
    rng = np.random.default_rng(0)
    problem = linear(rng.normal(size=(8, 6)), 0.02 * rng.normal(size=(1, 8)))
    for sd, left in ((1e-6, 8), (1e3, 2)):
        found = solve(problem, Prior(np.zeros((1, 6)), np.full((1, 6), sd)), np.array([0.02]), np.zeros((1, 6)))
        rss = float(np.sum((problem.evaluate(found.params_MP, np.arange(1), False)[0] - problem.target_MB) ** 2))
        assert SIG_RANGE[0] < np.sqrt(rss / left) < SIG_RANGE[1]
        np.testing.assert_allclose(noise_by_evidence(problem, found), np.sqrt(rss / left), rtol=1e-4)


def test_hessian_is_that_of_the_map_problem() -> None:
    design_BP, target_MB, prior = world(noise=1e-4)
    found = fit_map(linear(design_BP, target_MB), prior)
    want_PP = design_BP.T @ design_BP / SIG_RANGE[0] ** 2 + np.eye(2)
    np.testing.assert_allclose(found.hessian_MPP, np.tile(want_PP, (3, 1, 1)), rtol=1e-12)


def test_pooled_prior_is_mean_and_clipped_spread() -> None:
    prior = Prior(np.zeros((3, 3)), np.array([[2.0, 0.1, 1.0]] * 3))
    params_MP = np.array([[1.0, 5.0, 0.0], [1.1, 5.0, 9.0], [1.2, 5.0, 18.0]])
    pooled = pool(prior, params_MP, np.array([0, 1, 2]))
    np.testing.assert_allclose(pooled.mean_MP[0], [1.1, 5.0, 9.0])
    np.testing.assert_allclose(pooled.sd_MP[0], [0.15, 0.1, 1.0])  # floor; never above the prior's own


def test_eval_domains_do_not_influence_each_other() -> None:
    """Fitted together or alone, to the rounding of the linear algebra."""
    design_BP, target_MB, prior = world()
    together = fit_map(linear(design_BP, target_MB), prior).params_MP
    for m in range(3):
        alone = fit_map(linear(design_BP, target_MB[m : m + 1]), Prior(prior.mean_MP[:1], prior.sd_MP[:1]))
        np.testing.assert_allclose(alone.params_MP[0], together[m], rtol=1e-9)


def test_non_finite_region_is_stepped_back_from() -> None:
    """log L = exp(theta) overflows for large steps; the solver shortens them."""

    def evaluate(params_AP: Array, active_A: Ints, jac: bool) -> tuple[Array, Array | None]:
        value_AB = np.exp(params_AP) - np.where(params_AP < -1, np.nan, 0.0)
        return value_AB, value_AB[:, :, None] if jac else None

    prior = Prior(np.array([[3.0]]), np.array([[10.0]]))
    found = solve(Problem(evaluate, np.array([[1.0]]), np.ones((1, 1))), prior, np.array([FIRST_SIG]), prior.mean_MP)
    assert found.converged_M.all()
    assert found.params_MP[0, 0] == pytest.approx(0.0, abs=1e-4)


def valley(params_AP: Array, active_A: Ints, want_jacobian: bool) -> tuple[Array, Array | None]:
    """Rosenbrock's, with its optimum at (1, 1)."""
    x_A, y_A = params_AP.T
    log_AB = np.stack([10 * (y_A - x_A**2), x_A], axis=1)
    one_A, none_A = np.ones_like(x_A), np.zeros_like(x_A)
    return log_AB, np.stack([np.stack([-20 * x_A, one_A], axis=1), np.stack([10 * one_A, none_A], axis=1)], axis=1)


VALLEY = Problem(valley, np.array([[0.0, 1.0]] * 2), np.ones((2, 2)))
IN_AND_OUT = np.array([[-1.2, 1.0], [1.0, 1.0]])  # starts: far along the valley, and at its optimum


def test_a_damping_worn_down_by_easy_ground_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The curved valley of Rosenbrock needs a lambda near 1; the twelve tries of one iteration end far below it."""
    monkeypatch.setattr(fit, "DAMPING", 1e-12)
    found = solve(VALLEY, Prior(IN_AND_OUT, np.full((2, 2), 1e4)), np.ones(2), IN_AND_OUT)
    assert found.converged_M.all()
    np.testing.assert_allclose(found.params_MP, 1, atol=1e-3)


def test_who_runs_out_of_iterations_has_not_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "MAX_ITERATIONS", 5)
    found = solve(VALLEY, Prior(IN_AND_OUT, np.full((2, 2), 1e4)), np.ones(2), IN_AND_OUT)
    assert found.converged_M.tolist() == [False, True]
    assert found.n_iter == 5
    law = synthetic_runs().fit(TiedUnion())
    assert not any("converge" in note for note in law.notes_)
    monkeypatch.setattr(fit, "MAX_ITERATIONS", 1)
    assert "eval domain 0: the fit did not converge" in synthetic_runs().fit(TiedUnion()).notes_


def test_who_finds_no_step_down_has_not_converged_and_stays() -> None:
    """Slopes of the wrong sign lead up, however short the step."""

    def evaluate(params_AP: Array, active_A: Ints, want_jacobian: bool) -> tuple[Array, Array | None]:
        sign_A11 = np.where(active_A == 0, -1.0, 1.0)[:, None, None]
        return np.tile(params_AP, 40), np.tile(sign_A11, (1, 1, 40)) if want_jacobian else None

    problem = Problem(evaluate, np.full((2, 40), 0.01), np.ones((2, 40)))
    prior = Prior(np.zeros((2, 1)), np.ones((2, 1)))
    found = solve(problem, prior, np.full(2, SIG_RANGE[0]), prior.mean_MP)
    assert found.converged_M.tolist() == [False, True]
    assert found.params_MP[:, 0] == pytest.approx([0.0, 0.01], abs=1e-6)
