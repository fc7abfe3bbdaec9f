"""The additive and the joint law of optimal data mixtures."""

import numpy as np
import pytest

from raymix.laws import AppleAdditive, AppleJoint

SCALARS = [0.0, *np.log([0.8, 0.5, 0.6, 0.25])]
MIXTURE = [*np.log([2.0, 1.0]), 0.0, 0.0]  # C, logit g
AT = (np.array([[0.25, 0.75]]), (2e6, 4e9))


def test_additive_by_hand(given) -> None:
    law = given(AppleAdditive(), [*SCALARS, *MIXTURE], 2)
    want = 0.85 + 1 / (2 * 0.5 + np.sqrt(0.75)) + 0.8 * 2**-0.5 + 0.6 * 4**-0.25
    assert law.predict(*AT)[0, 0] == pytest.approx(want, rel=1e-13)


def test_joint_by_hand(given) -> None:
    theta = [*SCALARS, *MIXTURE, -0.5, *np.log([1.0, 3.0]), 2.0, *np.log([2.0, 1.0])]
    law = given(AppleJoint(), theta, 2)
    want = 0.85 + 1 / (1 + np.sqrt(0.75)) + 0.8 * 2.5**-0.5 * 2**-0.5 + 0.6 * 1.25**2 * 4**-0.25
    assert law.predict(*AT)[0, 0] == pytest.approx(want, rel=1e-13)


def test_additive_finds_itself(finds) -> None:
    def truth(r, n, d):
        return 1.2 + 1 / (r**0.5 @ np.array([2.0, 0.8, 0.3])) + 0.3 * n**-0.35 + 0.4 * d**-0.35

    assert finds(AppleAdditive(), truth, sizes=(1e6, 3e6, 1e7), tokens=(5e8, 1e9, 2e9), n_mixtures=15) < 0.01


def test_joint_finds_itself(finds) -> None:
    def truth(r, n, d):
        size, data = (r @ np.array([1.0, 0.4, 0.2])) ** -0.4, (r @ np.array([0.2, 1.0, 0.4])) ** -0.5
        return 1.2 + 1 / (r**0.5 @ np.array([2.0, 0.8, 0.3])) + 0.3 * size * n**-0.35 + 0.4 * data * d**-0.35

    assert finds(AppleJoint(), truth, sizes=(1e6, 3e6, 1e7), tokens=(5e8, 1e9, 2e9), n_mixtures=15) < 0.01


def test_additive_optimum_does_not_move_with_scale(given) -> None:
    law = given(AppleAdditive(), [*SCALARS, *MIXTURE], 2)
    slope = [law.gradient(AT[0], scale)[0, 0] for scale in ((1e6, 1e9), (1e9, 1e12))]
    np.testing.assert_allclose(slope[0], slope[1], rtol=1e-13)
