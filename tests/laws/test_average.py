"""The average of laws: means, stacked weights, spread between laws."""

import numpy as np
import pytest

from raymix.laws import M3, M4, Average, EffectiveData
from raymix.testing import world

RUNS = world(sizes=(6e7,), tokens=(1e9,))(n_mixtures=30)
AT = (RUNS.mix_BK, RUNS.scale_B2)


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
def test_given_weights_by_hand(mean) -> None:
    law = RUNS.fit(Average([M4(), EffectiveData()], weights=[1, 3], mean=mean))
    one, other = RUNS.fit(M4()).predict(*AT), RUNS.fit(EffectiveData()).predict(*AT)
    want = one**0.25 * other**0.75 if mean == "geometric" else 0.25 * one + 0.75 * other
    np.testing.assert_allclose(law.predict(*AT), want, rtol=1e-13)


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
def test_gradient_of_either_mean(mean) -> None:
    law = RUNS.fit(Average([M4(), EffectiveData()], weights=[1, 3], mean=mean))
    mix, step = 0.1 + 0.6 * RUNS.mix_BK, 1e-5 * np.array([1.0, -1.0, 0.0, 0.0])
    slope = (law.predict(mix + step, (6e7, 1e9)) - law.predict(mix - step, (6e7, 1e9))) / 2e-5
    np.testing.assert_allclose(law.gradient(mix, (6e7, 1e9)) @ [1, -1, 0, 0], slope, rtol=1e-5, atol=1e-7)


def test_stacking_prefers_the_law_that_predicts() -> None:
    """m3 is blind to mixtures with a share of 0; the effective data law holds these data."""
    law = RUNS.fit(Average([M3(), EffectiveData()]))
    assert law.weight_F_[1] > 0.95
    assert law.weight_F_.sum() == pytest.approx(1)


def test_sd_holds_the_disagreement() -> None:
    law = RUNS.fit(Average([M3(), EffectiveData()], weights=[1, 1]))
    apart = np.log(law.laws_[0].predict(*AT) / law.laws_[1].predict(*AT)) / 2
    want = np.sqrt((law.laws_[0].sd(*AT) ** 2 + law.laws_[1].sd(*AT) ** 2) / 2 + apart**2)
    np.testing.assert_allclose(law.sd(*AT), want, rtol=1e-12)


def test_notes_name_the_law() -> None:
    law = world(tokens=(1e9,))().fit(Average([M4(), EffectiveData()], weights=[1, 1]))
    assert any(note.startswith("m4: more than one model size") for note in law.notes_)


def test_one_mixture_gives_equal_weights_with_a_note() -> None:
    law = world(n_mixtures=1, sizes=(6e7,), tokens=(1e9,))().fit(Average([M4(), EffectiveData()]))
    np.testing.assert_array_equal(law.weight_F_, [0.5, 0.5])
    assert any("weights" in note for note in law.notes_)


@pytest.mark.parametrize("weights", [[1.0], [-1.0, 2.0], [0.0, 0.0]])
def test_bad_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be 2 numbers"):
        Average([M4(), EffectiveData()], weights=weights)


def test_an_average_needs_laws() -> None:
    with pytest.raises(ValueError, match="at least one law"):
        Average([])
    with pytest.raises(ValueError, match="geometric or arithmetic"):
        Average(mean="harmonic")
