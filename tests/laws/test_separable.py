"""What every family built on terms promises: derivatives, notes, intervals that know a misfit."""

from functools import partial

import numpy as np
import pytest

from raymix.laws import FAMILIES, make_law
from raymix.laws.separable import SeparableLaw
from raymix.laws.union_forms import own_weights
from raymix.testing import synthetic_runs, world

NAMES = sorted(law.name for law in FAMILIES if issubclass(law, SeparableLaw))


@pytest.mark.parametrize("name", NAMES)
def test_jacobian_is_the_slope_of_log_loss(name: str) -> None:
    """Away from the optimum, shares of 0 included."""
    runs = (world(n_domains=2) if name == "dcpt" else synthetic_runs)(n_mixtures=6, tokens=(1e9, 2e9))
    law = runs.fit(make_law(name))
    assert isinstance(law, SeparableLaw)
    everyone, at = np.arange(3), law._points(runs.mix_BK, runs.scale_B2, merge=True)
    theta_MP = law.params_MP_ + 0.3 * np.random.default_rng(0).normal(size=law.params_MP_.shape)
    value = partial(law._evaluate, at=at, active_A=everyone, want=False)
    _, jac_MPB = law._evaluate(theta_MP, at, everyone, True)
    assert jac_MPB is not None
    for p in range(theta_MP.shape[1]):
        step = np.zeros_like(theta_MP)
        step[:, p] = 1e-6
        slope_MB = (value(theta_MP + step)[0] - value(theta_MP - step)[0]) / 2e-6
        np.testing.assert_allclose(slope_MB, jac_MPB[:, p], atol=1e-7)


@pytest.mark.parametrize("name", ["m1", "m2", "m3", "m4", "implicit", "log_linear", "log_feature", "effective_data"])
def test_a_law_without_scale_says_that_it_averages(name: str) -> None:
    notes = " ".join(synthetic_runs(n_mixtures=6).fit(make_law(name)).notes_)
    assert "more than one model size" in notes
    assert "more than one n_tokens" in notes


@pytest.mark.parametrize("name", ["joint", "apple_additive", "apple_joint", "log_feature_joint"])
def test_what_the_data_cannot_tell_is_noted(name: str) -> None:
    law = world(sizes=(6e7,), tokens=(1e9,), n_mixtures=1)().fit(make_law(name))
    for what in ("n_params", "n_tokens", "mixture"):
        assert any(f"the effect of {what} is prior only" in note for note in law.notes_)


def test_sd_knows_a_misfit() -> None:
    """A law that cannot hold the data is not sure of itself: its sd is at least the spread it leaves."""
    runs = synthetic_runs()
    law = runs.fit(make_law("chinchilla"))
    error_BM = np.log(runs.loss_BM / law.predict(runs.mix_BK, runs.scale_B2))
    assert (law.sd(runs.mix_BK, runs.scale_B2).mean(axis=0) > error_BM.std(axis=0)).all()


def test_own_weights() -> None:
    got = own_weights(np.array([1, -1]), 3, other=-0.2, unknown=-0.5)
    np.testing.assert_array_equal(got, [[-0.2, 0.0, -0.2], [-0.5, -0.5, -0.5]])
