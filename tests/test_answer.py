"""What is read of few trials beyond one size: differences of the law with one factor, at the level of the law."""

from __future__ import annotations

from typing import Any

import numpy as np

from raymix.laws import TiedUnion, make_law
from raymix.laws.base import Table, as_table
from raymix.space import SearchSpace
from raymix.target.answer import Blended, answer, believed
from raymix.target.objective import objective_of
from tests import worlds

N_SMALL = 16


def trained(larger: int) -> Table:
    """Sixteen mixtures at the small size, the first of them at the larger one too."""
    mix_BK = np.random.default_rng(0).dirichlet(np.ones(3), N_SMALL)
    mix_BK = np.concatenate([mix_BK, mix_BK[:larger]])
    scale_B2 = np.array([[1e5, 5e5]] * N_SMALL + [[4e5, 1e6]] * larger)
    loss_BM = np.stack([worlds.losses(mix_K, *scale) for mix_K, scale in zip(mix_BK, scale_B2.tolist(), strict=True)])
    return as_table(mix_BK, scale_B2, loss_BM, np.arange(len(mix_BK)), np.arange(3))


def read(space: SearchSpace, table: Table) -> tuple[TiedUnion, Any]:
    law = table.fit(make_law("union"))
    assert isinstance(law, TiedUnion)
    return law, believed(space, law, table, space.target)


def test_trials_of_one_size_and_other_laws_have_no_anchor() -> None:
    space = worlds.space()
    assert not isinstance(read(space, trained(0))[1], Blended)
    table = trained(2)
    assert not isinstance(believed(space, table.fit(make_law("m4")), table, space.target), Blended)


def test_the_level_is_that_of_the_law_and_the_more_trials_the_more_are_differences_too() -> None:
    space = worlds.space()
    weights = []
    for larger in (1, 4, 16):
        table = trained(larger)
        law, found = read(space, table)
        plain = objective_of(space, law)
        trained_BK = np.unique(table.mix_BK, axis=0)
        ratio_BM = plain.losses(trained_BK) / found.anchor.law.predict(
            trained_BK, np.tile(space.target.scale, (len(trained_BK), 1))
        )
        assert np.allclose(found.anchor.level_M, ratio_BM.mean(axis=0), rtol=1e-12)
        assert np.allclose(found.losses(trained_BK), plain.losses(trained_BK), rtol=0.1)  # of one level
        weights.append(found.anchor.weight)
    assert weights == [2 / 3, 2 / 6, 2 / 18]  # 2 / (2 + trials beyond the commonest size)


def test_slopes_are_those_of_the_blended_losses_and_its_optimum_is_certified() -> None:
    space = worlds.space()
    table = trained(2)
    law, found = read(space, table)
    mix_K, step = np.array([0.5, 0.3, 0.2]), 1e-5
    for along_K in np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]]):
        difference_M = np.subtract(*found.losses(np.stack([mix_K + step * along_K, mix_K - step * along_K])))
        assert np.allclose(found.jacobian(mix_K) @ along_K, difference_M / (2 * step), rtol=1e-5)
    optimum, objective = answer(space, law, table)
    assert isinstance(objective, Blended)
    assert optimum.convex and optimum.gap < 1e-6
    tried_BK = np.random.default_rng(1).dirichlet(np.ones(3), 500)
    inside_BK = tried_BK[space.polytope().contains(tried_BK)]
    assert (objective.values(inside_BK) >= optimum.value - 1e-6).all()
