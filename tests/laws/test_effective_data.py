"""The effective data law: its formula, and that a saturating share is found."""

import numpy as np
import pytest

from raymix.laws import EffectiveData

R = np.array([[0.25, 0.75, 0.0]])


def test_effective_data_by_hand(given) -> None:
    law = given(EffectiveData(), [0.0, *np.log([0.8, 0.5]), 0.0, np.log(0.1), *np.log([1.0, 0.5, 9.0])], 3)
    want = 0.85 + 0.8 * (0.1 + 0.5 + 0.5 * np.sqrt(0.75)) ** -0.5
    assert law.predict(R, (1e6, 1e9))[0, 0] == pytest.approx(want, rel=1e-13)


def test_effective_data_finds_itself(finds) -> None:
    weight = np.array([1.0, 0.2, 0.05])
    assert finds(EffectiveData(), lambda r, n, d: 1.2 + 0.8 * (0.03 + r**0.6 @ weight) ** -0.3, own=0) < 0.01
