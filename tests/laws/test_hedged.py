"""Shapes that few runs cannot tell apart: how much each counts, at which level, and that runs tell where they can."""

from collections.abc import Sequence

import numpy as np
import pytest

from raymix.laws import HedgedUnion, Law, TiedUnion, law_from_json
from raymix.laws.base import Table, as_table, changed
from raymix.laws.posterior import convex_parts, sample
from raymix.laws.residual import ResidualGP
from raymix.laws.rows import canonical_order
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
    return hedged(trained(larger))


def hedged(table: Table) -> HedgedUnion:
    law = table.fit(HedgedUnion())
    assert isinstance(law, HedgedUnion)
    return law


def of_offset(tokens: float, shares: float) -> Table:
    """Thirty runs of three lengths, each eval domain a power law of its domain's tokens with these offsets."""
    rng = np.random.default_rng(0)
    mix_BK, d_B1 = rng.dirichlet(np.ones(3) / 2, 30), np.tile([0.25, 1.0, 4.0], 10)[:, None]
    loss_BM = 1.5 + 0.6 * (tokens + d_B1 * (mix_BK + shares)) ** -0.3
    loss_BM *= np.exp(0.005 * rng.normal(size=mix_BK.shape))
    scale_B2 = np.hstack([np.full((30, 1), 1e7), 1e9 * d_B1])
    return as_table(mix_BK, scale_B2, loss_BM, np.arange(30), np.arange(3))


def at_target(mix_BK: Array) -> tuple[Array, Array]:
    return mix_BK, np.tile(TARGET, (len(mix_BK), 1))


def test_at_one_scale_it_is_the_union_law() -> None:
    table = trained(0)
    law, union = fitted(0), table.fit(TiedUnion())
    assert np.array_equal(law.predict(table.mix_BK, table.scale_B2), union.predict(table.mix_BK, table.scale_B2))
    assert np.array_equal(law.sd(table.mix_BK, TARGET), union.sd(table.mix_BK, TARGET))
    assert law.notes_ == union.notes_


def of_sizes(apart: bool, larger: int = 8) -> Table:
    """Runs of two sizes and lengths; if `apart`, size helps with other domains than tokens do, else all alike."""
    rng = np.random.default_rng(0)
    mix_BK = rng.dirichlet(np.ones(3) / 2, 24)
    mix_BK = np.concatenate([mix_BK, mix_BK[:larger]])
    scale_B2 = np.array([[1e7, 1e9]] * 24 + [[4e7, 4e9]] * larger)
    n_B1, d_B1 = (scale_B2 / [1e7, 1e9]).T[..., None]
    own_BM, other_BM = (mix_BK + 0.02) ** -0.15, (np.roll(mix_BK, 1, axis=1) + 0.02) ** -0.15
    loss_BM = (
        1.5 + 0.6 * n_B1**-0.3 * other_BM + 0.6 * d_B1**-0.3 * own_BM if apart else (0.8 * d_B1**-0.3 + 1) * own_BM
    )
    loss_BM = loss_BM * np.exp(0.004 * rng.normal(size=mix_BK.shape))
    return as_table(mix_BK, scale_B2, loss_BM, np.arange(len(mix_BK)), np.arange(3))


def test_one_factor_for_all_sizes_counts_where_the_runs_say_so() -> None:
    alike, apart = hedged(of_sizes(apart=False)), hedged(of_sizes(apart=True))
    assert alike.laws_[-1].one_factor and alike.weight_F_[-1] > 0.9
    assert not apart.one_factor_ or apart.weight_F_[-1] < 0.1
    assert f"counts {alike.weight_F_[-1]:.2f}" in alike.notes_[-1]
    assert all(law.weight_F_.sum() == pytest.approx(1) for law in (alike, apart))


def test_the_evidence_of_a_law_is_that_of_its_rows_in_any_order() -> None:
    table = of_sizes(apart=True)
    shuffled = table.take(np.random.default_rng(1).permutation(len(table.mix_BK)))
    evidence_2M = []
    for rows in (table, shuffled):
        law, ordered = rows.fit(TiedUnion()), canonical_order(rows)
        assert isinstance(law, TiedUnion)
        evidence_2M.append(law.log_evidence(ordered))
    assert np.allclose(*evidence_2M, rtol=1e-6)


