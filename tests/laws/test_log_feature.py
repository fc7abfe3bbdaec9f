"""Log-feature laws: the formula, the choice of eps, and the closed-form leave-one-out behind it."""

import numpy as np
import pytest

from raymix.laws import LogFeature, LogFeatureJoint
from raymix.laws.exposure import points
from raymix.laws.fit import Prior, Problem, fit_map
from raymix.laws.log_feature import EPS_GRID, left_out_error


def test_log_feature_by_hand(given) -> None:
    """m = log 2, q = 1/4: c = 1.5, k = .5, exponents 4 a."""
    law = given(LogFeature(eps=0.05), [np.log(2.0), np.log(1 / 3), -0.1, 0.0], 2)
    law.center_K_ = np.array([0.45, 0.55])
    want = 1.5 + 0.5 * (0.25 + 0.05) ** -0.4 * 0.5**0.4
    assert law.predict([[0.25, 0.75]], (1e6, 1e9))[0, 0] == pytest.approx(want, rel=1e-13)


def test_log_feature_joint_by_hand(given) -> None:
    logs = np.log([0.8, 0.5, 0.6, 0.25])
    law = given(LogFeatureJoint(eps=0.05), [0.0, *logs, -0.2, 0.0, -0.3, 0.1], 2)
    phi = np.log([0.3 / 0.05, 0.8 / 0.05])
    want = 0.85 + 0.8 * 2**-0.5 * np.exp(-0.2 * phi[0]) + 0.6 * 4**-0.25 * np.exp(-0.3 * phi[0] + 0.1 * phi[1])
    assert law.predict([[0.25, 0.75]], (2e6, 4e9))[0, 0] == pytest.approx(want, rel=1e-13)


@pytest.mark.parametrize("eps", EPS_GRID)
def test_log_feature_finds_itself_and_its_eps(finds, eps: float) -> None:
    law = LogFeature()
    assert finds(law, lambda r, n, d: 1.5 + 0.8 * (r[:, 0] + eps) ** -0.4 * (r[:, 1] + eps) ** -0.1) < 0.01
    assert float(law.eps_) == eps


def test_joint_form_finds_itself(finds) -> None:
    def truth(r, n, d):
        return 1.5 + 0.4 * n**-0.3 * (r[:, 0] + 0.03) ** -0.2 + 0.5 * d**-0.35 * (r[:, 1] + 0.03) ** -0.3

    assert finds(LogFeatureJoint(), truth, sizes=(1e6, 3e6, 1e7), tokens=(5e8, 1e9, 2e9), n_mixtures=15) < 0.01


def test_left_out_error_is_that_of_refitting() -> None:
    """For a linear law and no outliers the closed form is exact; two rows per mixture are left out together."""
    rng = np.random.default_rng(0)
    x_Q = rng.uniform(size=6)
    mix_BK = np.repeat(np.column_stack([x_Q, 1 - x_Q]), 2, axis=0)
    y_B = 1 + 0.01 * mix_BK[:, 0] + 0.001 * rng.normal(size=12)
    jac_PB = np.stack([np.ones(12), mix_BK[:, 0]])
    prior = Prior(np.zeros((1, 2)), np.full((1, 2), 100.0))

    def problem(used_B):
        return Problem(lambda p, a, want: (p @ jac_PB, jac_PB[None] if want else None), y_B[None], used_B[None])

    whole = problem(np.ones(12))
    at = points(mix_BK, np.ones((12, 2)), 1.0, 1.0, merge=True)
    error = 0.0
    for rows in np.arange(12).reshape(6, 2):
        used_B = np.ones(12)
        used_B[rows] = 0.0
        params_1P = fit_map(problem(used_B), prior).params_MP
        error += float(((params_1P @ jac_PB)[0, rows] - y_B[rows]) @ ((params_1P @ jac_PB)[0, rows] - y_B[rows]))
    assert left_out_error(whole, fit_map(whole, prior), at) == pytest.approx(error, rel=1e-3)
