"""How sure a fit is: mixtures left out without refitting, and intervals that hold what they promise with few runs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from raymix.laws import EffectiveData, TiedUnion
from raymix.laws.base import Array, Ints, changed
from raymix.laws.fit import Prior, Problem, Solution, residuals, solve, with_curvature
from raymix.laws.intervals import Z90, alike, beyond, clustered, left_out, log_sd, log_sd_between, misfit_sig
from raymix.testing import synthetic_runs


def linear(n_rows: int = 12, n_params: int = 3) -> tuple[Problem, Prior, Array]:
    """log L = J theta with small residuals, so that Huber weights are 1 and the first order is exact."""
    rng = np.random.default_rng(0)
    jac_1PB = rng.normal(size=(1, n_params, n_rows))

    def evaluate(params_AP: Array, active_A: Ints, want: bool) -> tuple[Array, Array | None]:
        return np.einsum("ap,apb->ab", params_AP, jac_1PB), jac_1PB if want else None

    target_1B = np.ones((1, n_params, 1))[:, :, 0] @ jac_1PB[0] + 0.3 * rng.uniform(-1, 1, size=(1, n_rows))
    prior = Prior(np.zeros((1, n_params)), np.full((1, n_params), 2.0))
    return Problem(evaluate, target_1B, np.ones_like(target_1B)), prior, jac_1PB


def solved(problem: Problem, prior: Prior) -> Solution:
    return with_curvature(problem, solve(problem, prior, np.array([0.5]), prior.mean_MP))


def test_left_out_equals_a_fit_without_those_rows() -> None:
    problem, prior, jac_1PB = linear()
    solution, group_B = solved(problem, prior), np.repeat([0, 1, 2, 3, 4], [1, 2, 4, 2, 3])
    less_M, sig_M = np.array([1.0]), np.array([0.5])
    z_1B = left_out(problem, solution, clustered(solution, less_M), sig_M, less_M, group_B)
    for group in range(5):
        out_B = group_B == group
        part = solved(replace(problem, used_MB=(~out_B[None]).astype(float)), prior)
        log_1B, _ = problem.evaluate(part.params_MP, np.array([0]), False)
        want_1B = (log_1B - problem.target_MB) / log_sd(jac_1PB, clustered(part, less_M), sig_M)
        np.testing.assert_allclose(z_1B[:, out_B], want_1B[:, out_B], rtol=1e-4)


def test_rows_of_a_run_count_as_one() -> None:
    """Every row three times, as three checkpoints that say the same: no surer of the parameters."""
    problem, prior, _ = linear()

    def evaluate(params_AP: Array, active_A: Ints, want: bool) -> tuple[Array, Array | None]:
        log_AB, jac_APB = problem.evaluate(params_AP, active_A, want)
        return np.tile(log_AB, 3), None if jac_APB is None else np.tile(jac_APB, 3)

    thrice = Problem(evaluate, np.tile(problem.target_MB, 3), np.tile(problem.used_MB, 3))
    once_1PP = clustered(solved(problem, prior), np.array([1.0]))
    np.testing.assert_allclose(clustered(solved(thrice, prior), np.array([3.0])), once_1PP)


def test_the_noise_is_that_of_rows_used_less_half_the_parameters() -> None:
    problem, prior, _ = linear()
    used_1B = (np.arange(12) >= 4).astype(float)[None]
    part = replace(problem, used_MB=used_1B, target_MB=np.where(used_1B > 0, problem.target_MB, 99.0))
    solution = replace(solved(part, prior), sig_M=np.array([0.01]))  # below what the residuals say
    square = float((residuals(part, solution)[0, 4:] ** 2).sum())
    assert misfit_sig(part, solution)[0] == pytest.approx(np.sqrt(square / (8 - 3 / 2)))


def test_what_two_mixtures_share_by_hand() -> None:
    """At a Hellinger distance of .2, which is ell, exp(-1/2)."""
    one_BK, other_BK = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.98**2, 1 - 0.98**2], [0.5, 0.5]])
    np.testing.assert_allclose(alike(one_BK, other_BK), [np.exp(-0.5), 1.0])


def test_the_sd_of_a_difference_by_hand() -> None:
    """Parameters .3 times a change of slope of 1, and a quarter of sig^2; then all of it, where slopes are alike."""
    jac_112, other_112 = np.array([[[2.0, 1.0]]]), np.array([[[1.0, 1.0]]])
    sd_12 = log_sd_between(jac_112, other_112, np.array([[[0.09]]]), np.array([0.2]), np.array([0.75, 0.0]))
    np.testing.assert_allclose(sd_12, [[np.sqrt(0.09 + 0.01), 0.2]])


def test_the_factor_of_a_fit_widens_losses_and_differences() -> None:
    runs = synthetic_runs(n_mixtures=4)
    law = runs.fit(TiedUnion())
    wide = changed(law, widen_=2 * law.widen_)
    at = runs.mix_BK, runs.scale_B2
    np.testing.assert_allclose(wide.sd(*at), 2 * law.sd(*at))
    between = runs.mix_BK[::-1], *at
    np.testing.assert_allclose(wide.sd_between(*between), 2 * law.sd_between(*between))


def test_factor_is_larger_outside_the_scales_seen() -> None:
    seen_22 = np.array([[1e7, 1e9], [1e8, 1e10]])
    scale_B2 = np.array([[5e7, 5e9], [5e8, 5e9], [5e7, 5e10]])
    np.testing.assert_array_equal(beyond(scale_B2, seen_22, 0.9), [0.9, 1.5, 1.5])
    np.testing.assert_array_equal(beyond(scale_B2, seen_22, 1.8), [1.8, 1.8, 1.8])
    np.testing.assert_array_equal(beyond(scale_B2, seen_22, 0.9, 1.25), [0.9, 1.25, 1.25])
    assert beyond(np.array([[1.001e8, 5e9]]), seen_22, 0.9)[0] < 0.91, "no interval jumps for a hair of a scale"


@pytest.mark.parametrize(("n_runs", "n_eval"), [(8, 1), (16, 1), (16, 3), (48, 3)])
def test_a_difference_is_as_sure_as_it_errs(n_runs: int, n_eval: int) -> None:
    """Of 60 differences 90% intervals hold 80% or more (a standard error of 4%), twelve mean errors wide or less.

    A normal error of the sd promised would make them 4.1 mean errors wide.
    """
    half, error = [], []
    for seed in range(15):
        runs = synthetic_runs(n_mixtures=n_runs + 5, n_domains=3, sizes=(6e7,), tokens=(1e9,), noise=0.005, seed=seed)
        seen, new = runs.take(np.arange(n_runs)), runs.take(np.arange(n_runs, n_runs + 5))
        law = TiedUnion().fit(seen.mix_BK, seen.scale_B2, seen.loss_BM[:, :n_eval], seen.run_B, seen.own_M[:n_eval])
        wrong_BM = np.log(law.predict(new.mix_BK, new.scale_B2) / new.truth_BM[:, :n_eval])
        first_BK = np.repeat(new.mix_BK[:1], 4, axis=0)
        half.append(Z90 * law.sd_between(new.mix_BK[1:], first_BK, new.scale_B2[1:]))
        error.append(np.abs(wrong_BM[1:] - wrong_BM[0]))
    assert np.mean(np.array(error) <= np.array(half)) >= 0.8
    assert 2 * np.mean(half) <= 12 * np.mean(error)


def test_a_difference_beyond_the_scales_is_as_sure_as_it_errs() -> None:
    """Two sizes and three lengths of 8 mixtures, read at 25 times the size and 16 times the tokens for 5 others.

    Of 60 differences 80% or more inside (of 90% promised, a standard error of 4%), ten mean errors wide or less.
    """
    half, error = [], []
    for seed in range(15):
        some: dict[str, Any] = {"n_mixtures": 13, "n_domains": 3, "noise": 0.005, "seed": seed}
        runs = synthetic_runs(sizes=(2e7, 6e7), tokens=(5e8, 1e9, 2e9), **some)
        new = synthetic_runs(sizes=(1.5e9,), tokens=(3.2e10,), **some).take(np.arange(8, 13))
        seen = runs.take(np.flatnonzero(runs.run_B < 16))  # two runs of a mixture
        law = TiedUnion().fit(seen.mix_BK, seen.scale_B2, seen.loss_BM, seen.run_B, seen.own_M)
        wrong_BM = np.log(law.predict(new.mix_BK, new.scale_B2) / new.truth_BM)
        half.append(Z90 * law.sd_between(new.mix_BK[1:], new.mix_BK[[0] * 4], new.scale_B2[1:]))
        error.append(np.abs(wrong_BM[1:] - wrong_BM[0]))
    assert np.mean(np.array(error) <= np.array(half)) >= 0.8
    assert 2 * np.mean(half) <= 10 * np.mean(error)


@pytest.mark.parametrize("make", [TiedUnion, EffectiveData])
@pytest.mark.parametrize("noise", [0.004, 0.02])
def test_interval_holds_with_few_runs(make: type[TiedUnion | EffectiveData], noise: float) -> None:
    """10 runs at one scale, 13 parameters or more; 15 worlds of 10 new runs: at least 80% inside (of 90% promised)."""
    inside = []
    for seed in range(15):
        runs = synthetic_runs(n_mixtures=20, sizes=(6e7,), tokens=(1e9,), noise=noise, seed=seed)
        new_B = runs.run_B >= 10
        law, test = runs.take(np.flatnonzero(~new_B)).fit(make()), runs.take(np.flatnonzero(new_B))
        error_BM = np.log(law.predict(test.mix_BK, test.scale_B2) / test.loss_BM)
        inside.append((np.abs(error_BM) <= Z90 * law.sd(test.mix_BK, test.scale_B2)).mean())
    assert 0.8 <= np.mean(inside) <= 0.99


def test_one_absurd_loss_says_nothing_about_the_noise() -> None:
    runs = synthetic_runs(n_mixtures=40, sizes=(6e7,), tokens=(1e9,), noise=0.01, seed=0)
    clean = runs.fit(TiedUnion()).sd(runs.mix_BK, runs.scale_B2)
    loss_BM = runs.loss_BM.copy()
    loss_BM[7, 0] *= 1e4
    odd = replace(runs, loss_BM=loss_BM).fit(TiedUnion()).sd(runs.mix_BK, runs.scale_B2)
    assert (odd < 2 * clean).all()
