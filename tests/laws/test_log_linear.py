"""The log-linear law: m4 with the level inside the slopes, or plain regression of log loss."""

import numpy as np
import pytest

from raymix.laws import M4, LogLinear
from raymix.testing import world


def test_plain_log_linear_by_hand(given) -> None:
    law = given(LogLinear(floor=False), [np.log(2.0), -0.5, 0.25], 2)
    law.center_K_ = np.array([0.5, 0.5])
    assert law.predict([[0.25, 0.75]], (1e6, 1e9))[0, 0] == pytest.approx(2 * np.exp(3 * 0.0625), rel=1e-13)


def test_plain_log_linear_finds_itself(finds) -> None:
    assert finds(LogLinear(floor=False), lambda r, n, d: np.exp(r @ np.array([0.8, 1.0, 1.2]))) < 0.005


def test_with_a_floor_it_is_m4() -> None:
    runs = world(sizes=(6e7,), tokens=(1e9,))()
    want = runs.fit(M4()).predict(runs.mix_BK, runs.scale_B2)
    np.testing.assert_array_equal(runs.fit(LogLinear()).predict(runs.mix_BK, runs.scale_B2), want)
