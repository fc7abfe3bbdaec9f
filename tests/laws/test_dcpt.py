"""The D-CPT law: two corpora, one share."""

import numpy as np
import pytest

from raymix.laws import DCPT

THETA = [0.0, *np.log([0.8, 0.5, 0.6, 0.25, 2.0, 0.3, 0.5, 0.01])]  # A, al, B, be, eta, C, gamma, eps


def test_dcpt_by_hand(given) -> None:
    law = given(DCPT(), THETA, 2, own=0)
    want = 0.85 + 0.8 * 2**-0.5 + 0.6 * 0.24**2 * 4**-0.25 + 0.3 * 0.25**-0.5
    assert law.predict([[0.24, 0.76]], (2e6, 4e9))[0, 0] == pytest.approx(want, rel=1e-13)


def test_without_own_domain_the_second_share_is_read(given) -> None:
    law = given(DCPT(), THETA, 2)
    own = given(DCPT(), THETA, 2, own=1)
    assert any("second share" in note for note in law.notes_)
    np.testing.assert_array_equal(law.predict([[0.3, 0.7]], (1e6, 1e9)), own.predict([[0.3, 0.7]], (1e6, 1e9)))


def test_dcpt_finds_itself(finds) -> None:
    def truth(r, n, d):
        return 1.5 + 0.3 * n**-0.35 + 0.4 * r[:, 0] ** 0.3 * d**-0.35 + 0.4 * (r[:, 0] + 0.05) ** -0.3

    law = DCPT()
    error = finds(law, truth, n_domains=2, sizes=(1e6, 3e6, 1e7), tokens=(5e8, 1e9, 2e9), n_mixtures=15, own=0)
    assert error < 0.01


def test_three_domains_are_refused() -> None:
    with pytest.raises(ValueError, match="dcpt is a law of two training domains, got 3"):
        DCPT().fit([[0.2, 0.3, 0.5]], [[1e6, 1e9]], [[3.0]])
