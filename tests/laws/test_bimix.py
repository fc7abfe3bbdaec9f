"""BiMix: two power laws, multiplied, in the own share and in tokens."""

import numpy as np
import pytest

from raymix.laws import BiMix

THETA = np.log([0.6, 0.25, 1.4, 0.5, 0.01])  # A B, beta, A C, alpha, e


def test_bimix_by_hand(given) -> None:
    law = given(BiMix(), THETA, 2, own=0)
    want = (0.24 + 0.01) ** -0.5 * (0.6 * 4**-0.25 + 1.4)
    assert law.predict([[0.24, 0.76]], (2e6, 4e9))[0, 0] == pytest.approx(want, rel=1e-13)


def test_bimix_finds_itself(finds) -> None:
    def truth(r, n, d):
        return 1.8 * (r[:, 0] + 0.01) ** -0.1 * (0.4 * d**-0.4 + 1.2)

    assert finds(BiMix(), truth, tokens=(5e8, 1e9, 2e9), own=0) < 0.01


def test_an_eval_domain_without_its_own_ignores_the_mixture() -> None:
    mix = [[0.2, 0.8], [0.2, 0.8], [0.6, 0.4], [0.6, 0.4]]
    scale = np.array([[1e7, 1e9], [1e7, 2e9], [1e7, 1e9], [1e7, 2e9]])
    law = BiMix().fit(mix, scale, [[3.0, 3.0], [2.9, 2.9], [2.5, 2.5], [2.4, 2.4]], own_M=[-1, 0])
    assert [note for note in law.notes_ if "no own training domain" in note] == [
        "eval domain 0: no own training domain, so the shares have no effect"
    ]
    loss = law.predict([[0.2, 0.8], [0.6, 0.4]], (1e7, 1e9))
    assert loss[0, 0] == loss[1, 0]
    assert loss[0, 1] > loss[1, 1]
