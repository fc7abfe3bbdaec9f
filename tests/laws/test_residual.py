"""The residual process: exact gradients, and it helps where the law's family is wrong."""

from functools import partial

import numpy as np

from raymix.laws import ResidualGP, TiedUnion
from raymix.laws.process import PRIOR_MEAN_H, Sites, hyper_cost, parts_of
from raymix.laws.rows import whole_runs
from raymix.testing import synthetic_runs


def test_hyper_parameter_gradient_is_exact() -> None:
    rng = np.random.default_rng(0)
    sites = Sites(rng.random((30, 4)), rng.normal(size=(30, 2)), np.arange(30) // 3)
    used_MR = rng.random((3, 30)) < 0.8
    residual_MR = rng.normal(size=(3, 30)) * used_MR
    hyper_H = PRIOR_MEAN_H + 0.2 * rng.normal(size=7)
    cost = partial(hyper_cost, parts=parts_of(sites, residual_MR, used_MR), n_eval=3)
    _, slope_H = cost(hyper_H)
    for step_H, slope in zip(1e-6 * np.eye(7), slope_H, strict=True):
        ahead, behind = (cost(hyper_H + side * step_H)[0] for side in (1, -1))
        assert abs((ahead - behind) / 2e-6 - slope) < 1e-6


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
