"""M1 to M4 and implicit domains: the formulas by hand, and that each finds itself."""

import numpy as np
import pytest

from raymix.laws import M1, M2, M3, M4, Implicit, M4Published

R = np.array([[0.25, 0.75, 0.0]])
SCALE = (1e6, 1e9)


def test_m1_by_hand(given) -> None:
    law = given(M1(), [*np.log([1.5, 0.5, 0.4, 0.3]), -2.0, -1.0, 3.0], 3)
    want = 1.5 + 0.5 * np.exp(-0.5) + 0.4 * np.exp(-0.75) + 0.3
    assert law.predict(R, SCALE)[0, 0] == pytest.approx(want, rel=1e-13)


def test_m2_by_hand(given) -> None:
    law = given(M2(), [*np.log([1.5, 0.5]), -2.0, -1.0, 3.0], 3)
    want = 1.5 + 0.5 * (np.exp(-0.5) + np.exp(-0.75) + 1)
    assert law.predict(R, SCALE)[0, 0] == pytest.approx(want, rel=1e-13)


def test_m3_by_hand(given) -> None:
    """prod_j K r_j = 3^3 (1/4) (1/2) (1/4)."""
    law = given(M3(), [*np.log([1.5, 0.5]), -2.0], 3)
    want = 1.5 + 0.5 * np.exp(-2 * 27 / 32)
    assert law.predict([[0.25, 0.5, 0.25]], SCALE)[0, 0] == pytest.approx(want, rel=1e-13)
    assert law.predict(R, SCALE)[0, 0] == pytest.approx(2.0, rel=1e-13)


def test_m4_by_hand(given) -> None:
    """m = log 2, q = 1/4, so c = 1.5, k = .5 at the mean mixture and t = 4 a."""
    law = given(M4(), [np.log(2.0), np.log(1 / 3), -0.5, 0.25, 0.0], 3)
    law.center_K_ = np.array([0.5, 0.5, 0.0])
    want = 1.5 + 0.5 * np.exp(-2 * (0.25 - 0.5) + 1 * (0.75 - 0.5))
    assert law.predict(R, SCALE)[0, 0] == pytest.approx(want, rel=1e-13)


def test_implicit_by_hand(given) -> None:
    law = given(Implicit(hidden=2), [*np.log([1.5, 0.5, 0.3]), -2.0, -1.0, 3.0, 1.0, -1.0, 0.0], 3)
    want = 1.5 + 0.5 * np.exp(-0.5 - 0.75) + 0.3 * np.exp(0.25 - 0.75)
    assert law.predict(R, SCALE)[0, 0] == pytest.approx(want, rel=1e-13)


def test_m1_finds_itself(finds) -> None:
    assert finds(M1(), lambda r, n, d: 1.5 + 0.8 * np.exp(-4 * r[:, 0]) + 0.5 * np.exp(-r[:, 1])) < 0.01


def test_m2_finds_itself(finds) -> None:
    assert finds(M2(), lambda r, n, d: 1.5 + 0.5 * np.exp(r @ np.diag([-4.0, -1.0, 1.0])).sum(axis=1)) < 0.01


def test_m3_finds_itself(finds) -> None:
    assert finds(M3(), lambda r, n, d: 1.5 + 0.5 * np.exp(-2 * 27 * r.prod(axis=1))) < 0.01


def test_m4_finds_itself(finds) -> None:
    """Steep as an eval domain is in its own training domain, and with a floor above half of the least loss."""
    assert finds(M4(), lambda r, n, d: 1.5 + 1.2 * np.exp(r @ np.array([-9.0, -1.0, 0.5]))) < 0.01


def test_implicit_finds_two_hidden_domains(finds) -> None:
    def truth(r, n, d):
        one, other = np.exp(r @ np.array([-4.0, 0.0, 0.0])), np.exp(r @ np.array([0.0, -3.0, 0.5]))
        return 1.5 + 0.6 * one + 0.6 * other

    assert finds(Implicit(hidden=2), truth) < 0.01
    assert finds(M4(), truth) > 0.01  # one exponential cannot bend twice


def test_implicit_needs_a_hidden_domain() -> None:
    with pytest.raises(ValueError, match="at least one hidden domain"):
        Implicit(hidden=0)


def test_m4_published_finds_itself(finds) -> None:
    assert finds(M4Published(), lambda r, n, d: 1.5 + 1.2 * np.exp(r @ np.array([-9.0, -1.0, 0.5]))) < 0.01


def test_m4_published_is_the_least_huber_loss_in_nats() -> None:
    """One outlier of 1 nat among runs with noise: no perturbed law has a lower sum of Huber losses, m4's is higher."""
    rng = np.random.default_rng(0)
    mix_BK = rng.dirichlet(np.ones(3), 30)
    loss_BM = (1.5 + 1.2 * np.exp(mix_BK @ [-4.0, -1.0, 0.5]) + 0.01 * rng.normal(size=30))[:, None]
    loss_BM[3] += 1.0

    def objective(law: M4) -> float:
        off = np.abs(law.predict(mix_BK, SCALE) - loss_BM)
        return float(np.where(off <= 0.02, off**2 / 2, 0.02 * (off - 0.01)).sum())

    law = M4Published().fit(mix_BK, SCALE, loss_BM)
    least, params_MP = objective(law), law.params_MP_.copy()
    assert objective(M4().fit(mix_BK, SCALE, loss_BM)) > least
    for _ in range(50):
        law.params_MP_ = params_MP + 0.01 * rng.normal(size=params_MP.shape)
        assert objective(law) >= least * (1 - 1e-6)


def test_m4_published_refuses_a_delta_of_0() -> None:
    with pytest.raises(ValueError, match="huber = 0"):
        M4Published(huber=0)
