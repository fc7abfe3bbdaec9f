"""Of few trials beyond one size: differences of the law with one factor, at the level of the law with two."""

from __future__ import annotations

import numpy as np
import pytest

from raymix.laws import HedgedUnion, TiedUnion, law_from_json
from raymix.laws.base import Table, as_table
from raymix.laws.posterior import convex_parts, sample
from raymix.laws.residual import ResidualGP
from raymix.simplex import Array
from raymix.target.answer import answer
from tests import worlds

N_SMALL = 16
TARGET = np.array([6.4e6, 2e7])


def trained(larger: int) -> Table:
    """Sixteen mixtures at the small size, the first of them at the larger one too."""
    mix_BK = np.random.default_rng(0).dirichlet(np.ones(3), N_SMALL)
    mix_BK = np.concatenate([mix_BK, mix_BK[:larger]])
    scale_B2 = np.array([[1e5, 5e5]] * N_SMALL + [[4e5, 1e6]] * larger)
    loss_BM = np.stack([worlds.losses(mix_K, *scale) for mix_K, scale in zip(mix_BK, scale_B2.tolist(), strict=True)])
    return as_table(mix_BK, scale_B2, loss_BM, np.arange(len(mix_BK)), np.arange(3))


def fitted(larger: int) -> HedgedUnion:
    law = trained(larger).fit(HedgedUnion())
    assert isinstance(law, HedgedUnion)
    return law


def at_target(mix_BK: Array) -> tuple[Array, Array]:
    return mix_BK, np.tile(TARGET, (len(mix_BK), 1))


def test_of_one_size_it_is_the_union_law() -> None:
    table = trained(0)
    law, union = fitted(0), table.fit(TiedUnion())
    assert np.array_equal(law.predict(table.mix_BK, table.scale_B2), union.predict(table.mix_BK, table.scale_B2))
    assert np.array_equal(law.sd(table.mix_BK, TARGET), union.sd(table.mix_BK, TARGET))
    assert law.notes_ == union.notes_


def test_the_more_trials_beyond_one_size_the_less_one_factor_counts() -> None:
    laws = {larger: fitted(larger) for larger in (1, 4, 16)}
    assert [law.weight_ for law in laws.values()] == [2 / 3, 2 / 6, 2 / 18]  # 2 / (2 + larger)
    assert "weight 0.33" in laws[4].notes_[-1]


def test_one_factor_is_read_at_the_level_of_the_other_law() -> None:
    law = fitted(4)
    two, one = law.laws_
    middle_1K = np.unique(trained(4).mix_BK, axis=0).mean(axis=0, keepdims=True)
    assert np.allclose(law.predict(*at_target(middle_1K)), two.predict(*at_target(middle_1K)), rtol=1e-12)
    mix_BK = np.random.default_rng(1).dirichlet(np.ones(3), 20)
    level_M = two.predict(*at_target(middle_1K))[0] / one.predict(*at_target(middle_1K))[0]
    blend_BM = 2 / 3 * two.predict(*at_target(mix_BK)) + 1 / 3 * level_M * one.predict(*at_target(mix_BK))
    assert np.allclose(law.predict(*at_target(mix_BK)), blend_BM, rtol=1e-12)
    assert (law.sd(*at_target(mix_BK)) >= np.minimum(two.sd(*at_target(mix_BK)), one.sd(*at_target(mix_BK)))).all()


def test_its_optimum_is_certified() -> None:
    space, table, law = worlds.space(), trained(2), fitted(2)
    optimum, objective = answer(space, law, table)
    assert optimum.convex and optimum.gap < 1e-6
    tried_BK = np.random.default_rng(1).dirichlet(np.ones(3), 500)
    inside_BK = tried_BK[space.polytope().contains(tried_BK)]
    assert (objective.values(inside_BK) >= optimum.value - 1e-6).all()


@pytest.mark.parametrize("larger", [0, 2])
def test_draws_vary_both_parts_and_a_file_keeps_them(larger: int) -> None:
    law = fitted(larger)
    drawn = sample(law, 3, np.random.default_rng(0))
    assert drawn is not None
    mix_BK = np.eye(3)
    found_SBM = np.stack([draw.predict(*at_target(mix_BK)) for draw in drawn])
    assert (found_SBM.std(axis=0) > 0).all()
    again = law_from_json(law.to_json())
    assert np.array_equal(again.predict(*at_target(mix_BK)), law.predict(*at_target(mix_BK)))
    process = trained(larger).fit(ResidualGP())
    assert [part.name for part in convex_parts(process)] == ["hedged_union"]