def test_one_factor_is_read_at_the_level_of_the_other_laws() -> None:
    law = fitted(4)
    assert law.one_factor_ and law.own_level_ == 0
    table = canonical_order(trained(4))
    likelier = law.laws_[int(np.argmax(law.weight_F_[:-1]))]
    evidence = (law.laws_[-1].log_evidence(table) - likelier.log_evidence(table)).mean()
    odds = law.weight_F_[-1] / law.weight_F_[:-1].sum()
    assert odds == pytest.approx(min(2 / 4 * np.exp(evidence), 99)), "2 to the 4 trials beyond the commonest size"
    *others, one = law.laws_
    share = law.weight_F_[:-1] / law.weight_F_[:-1].sum()

    def of_the_others(mix_BK: Array) -> Array:
        return np.tensordot(share, np.stack([other.predict(*at_target(mix_BK)) for other in others]), axes=1)

    middle_1K = np.unique(trained(4).mix_BK, axis=0).mean(axis=0, keepdims=True)
    assert np.allclose(law.predict(*at_target(middle_1K)), of_the_others(middle_1K), rtol=1e-12)
    mix_BK = np.random.default_rng(1).dirichlet(np.ones(3), 20)
    level_M = of_the_others(middle_1K)[0] / one.predict(*at_target(middle_1K))[0]
    w = law.weight_F_[-1]
    blend_BM = (1 - w) * of_the_others(mix_BK) + w * level_M * one.predict(*at_target(mix_BK))
    assert np.allclose(law.predict(*at_target(mix_BK)), blend_BM, rtol=1e-12)


def exponential(n_mixtures: int, noise: float) -> tuple[Table, Array, Array, Array]:
    """L = 1.5 + (.5 + size + tokens) exp(t.r) at three sizes and lengths; what to ask, and the truth."""
    rng = np.random.default_rng(0)
    mix_QK, slope_MK = rng.dirichlet(np.ones(4), n_mixtures), 0.3 + 2 * np.eye(4) + rng.uniform(0, 0.5, (4, 4))

    def truth(mix_BK: Array, scale_B2: Array) -> Array:
        left_B = 0.4 + 0.5 * (scale_B2[:, 0] / 1e8) ** -0.3 + 0.6 * (scale_B2[:, 1] / 5e9) ** -0.35
        return np.asarray(1.5 + left_B[:, None] * np.exp(-mix_BK @ slope_MK.T))

    mix_BK, scale_B2 = np.repeat(mix_QK, 3, axis=0), np.tile([[n, 20 * n] for n in (2e7, 6e7, 2e8)], (n_mixtures, 1))
    loss_BM = truth(mix_BK, scale_B2)
    loss_BM = loss_BM * np.exp(noise * rng.normal(size=loss_BM.shape))
    asked_BK, asked_B2 = rng.dirichlet(np.ones(4), 40), np.tile([8e8, 16e9], (40, 1))
    return as_table(mix_BK, scale_B2, loss_BM, None, None), asked_BK, asked_B2, truth(asked_BK, asked_B2)


@pytest.mark.parametrize("n_mixtures", [8, 24])  # of few runs and of more than evidence is asked of
def test_one_factor_that_follows_the_runs_far_closer_keeps_its_level(n_mixtures: int) -> None:
    """At four times the largest size the level of two factors is off by 5 to 9%."""
    table, mix_BK, scale_B2, truth_BM = exponential(n_mixtures, 0.003)
    law = hedged(table)
    assert law.own_level_ > 0.95
    error_BM = np.abs(np.log(law.predict(mix_BK, scale_B2) / truth_BM))
    assert error_BM.mean() < 0.01
    assert (error_BM < 1.645 * law.sd(mix_BK, scale_B2)).mean() > 0.85
    assert law_from_json(law.to_json()).predict(mix_BK, scale_B2).tolist() == law.predict(mix_BK, scale_B2).tolist()


