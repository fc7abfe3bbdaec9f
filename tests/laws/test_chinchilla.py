"""Scaling laws without a mixture: the published constants, and the terms that the data call for."""

import numpy as np
import pytest

from raymix.laws import Chinchilla

REFIT = {"E": 1.82, "A": 482.0, "B": 2085.4, "alpha": 0.3478, "beta": 0.3658}  # arXiv 2404.10102, table 1


def published(r, n, d):
    n_params, n_tokens = 1e6 * n, 1e9 * d
    return REFIT["E"] + REFIT["A"] * n_params ** -REFIT["alpha"] + REFIT["B"] * n_tokens ** -REFIT["beta"]


def test_chinchilla_by_hand(given) -> None:
    law = given(Chinchilla(), [0.0, *np.log([0.8, 0.5, 0.6, 0.25])], 2)
    want = 0.85 + 0.8 * 2**-0.5 + 0.6 * 4**-0.25
    assert law.predict([[0.3, 0.7]], (2e6, 4e9))[0, 0] == pytest.approx(want, rel=1e-13)
    assert (law.gradient([[0.3, 0.7]], (2e6, 4e9)) == 0).all()


def test_chinchilla_carries_the_published_law_ten_times_up() -> None:
    sizes, tokens = np.meshgrid([1e8, 3e8, 1e9, 3e9], [3e9, 1e10, 3e10, 1e11])
    scale = np.column_stack([sizes.ravel(), tokens.ravel()])
    loss = published(None, scale[:, 0] / 1e6, scale[:, 1] / 1e9)[:, None]
    law = Chinchilla(warmup=0.0).fit(np.ones((16, 1)), scale, loss)
    got = law.predict([[1.0]], (3e10, 1e12))[0, 0]
    assert got == pytest.approx(published(None, 3e4, 1e3), rel=0.01)


def test_step_law_has_no_size_term() -> None:
    tokens = np.array([2e8, 5e8, 1e9, 2e9, 4e9])
    scale = np.column_stack([np.full(5, 1e7), tokens])
    law = Chinchilla().fit(np.ones((5, 1)), scale, 1.8 + 1.5 * (tokens[:, None] / 1e9) ** -0.4)
    assert law.params_MP_.shape == (1, 3)
    assert any("predicts no effect of n_params" in note for note in law.notes_)
    assert law.predict([[1.0]], (1e9, 1e9))[0, 0] == law.predict([[1.0]], (1e7, 1e9))[0, 0]
    assert law.predict([[1.0]], (1e7, 8e9))[0, 0] == pytest.approx(1.8 + 1.5 * 8**-0.4, rel=0.01)


def test_size_law_has_no_data_term() -> None:
    sizes = np.array([1e7, 3e7, 1e8, 3e8])
    scale = np.column_stack([sizes, np.full(4, 1e9)])
    law = Chinchilla().fit(np.ones((4, 1)), scale, 1.8 + 0.8 * (sizes[:, None] / 1e7) ** -0.35)
    assert law.params_MP_.shape == (1, 3)
    assert law.predict([[1.0]], (6e8, 1e9))[0, 0] == pytest.approx(1.8 + 0.8 * 60**-0.35, rel=0.01)


def test_several_mixtures_are_averaged_with_a_note() -> None:
    scale = np.array([[1e7, 1e9], [1e7, 2e9], [1e7, 1e9], [1e7, 2e9]])
    law = Chinchilla().fit([[1, 0], [1, 0], [0, 1], [0, 1]], scale, [[3.0], [2.9], [3.2], [3.1]])
    assert any("more than one mixture" in note for note in law.notes_)
