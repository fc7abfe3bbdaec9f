"""What the tests of the families share: a law with parameters of our choice, and data from it."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from raymix.laws.separable import SeparableLaw

Array = NDArray[np.float64]
N0, D0 = 1e6, 1e9


def law_with(law: SeparableLaw, theta: Sequence[float], n_domains: int, own: int = -1) -> SeparableLaw:
    """`law` for one eval domain with these parameters, N0 = 1e6, D0 = 1e9 and the floor's cap at 1.7."""
    mix = np.vstack([np.eye(n_domains)[:2], np.full((2, n_domains), 1 / n_domains)])
    scale = np.array([[N0 / 2, D0 / 2], [2 * N0, 2 * D0], [N0 / 2, 2 * D0], [2 * N0, D0 / 2]])
    law.fit(mix, scale, np.array([[3.0], [2.9], [2.8], [2.7]]), own_M=np.array([own]))
    assert law.params_MP_.shape == (1, len(theta))
    law.params_MP_, law.cap_M_ = np.array([theta], dtype=np.float64), np.array([1.7])
    law.origin_2_ = np.array([N0, D0])
    return law


@pytest.fixture
def given() -> Callable[..., SeparableLaw]:
    return law_with


@pytest.fixture
def finds() -> Callable[..., float]:
    """Largest error in log loss at unseen mixtures of a family fitted to noisy data of its own formula."""

    def measure(
        law: SeparableLaw,
        truth: Callable[[Array, Array, Array], Array],
        n_domains: int = 3,
        sizes: ArrayLike = (1e6,),
        tokens: ArrayLike = (1e9,),
        n_mixtures: int = 40,
        own: int = -1,
    ) -> float:
        rng = np.random.default_rng(0)
        mix_QK = np.vstack([np.eye(n_domains), rng.dirichlet(np.ones(n_domains), n_mixtures)])
        grid = [(q, n, d) for q in range(len(mix_QK)) for n in np.asarray(sizes) for d in np.asarray(tokens)]
        mix = mix_QK[[q for q, _, _ in grid]]
        scale = np.array([(n, d) for _, n, d in grid])
        loss = truth(mix, scale[:, 0] / N0, scale[:, 1] / D0)[:, None]
        law.fit(mix, scale, loss * np.exp(0.002 * rng.normal(size=loss.shape)), own_M=np.array([own]))
        unseen = rng.dirichlet(np.ones(n_domains), 50)
        at = np.tile(scale[-1], (50, 1))
        want = truth(unseen, at[:, 0] / N0, at[:, 1] / D0)
        return float(np.abs(np.log(law.predict(unseen, at)[:, 0] / want)).max())

    return measure
