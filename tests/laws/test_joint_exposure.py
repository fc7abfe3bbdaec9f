"""The joint law: exposure, and what a repeated token is worth."""

import numpy as np
import pytest

from raymix.laws import JointExposure

THETA = [0.0, *np.log([0.8, 0.5, 0.6, 0.25]), *np.log([2.0, 1.0]), *np.log([1.0, 0.5])]
SIZE = 0.85 + 0.8 * (2 * (2 * 0.25 + 0.75)) ** -0.5


def test_joint_by_hand(given) -> None:
    law = given(JointExposure(), THETA, 2)
    want = SIZE + 0.6 * (4 * (0.25 + 0.5 * 0.75)) ** -0.25
    assert law.predict([[0.25, 0.75]], (2e6, 4e9))[0, 0] == pytest.approx(want, rel=1e-13)


def test_repetition_by_hand(given) -> None:
    """1e9 tokens of 2.5e8 unique: 3 repeats are worth R* (1 - exp(-3 / R*)) = 2.7259 epochs; 3e9 of 3e9: all."""
    law = given(JointExposure(), THETA, 2)
    law.unique_K = (2.5e8, 3e9)
    want = SIZE + 0.6 * (0.25 * (1 + 2.7259) + 0.5 * 3) ** -0.25
    assert law.predict([[0.25, 0.75]], (2e6, 4e9))[0, 0] == pytest.approx(want, rel=1e-5)


def test_gradient_knows_repetition(given) -> None:
    law = given(JointExposure(), THETA, 2)
    law.unique_K = (2.5e8, 3e9)
    mix, h = np.array([[0.25, 0.75]]), 1e-5
    step = np.array([h, -h])
    slope = (law.predict(mix + step, (2e6, 4e9)) - law.predict(mix - step, (2e6, 4e9)))[0, 0] / (2 * h)
    assert law.gradient(mix, (2e6, 4e9))[0, 0] @ [1, -1] == pytest.approx(slope, rel=1e-5)


def test_joint_stays_convex_under_repetition(given) -> None:
    law = given(JointExposure(), THETA, 2)
    law.unique_K = (2.5e8, 5e8)
    share = np.linspace(0, 1, 201)
    loss = law.predict(np.column_stack([share, 1 - share]), (2e6, 4e9))[:, 0]
    assert (np.diff(loss, 2) > -1e-12).all()


def test_joint_finds_itself(finds) -> None:
    u, tau = np.array([1.0, 0.4, 0.1]), np.array([1.0, 0.3, 0.1])

    def truth(r, n, d):
        return 1.5 + 0.4 * (n * (r @ u)) ** -0.3 + 0.5 * (d * (r @ tau)) ** -0.35

    law = JointExposure()
    assert finds(law, truth, sizes=(1e6, 3e6, 1e7), tokens=(5e8, 1e9, 2e9), n_mixtures=15, own=0) < 0.01


@pytest.mark.parametrize("unique", [(1e9,), (1e9, 0.0)])
def test_unique_tokens_must_fit_the_domains(unique: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"unique_K must be 2 numbers of tokens > 0"):
        JointExposure(unique_K=unique).fit([[0.5, 0.5]], [[1e6, 1e9]], [[3.0]])