def test_between_the_two_the_level_is_shared_and_a_file_keeps_it() -> None:
    law = fitted(4)
    low, high = law.predict(*at_target(np.eye(3))), law.laws_[-1].predict(*at_target(np.eye(3)))
    law.own_level_ = 0.5
    middle_1K = law.middle_K_[None]
    w, others = law.weight_F_[-1], law._level(TARGET[None])[0] ** 2 * law.laws_[-1].predict(*at_target(middle_1K))[0]
    want_M = (1 - w) * others + w * np.sqrt(others * law.laws_[-1].predict(*at_target(middle_1K))[0])
    assert np.allclose(law.predict(*at_target(middle_1K))[0], want_M, rtol=1e-12)
    again = law_from_json(law.to_json())
    assert np.array_equal(again.predict(*at_target(np.eye(3))), law.predict(*at_target(np.eye(3))))
    assert not np.array_equal(law.predict(*at_target(np.eye(3))), low) and not np.array_equal(low, high)


def test_runs_of_several_lengths_tell_an_offset_of_tokens() -> None:
    law = hedged(of_offset(tokens=0.1, shares=0.0))
    assert [part.fixed_offset for part in law.laws_] == [True]
    assert law.resampled(np.random.default_rng(0)).offset == "tokens"


def test_where_runs_do_not_tell_both_count_and_their_distance_is_doubt() -> None:
    table = of_offset(tokens=0.0, shares=0.02)
    law = hedged(table)
    assert sorted(part.fixed_offset for part in law.laws_) == [False, True]
    far_BK, far_B2 = np.eye(3), np.tile([1e7, 1e11], (3, 1))
    own_FBM = np.stack([part.sd(far_BK, far_B2) for part in law.laws_])
    apart_BM = np.abs(np.subtract(*(np.log(part.predict(far_BK, far_B2)) for part in law.laws_)))
    spread_BM = np.sqrt(law.weight_F_.prod()) * apart_BM
    squares_BM = np.tensordot(law.weight_F_, own_FBM**2, axes=1) + spread_BM**2
    assert np.allclose(law.sd(far_BK, far_B2), np.sqrt(squares_BM), rtol=1e-2)  # of losses, not of their logs
    assert not law.one_factor_
    shares, tokens = law.laws_  # thirty runs: the odds are the ratio of their noise to the power of 30
    odds = np.exp(30 * np.log(shares.sig_M_ / tokens.sig_M_).mean())
    assert law.weight_F_[1] / law.weight_F_[0] == pytest.approx(odds)
    assert {law.resampled(np.random.default_rng(i)).offset for i in range(20)} == {"shares", "tokens"}


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


def test_a_draw_has_one_shape_each_as_often_as_it_counts() -> None:
    law = fitted(2)
    drawn = sample(law, 400, np.random.default_rng(0))
    assert drawn is not None and len(law.laws_) > 1
    weight_SF = np.array([draw.weight_F_ for draw in drawn])  # type: ignore[attr-defined]
    np.testing.assert_allclose(weight_SF.sum(axis=1), 1)
    assert (weight_SF > 0).all() and (weight_SF.max(axis=1) > 0.999).all()
    assert weight_SF.mean(axis=0) == pytest.approx(law.weight_F_, abs=0.1)  # four standard errors of 400 draws


@pytest.mark.parametrize("larger", [2, 4])
def test_a_difference_is_no_surer_in_the_blend_than_in_its_shapes(larger: int) -> None:
    """The blend of shapes drawn apart is: its errors cancel. Not in a truth, which has one shape, nor in a draw."""
    law, rng = fitted(larger), np.random.default_rng(0)
    mix_BK, scale_B2 = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]), np.tile([1e5, 5e5], (2, 1))

    def spread(drawn: Sequence[Law]) -> float:
        return float(np.std([np.subtract(*each.predict(mix_BK, scale_B2).mean(axis=1)) for each in drawn]))

    parts = [sample(part, 200, rng) or [] for part in law.laws_]
    least = min(spread(part) for part in parts)
    assert spread([changed(law, laws_=list(laws)) for laws in zip(*parts, strict=True)]) < 0.75 * least
    assert spread(sample(law, 200, rng) or []) > 0.8 * least


def test_the_distance_between_shapes_is_doubt_outside_the_scales_seen_only() -> None:
    law, mix_BK = fitted(2), np.array([[0.7, 0.2, 0.1]])
    for scale, counts in ((np.array([1e5, 5e5]), False), (TARGET, True)):
        own = np.sqrt(np.tensordot(law.weight_F_, [part.sd(mix_BK, scale) ** 2 for part in law.laws_], axes=1))
        assert (law.sd(mix_BK, scale) > own * (1 + 1e-9)).all() == counts
