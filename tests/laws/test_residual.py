"""The residual process: exact gradients, and it helps where the law's family is wrong."""

from functools import partial

import numpy as np
import pytest

from raymix.laws import ResidualGP, TiedUnion
from raymix.laws.process import (
    AT_ONCE,
    LEAST,
    PRIOR_MEAN_H,
    Mean,
    Sites,
    by_rows_used,
    hyper_cost,
    mixture_kernel,
    scale_kernel,
    solve,
    stretches,
)
from raymix.laws.rows import whole_runs
from raymix.testing import synthetic_runs


def test_hyper_parameter_gradient_is_exact() -> None:
    rng = np.random.default_rng(0)
    sites = Sites(rng.random((30, 4)), rng.normal(size=(30, 2)), np.arange(30) // 3)
    used_MR = rng.random((3, 30)) < 0.8
    residual_MR = rng.normal(size=(3, 30)) * used_MR
    hyper_H = PRIOR_MEAN_H + 0.2 * rng.normal(size=7)
    cost = partial(hyper_cost, parts=by_rows_used(sites, residual_MR, used_MR), n_eval=3)
    _, slope_H = cost(hyper_H)
    for step_H, slope in zip(1e-6 * np.eye(7), slope_H, strict=True):
        ahead, behind = (cost(hyper_H + side * step_H)[0] for side in (1, -1))
        assert abs((ahead - behind) / 2e-6 - slope) < 1e-6


@pytest.mark.parametrize("alike", [False, True])
def test_mean_of_all_eval_domains_at_once_is_that_of_each(alike: bool) -> None:
    """Value by the kernel of each eval domain, slope by differences; of more queries than are read at once."""
    rng = np.random.default_rng(1)
    phi_RK, log_R2, alpha_RM = rng.random((40, 5)), rng.normal(size=(40, 2)), rng.normal(size=(40, 3))
    stretch_MK = np.ones((3, 5)) if alike else rng.uniform(0.3, 2, (3, 5))
    hyper_H = PRIOR_MEAN_H + 0.2 * rng.normal(size=7)
    mean = Mean(Sites(phi_RK, log_R2, np.arange(40)), hyper_H, stretch_MK, alpha_RM)
    n = AT_ONCE // (3 * 40) + 10
    phi_BK, log_B2 = rng.random((n, 5)), rng.normal(size=(n, 2))
    g_BM, slope_BMK = mean.value_and_slope(phi_BK, log_B2)
    near_BR = scale_kernel(log_B2, log_R2, hyper_H)
    for m, v_K in enumerate(stretch_MK):
        want_B = (mixture_kernel(phi_BK * v_K, phi_RK * v_K, hyper_H) * near_BR) @ alpha_RM[:, m]
        np.testing.assert_allclose(g_BM[:, m], want_B, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(mean.value(phi_BK, log_B2), g_BM, rtol=1e-10, atol=1e-12)
    for k, step_K in enumerate(1e-6 * np.eye(5)):
        ahead_BM, behind_BM = (mean.value(phi_BK + side * step_K, log_B2) for side in (1, -1))
        np.testing.assert_allclose(slope_BMK[..., k], (ahead_BM - behind_BM) / 2e-6, atol=1e-5)


@pytest.mark.parametrize("alike", [False, True])
def test_without_noise_the_process_goes_through_what_it_saw(alike: bool) -> None:
    """What is learned and what is read have one kernel."""
    rng = np.random.default_rng(2)
    sites = Sites(rng.random((25, 4)), rng.normal(size=(25, 2)), np.arange(25))
    stretch_MK = np.ones((2, 4)) if alike else rng.uniform(0.5, 2, (2, 4))
    residual_MR, hyper_H = rng.normal(size=(2, 25)), PRIOR_MEAN_H + 0.2 * rng.normal(size=7)
    hyper_H[5:] = np.log(1e-9)  # of a run and of a row
    alpha_RM = solve(sites, hyper_H, residual_MR, np.ones((2, 25), bool), stretch_MK)
    read_BM = Mean(sites, hyper_H, stretch_MK, alpha_RM).value(sites.phi_RK, sites.log_scale_R2)
    np.testing.assert_allclose(read_BM, residual_MR.T, atol=1e-5)


def test_process_removes_a_bias_the_law_cannot_express() -> None:
    """A bump of 5% where two shares are balanced: the error at new mixtures falls by a quarter or more."""
    runs = synthetic_runs(n_mixtures=60, sizes=(6e7,), tokens=(1e9,))
    bump_B = 0.05 * np.exp(-((runs.mix_BK[:, 0] - runs.mix_BK[:, 1]) ** 2) / 0.02)
    loss_BM, truth_BM = (x * np.exp(bump_B)[:, None] for x in (runs.loss_BM, runs.truth_BM))
    train, test = slice(0, 40), slice(40, 60)
    errors = []
    for law in (TiedUnion(), ResidualGP(TiedUnion())):
        law.fit(runs.mix_BK[train], runs.scale_B2[train], loss_BM[train], runs.run_B[train], runs.own_M)
        pred_BM = law.predict(runs.mix_BK[test], runs.scale_B2[test])
        errors.append(np.abs(np.log(pred_BM / truth_BM[test])).mean())
    assert errors[1] < 0.75 * errors[0]


def test_few_runs_of_many_domains_tell_a_bias_along_the_one_that_matters() -> None:
    """40 runs of ten domains, four losses that each depend on one domain and have a bump there: where all domains were
    looked at alike the process removed nothing of the law's error, now a third and more (measured: .43 to .54)."""
    rng = np.random.default_rng(0)
    mix_BK, scale_B2, own_M = rng.dirichlet(np.full(10, 0.4), 150), np.tile([6e7, 1e9], (150, 1)), np.arange(4)
    own_BM = mix_BK[:, own_M]
    truth_BM = 2 + (own_BM + 0.02) ** -0.25 * np.exp(0.1 * np.exp(-((own_BM - 0.25) ** 2) / 0.01))
    loss_BM = truth_BM * np.exp(0.003 * rng.normal(size=truth_BM.shape))
    law = ResidualGP(TiedUnion()).fit(mix_BK[:40], scale_B2[:40], loss_BM[:40], np.arange(40), own_M)
    assert (law.stretch_MK_.argmax(axis=1) == own_M).all()
    test = mix_BK[40:], scale_B2[40:]
    without, with_it = (np.abs(np.log(each.predict(*test) / truth_BM[40:])).mean() for each in (law.law_, law))
    assert with_it < 0.67 * without


def test_stretches_have_mean_square_one_and_leave_no_domain_out() -> None:
    stretch_MK = stretches(np.array([[1.0, 0.0, 0.5], [0.0, 0.0, 0.0]]))
    assert np.allclose((stretch_MK**2).mean(axis=1), 1)
    assert stretch_MK[0, 0] > stretch_MK[0, 2] > stretch_MK[0, 1] > 0.5 * LEAST
    assert np.allclose(stretch_MK[1], 1)  # a law that no share moves tells nothing


def test_process_does_little_harm_where_the_law_is_right() -> None:
    """In the law's own family it adds less than .1% of mean error."""
    runs = synthetic_runs(n_mixtures=24)
    train, test = runs.take(np.flatnonzero(runs.run_B < 48)), runs.take(np.flatnonzero(runs.run_B >= 48))
    errors = []
    for law in (TiedUnion(), ResidualGP()):
        pred_BM = train.fit(law).predict(test.mix_BK, test.scale_B2)
        errors.append(np.abs(np.log(pred_BM / test.truth_BM)).mean())
    assert errors[1] < errors[0] + 0.001


def test_settings_of_the_base_are_kept_and_not_fitted() -> None:
    base = TiedUnion(pool=False)
    law = synthetic_runs().fit(ResidualGP(base))
    assert isinstance(law, ResidualGP)
    assert law.law_.to_json()["settings"]["pool"] is False
    assert not hasattr(base, "params_MP_")


def test_row_cap_keeps_runs_whole() -> None:
    run_B = np.repeat(np.arange(50), 3)
    rows = whole_runs(run_B, 60)
    assert len(rows) <= 60
    assert (np.bincount(run_B[rows], minlength=50) % 3 == 0).all()
