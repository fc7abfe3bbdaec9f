"""Draws of a law's parameters: their covariance is the one given, and LAPACK's moods do not end a study."""

from typing import NoReturn

import numpy as np
import pytest

from raymix.laws.posterior import SHARED, draw_params

COVARIANCE_MPP = np.stack([np.diag([4.0, 1.0, 0.25]) + 0.2, np.full((3, 3), 0.5)])  # the second is of rank one


def draws(n: int) -> np.ndarray:
    return draw_params(np.zeros((2, 3)), COVARIANCE_MPP, n, np.random.default_rng(0))


def test_the_covariance_of_draws_is_the_one_given() -> None:
    drawn_SMP = draws(20_000)  # a standard error of 1% of a variance
    for drawn_SP, covariance_PP in zip(drawn_SMP.transpose(1, 0, 2), COVARIANCE_MPP, strict=True):
        assert np.cov(drawn_SP.T) == pytest.approx(covariance_PP, abs=0.15)
    first, second = drawn_SMP[:, 0, 2], drawn_SMP[:, 1, 2]
    assert 0.5 * SHARED < np.corrcoef(first, second)[0, 1] < 1.2 * SHARED


def test_draws_are_the_same_where_divide_and_conquer_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    def gives_up(matrix: object) -> NoReturn:
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    as_usual = draws(8)
    monkeypatch.setattr(np.linalg, "eigh", gives_up)
    assert draws(8) == pytest.approx(as_usual, abs=1e-7)  # the root of a zero eigenvalue is that of its rounding
