"""What repeats are worth: the published formula, slopes, a decay that was planted is found and moves the optimum."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from raymix.laws import Average, Law, ResidualGP, TiedUnion, cross_validate, law_from_json
from raymix.laws.base import Array, as_table
from raymix.laws.exposure import points
from raymix.laws.joint_exposure import JointExposure
from raymix.laws.repetition import REPEAT_VALUE, stocked, worth
from raymix.laws.union_forms import Form, OneFactor, TwoFactors
from raymix.observations import Observations
from raymix.simplex import Polytope
from raymix.space import Scale, SearchSpace
from raymix.tables.advise import Wanted, advise
from raymix.tables.law_file import LawFile
from raymix.tables.predictions import predict_table
from raymix.target.objective import ObjectiveAtScale, objective_of
from raymix.target.optimum import minimise
from raymix.target.reading import repeat_notes

PLANTED = 3.0  # R*: far from the published 15.39, where the prior is
SIZES, TOKENS = (2e7, 8e7), (1e9, 2e9, 4e9)


def runs(
    sizes: tuple[float, ...] = (2e7, 8e7), n_mixtures: int = 24, seed: int = 0
) -> tuple[Array, Array, Array, Array]:
    """Mixtures, scales, losses, unique tokens: a third of the runs has .1B unique tokens of the first domain."""
    rng = np.random.default_rng(seed)
    mix_QK = rng.dirichlet(np.ones(3), n_mixtures)
    few_QK = np.tile([np.nan, np.inf, 1e12], (n_mixtures, 1))  # three ways to have enough
    few_QK[::3, 0] = 1e8
    rows = [(q, n, d) for q in range(n_mixtures) for n in SIZES for d in TOKENS]
    mix_BK, unique_BK = (x_QK[[q for q, _, _ in rows]] for x_QK in (mix_QK, few_QK))
    scale_B2 = np.array([(n, d) for _, n, d in rows])
    loss_BM = truth(mix_BK, scale_B2, unique_BK)
    return mix_BK, scale_B2, loss_BM * np.exp(0.002 * rng.normal(size=loss_BM.shape)), unique_BK


def truth(mix_BK: Array, scale_B2: Array, unique: Array) -> Array:
    """Three eval domains, the first one of the first training domain."""
    known = np.where(np.isfinite(unique), unique, np.inf)
    x_BK = np.maximum(mix_BK * scale_B2[:, 1:] / known, 1.0)
    share_BK = mix_BK * (1 + PLANTED * (1 - np.exp(-(x_BK - 1) / PLANTED))) / x_BK
    t_MK = np.array([[1.0, 0.1, 0.1], [0.3, 1.0, 0.1], [0.3, 0.2, 1.0]])
    size_BM = 0.6 * (scale_B2[:, :1] / 4e7) ** -0.3 * (0.1 + mix_BK**0.6 @ t_MK.T) ** -0.3
    return np.asarray(1.5 + size_BM + 0.9 * (scale_B2[:, 1:] / 2e9) ** -0.35 * (0.1 + share_BK**0.6 @ t_MK.T) ** -0.35)


def fitted(law: Any, known: bool = True) -> Law:
    mix_BK, scale_B2, loss_BM, unique_BK = runs()
    return law.fit(mix_BK, scale_B2, loss_BM, own_M=np.arange(3), unique_BK=unique_BK if known else None)


def test_worth_is_the_published_formula() -> None:
    """4 epochs at R* = 15.39: U (1 + 15.39 (1 - exp(-3 / 15.39))) of 4 U; up to 1 epoch all tokens count."""
    found = worth(np.array([[0.5, 1.0, 4.0]]), np.log([REPEAT_VALUE]))
    effective = 1 + 15.39 * (1 - np.exp(-3 / 15.39))
    np.testing.assert_allclose(np.exp(found.log_MBK[0, 0]), [1, 1, effective / 4], rtol=1e-12)


@pytest.mark.parametrize("form", [TwoFactors(3, repeats=True), OneFactor(3, repeats=True)], ids=["two", "one"])
def test_jacobian_and_gradient_are_slopes(form: Form) -> None:
    mix_BK, scale_B2, _, _ = runs(n_mixtures=6)
    prior = form.prior(np.log([3.0, 2.0, 4.0]), np.array([0, -1, 2]))
    theta_MP = prior.mean_MP + 0.3 * np.random.default_rng(0).normal(size=prior.mean_MP.shape)
    assert theta_MP.shape[1] == form.n_params
    cap_M, tokens_B1 = np.array([2.0, 1.5, 3.0]), scale_B2[:, 1:]

    def at(mix: Array) -> object:
        return points(mix, scale_B2, 4e7, 2e9, False, mix * tokens_B1 / 3e8)

    _, jac_MPB = form.evaluate(theta_MP, at(mix_BK), cap_M, True)
    for p in range(theta_MP.shape[1]):
        step = np.zeros_like(theta_MP)
        step[:, p] = 1e-6
        ahead, behind = (form.evaluate(theta_MP + side * step, at(mix_BK), cap_M, False)[0] for side in (1, -1))
        np.testing.assert_allclose((ahead - behind) / 2e-6, jac_MPB[:, p], atol=1e-8)
    slope_MBK = form.gradient(theta_MP, mix_BK, at(mix_BK), cap_M)
    for k in range(3):
        move = 1e-7 * np.eye(3)[k]
        ahead, behind = (np.exp(form.evaluate(theta_MP, at(mix_BK + s * move), cap_M, False)[0]) for s in (1, -1))
        np.testing.assert_allclose((ahead - behind) / 2e-7, slope_MBK[..., k], rtol=1e-4, atol=1e-6)


def test_planted_decay_is_found() -> None:
    law = fitted(TiedUnion())
    assert isinstance(law, TiedUnion)
    assert np.exp(law.params_MP_[:, -1]) == pytest.approx(PLANTED, rel=0.35)
    mix_BK, scale_B2, _, unique_BK = runs(seed=1)
    wanted_BM = truth(mix_BK, scale_B2, unique_BK)
    aware = stocked(law, unique_BK).predict(mix_BK, scale_B2)
    blind = fitted(TiedUnion(), known=False).predict(mix_BK, scale_B2)
    assert np.abs(np.log(aware / wanted_BM)).mean() < 0.5 * np.abs(np.log(blind / wanted_BM)).mean()


@pytest.mark.parametrize("make", [TiedUnion, ResidualGP, Average], ids=lambda make: make.name)
def test_optimum_moves_away_from_repeats(make: Callable[[], TiedUnion | ResidualGP | Average]) -> None:
    """With .2B unique tokens of the first domain at 8B there is less of it in the optimum, as under the truth."""
    law, scale, weights_M = fitted(make()), (8e7, 8e9), np.array([0.6, 0.2, 0.2])
    polytope = Polytope.box(np.zeros(3), np.ones(3))
    at_hand = np.array([2e8, 1e12, np.nan])
    few, many = (minimise(ObjectiveAtScale(law, scale, weights_M), polytope) for law in (stocked(law, at_hand), law))
    grid = np.random.default_rng(0).dirichlet(np.ones(3), 20000)
    value = truth(grid, np.tile(scale, (len(grid), 1)), at_hand) @ weights_M
    assert few.mixture_K[0] < many.mixture_K[0] - 0.1
    assert few.mixture_K[0] == pytest.approx(grid[np.argmin(value), 0], abs=0.08)
    if make is TiedUnion:
        assert few.convex
        assert few.gap < 1e-4


def test_advice_counts_the_tokens_at_hand() -> None:
    law = fitted(TiedUnion())
    found = LawFile(law, ("a", "b", "c"), ("x", "y", "z"), np.array([0.6, 0.2, 0.2]))
    scale = Scale(8e7, 8e9)
    plenty, few = (advise(found, Wanted(scale, available={"a": tokens})) for tokens in (1e12, 2e8))
    assert few.mixture["a"] < plenty.mixture["a"] - 0.1
    assert few.objective.mean > plenty.objective.mean
    blind = advise(replace(found, law=fitted(TiedUnion(), known=False)), Wanted(scale, available={"a": 2e8}))
    assert any("count as fresh tokens: the runs had no columns" in note for note in blind.law["notes"])
    other = advise(replace(found, law=fitted(JointExposure(), known=False)), Wanted(scale, available={"a": 2e8}))
    assert any("count as fresh tokens: joint knows no others" in note for note in other.law["notes"])
    assert not any("count as fresh" in note for note in few.law["notes"])


def test_repeats_that_stages_make_otherwise_are_said() -> None:
    """Nine tenths of a run are fixed: half of the rest draws 5 times what there is of b, and the law counts 50."""
    domains = [{"name": "a"}, {"name": "b", "available_tokens": 1e8}, {"name": "c"}]
    raw = {"name": "s", "domains": domains, "eval_domains": ["x", "y", "z"]}
    raw |= {"ladder": [{"n_params": 8e7, "n_tokens": 1e10}], "target": {"n_params": 8e7, "n_tokens": 1e10}}
    fixed = {"stages": [{"tokens": 0.9, "mixture": {"a": 1}}, {"tokens": 0.1}]}
    mix_K, law = np.array([0.5, 0.5, 0.0]), fitted(TiedUnion())
    for recipe, said in ((fixed, True), ({}, False)):
        space = SearchSpace.parse(raw | {"recipe": recipe})
        notes = repeat_notes(space, objective_of(space, law), mix_K)
        assert any("of a run: 50.0 of b, in place of 5.0" in note for note in notes) == said


def test_queries_say_what_there_is_to_draw_from() -> None:
    found = LawFile(fitted(TiedUnion()), ("a", "b", "c"), ("x", "y", "z"), np.full(3, 1 / 3))
    asked = {"trial_id": "q", "n_params": 8e7, "n_tokens": 8e9, "mixture/a": 0.6, "mixture/b": 0.2, "mixture/c": 0.2}
    rows = [asked, asked | {"trial_id": "few", "unique/a": 2e8}]
    queries = Observations.from_rows(rows, ("a", "b", "c"), ())
    table, notes = predict_table(found, queries, "queries")
    fresh, few = table["loss/x"].to_pylist()
    assert few > fresh + 0.01 and not notes
    for law in (fitted(TiedUnion(), known=False), fitted(JointExposure(), known=False)):
        (note,) = predict_table(replace(found, law=law), queries, "queries")[1]
        assert note.startswith("1 rows draw more than there is by unique/<domain> (first few), and repeats count")
        assert ("joint knows no others" in note) == isinstance(law, JointExposure)


def test_json_keeps_what_repeats_are_worth() -> None:
    law = fitted(ResidualGP())
    again, at_hand = law_from_json(law.to_json()), np.array([1e8, 1e8, 1e8])
    mix_BK, scale_B2, _, _ = runs(n_mixtures=4)
    for read in ("predict", "gradient", "sd"):
        want, got = (getattr(stocked(one, at_hand), read)(mix_BK, scale_B2) for one in (law, again))
        np.testing.assert_array_equal(want, got)


def test_held_out_rows_are_read_with_their_own_tokens() -> None:
    mix_BK, scale_B2, loss_BM, unique_BK = runs()
    own_M = np.arange(3)
    tables = [as_table(mix_BK, scale_B2, loss_BM, None, own_M, unique) for unique in (unique_BK, None)]
    errors = [np.abs(np.log(cross_validate(TiedUnion, table) / loss_BM)).mean() for table in tables]
    assert errors[0] < 0.5 * errors[1]


def test_without_repeats_nothing_changes() -> None:
    """Unique tokens that were never drawn twice: the same fit; read where they are few, R* is the published one."""
    mix_BK, scale_B2, loss_BM, _ = runs()
    plain = TiedUnion().fit(mix_BK, scale_B2, loss_BM)
    told = TiedUnion().fit(mix_BK, scale_B2, loss_BM, unique_BK=np.full_like(mix_BK, 1e12))
    np.testing.assert_array_equal(plain.params_MP_, told.params_MP_)
    assert not told.saw_repeats_
    at_hand = np.full(3, 1e9)
    fresh_BM, worn_BM = (law.predict(mix_BK, scale_B2 * [1, 10]) for law in (told, stocked(told, at_hand)))
    assert (worn_BM > fresh_BM).all()
    np.testing.assert_array_equal(stocked(plain, at_hand).predict(mix_BK, scale_B2 * [1, 10]), fresh_BM)


def test_no_tokens_to_draw_a_share_from_is_refused() -> None:
    mix_BK, scale_B2, loss_BM, unique_BK = runs(n_mixtures=4)
    unique_BK[2, 1] = 0.0
    with pytest.raises(ValueError, match=r"unique_BK\[2, 1\] = 0"):
        TiedUnion().fit(mix_BK, scale_B2, loss_BM, unique_BK=unique_BK)
