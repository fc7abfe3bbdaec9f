"""The default law: its formula, its regimes, and what it promises beyond the contract."""

import numpy as np
import pytest

from raymix.laws import TiedUnion, law_from_json
from raymix.laws.exposure import points
from raymix.laws.union_forms import Form, OneFactor, TwoFactors
from raymix.testing import synthetic_runs

FIXED = (TwoFactors(3, fixed_offset=True), OneFactor(3, fixed_offset=True))
FORMS = (TwoFactors(3), OneFactor(3), OneFactor(3, one_d=True), *FIXED)


def test_two_factors_by_hand() -> None:
    """N = 2 N0, D = 4 D0, r = (1/4, 3/4, 0): every term written out."""
    level = [0.0, np.log(0.8), np.log(0.5), np.log(0.6), np.log(0.25), 0.0, np.log(0.1)]  # E, A, al, B, be, b, e
    t, u = np.array([1.0, 0.5, 9.0]), np.array([2.0, 1.0, 9.0])
    theta_1P = np.array([[*level, *np.log(t), *np.log(u)]])
    at = points(np.array([[0.25, 0.75, 0.0]]), np.array([[2e6, 4e9]]), 1e6, 1e9, merge=False)
    factor_t, factor_u = 0.1 + 0.5 + 0.5 * np.sqrt(0.75), 0.1 + 2 * 0.5 + np.sqrt(0.75)
    want = 0.5 * 1.7 + 0.8 * (2 * factor_u) ** -0.5 + 0.6 * (4 * factor_t) ** -0.25
    log_11, _ = TwoFactors(3).evaluate(theta_1P, at, np.array([1.7]), False)
    assert np.exp(log_11[0, 0]) == pytest.approx(want, rel=1e-13)


def test_one_factor_by_hand() -> None:
    """N = 2 N0, D = 4 D0: [A n^-al + B d^-be + C] F^-q."""
    logs = [np.log(x) for x in (0.8, 0.5, 0.6, 0.25, 0.3, 0.2)]
    theta_1P = np.array([[0.0, *logs, 0.0, np.log(0.1), 0.0, np.log(0.5), np.log(9.0)]])
    at = points(np.array([[0.25, 0.75, 0.0]]), np.array([[2e6, 4e9]]), 1e6, 1e9, merge=False)
    factor = 0.1 + 0.5 + 0.5 * np.sqrt(0.75)
    want = 0.5 * 1.7 + (0.8 * 2**-0.5 + 0.6 * 4**-0.25 + 0.3) * factor**-0.2
    log_11, _ = OneFactor(3).evaluate(theta_1P, at, np.array([1.7]), False)
    assert np.exp(log_11[0, 0]) == pytest.approx(want, rel=1e-13)


def test_a_fixed_offset_is_divided_by_the_tokens() -> None:
    """The same by hand with e / d: in the factor of tokens alone, or in the only one."""
    share_K = np.array([0.25, 0.75, 0.0])
    at = points(share_K[None], np.array([[2e6, 4e9]]), 1e6, 1e9, merge=False)
    level = [0.0, np.log(0.8), np.log(0.5), np.log(0.6), np.log(0.25), 0.0, np.log(0.1)]
    t, u = np.array([1.0, 0.5, 9.0]), np.array([2.0, 1.0, 9.0])
    fixed_t, factor_u = 0.1 / 4 + t @ np.sqrt(share_K), 0.1 + u @ np.sqrt(share_K)
    want = 0.5 * 1.7 + 0.8 * (2 * factor_u) ** -0.5 + 0.6 * (4 * fixed_t) ** -0.25
    log_11, _ = FIXED[0].evaluate(np.array([[*level, *np.log(t), *np.log(u)]]), at, np.array([1.7]), False)
    assert np.exp(log_11[0, 0]) == pytest.approx(want, rel=1e-13)
    logs = [np.log(x) for x in (0.8, 0.5, 0.6, 0.25, 0.3, 0.2)]
    want = 0.5 * 1.7 + (0.8 * 2**-0.5 + 0.6 * 4**-0.25 + 0.3) * fixed_t**-0.2
    log_11, _ = FIXED[1].evaluate(np.array([[0.0, *logs, 0.0, np.log(0.1), *np.log(t)]]), at, np.array([1.7]), False)
    assert np.exp(log_11[0, 0]) == pytest.approx(want, rel=1e-13)


@pytest.mark.parametrize(
    "form", FORMS, ids=["two factors", "one factor", "one factor, one D", "two, fixed offset", "one, fixed offset"]
)
def test_jacobian_is_the_slope_of_log_loss(form: Form) -> None:
    runs = synthetic_runs(n_domains=3)
    prior = form.prior(np.log([3.0, 2.0, 4.0]), np.array([0, -1, 2]))
    theta_MP = prior.mean_MP + 0.3 * np.random.default_rng(0).normal(size=prior.mean_MP.shape)
    at, cap_M = points(runs.mix_BK, runs.scale_B2, 6e7, 1e9, merge=True), np.array([2.0, 1.5, 3.0])
    _, jac_MPB = form.evaluate(theta_MP, at, cap_M, True)
    assert jac_MPB is not None
    for p in range(theta_MP.shape[1]):
        step = np.zeros_like(theta_MP)
        step[:, p] = 1e-6
        ahead, behind = (form.evaluate(theta_MP + side * step, at, cap_M, False)[0] for side in (1, -1))
        np.testing.assert_allclose((ahead - behind) / 2e-6, jac_MPB[:, p], atol=1e-8)


def test_prior_knows_the_own_domain() -> None:
    prior = TwoFactors(4).prior(np.zeros(2), np.array([1, -1]))
    others, all_of_them = np.log(0.9 / 3), np.log(1.5 / 4)
    t_K = np.array([others, 0, others, others])
    np.testing.assert_allclose(prior.mean_MP[0, 7:], [*t_K, *(0.7 * t_K)])
    np.testing.assert_allclose(prior.mean_MP[1, 7:], [all_of_them] * 4 + [0.7 * all_of_them] * 4)


def test_prior_does_not_grow_with_the_number_of_domains() -> None:
    """Data cut into more domains are no more useful: the prior's sum of t stays, that beside the own domain too."""
    for form in (TwoFactors, OneFactor):
        for n_domains in (2, 7, 17):
            kind = form(n_domains)
            first = len(kind.scalars)
            t_MK = np.exp(kind.prior(np.zeros(2), np.array([0, -1])).mean_MP[:, first : first + n_domains])
            np.testing.assert_allclose([t_MK[0, 1:].sum(), t_MK[1].sum()], [0.9, 1.5])


def test_share_of_zero_contributes_exactly_nothing() -> None:
    """A training domain never used changes no prediction where its share is 0."""
    runs = synthetic_runs()
    law = runs.fit(TiedUnion())
    data = law.to_json()
    shifted = law_from_json(data)
    assert isinstance(shifted, TiedUnion)
    shifted.params_MP_[:, [7, 11]] += 5.0  # t and u of the first training domain
    without = runs.mix_BK[:, 0] == 0
    assert without.any()
    mix_BK, scale_B2 = runs.mix_BK[without], runs.scale_B2[without]
    np.testing.assert_array_equal(shifted.predict(mix_BK, scale_B2), law.predict(mix_BK, scale_B2))


def test_no_floor_reaches_the_least_loss() -> None:
    """E is a part of the cap, and what was measured lies above it."""
    runs = synthetic_runs(n_mixtures=4)
    np.testing.assert_allclose(runs.fit(TiedUnion()).cap_M_, 0.98 * runs.loss_BM.min(axis=0))


def test_unseen_mixtures_at_the_next_size_within_1_percent() -> None:
    """Trained at 20M and 60M, read at 200M on new mixtures: within 1% on average (noise .3%)."""
    runs = synthetic_runs(n_mixtures=24)
    new_B = runs.run_B >= runs.run_B.max() * 2 // 3
    large_B = runs.scale_B2[:, 0] == 2e8
    law = runs.take(np.flatnonzero(~new_B & ~large_B)).fit(TiedUnion())
    asked = runs.take(np.flatnonzero(new_B & large_B))
    error_BM = np.log(law.predict(asked.mix_BK, asked.scale_B2) / asked.truth_BM)
    assert np.abs(error_BM).mean() < 0.01


def test_interval_covers_the_truth() -> None:
    """Over 20 worlds the 90% interval for new runs holds 85-100% of them (binomial noise: 2% or so)."""
    inside = []
    for seed in range(20):
        runs = synthetic_runs(n_mixtures=16, noise=0.006, seed=seed)
        new_B = runs.run_B >= runs.run_B.max() * 3 // 4
        law, test = runs.take(np.flatnonzero(~new_B)).fit(TiedUnion()), runs.take(np.flatnonzero(new_B))
        error_BM = np.log(law.predict(test.mix_BK, test.scale_B2) / test.loss_BM)
        inside.append((np.abs(error_BM) <= 1.645 * law.sd(test.mix_BK, test.scale_B2)).mean())
    assert 0.85 <= np.mean(inside) <= 1.0


def test_interval_is_wider_outside_the_data() -> None:
    runs = synthetic_runs()
    law = runs.fit(TiedUnion())
    at, beyond = (law.sd(runs.mix_BK[:1], np.array([n, 1e9])) for n in (2e8, 2e9))
    assert (beyond > 1.3 * at).all()


@pytest.mark.parametrize(
    ("sizes", "tokens", "notes"),
    [
        ((2e7, 6e7), (5e8, 1e9), []),
        ((6e7,), (5e8, 1e9), ["n_params is prior only"]),
        ((2e7, 6e7), (1e9,), ["n_tokens is prior only"]),
        ((6e7,), (1e9,), ["n_params is prior only", "n_tokens is prior only"]),
    ],
)
def test_what_the_data_cannot_tell_is_noted(
    sizes: tuple[float, ...], tokens: tuple[float, ...], notes: list[str]
) -> None:
    law = synthetic_runs(sizes=sizes, tokens=tokens).fit(TiedUnion())
    assert len(law.notes_) == len(notes)
    assert all(note in found for note, found in zip(notes, law.notes_, strict=True))


def test_one_mixture_is_noted() -> None:
    runs = synthetic_runs()
    law = runs.take(np.flatnonzero(runs.run_B < 3)).fit(TiedUnion())
    assert any("one mixture" in note for note in law.notes_)


def test_one_outlier_does_not_move_the_rest() -> None:
    """A diverged run's losses (x 2) move the other predictions by less than 1%."""
    runs = synthetic_runs()
    spoilt_BM = np.where(runs.run_B[:, None] == 4, 2 * runs.loss_BM, runs.loss_BM)
    clean = runs.fit(TiedUnion()).predict(runs.mix_BK, runs.scale_B2)
    spoilt = TiedUnion().fit(runs.mix_BK, runs.scale_B2, spoilt_BM, runs.run_B, runs.own_M)
    moved_BM = np.abs(np.log(spoilt.predict(runs.mix_BK, runs.scale_B2) / clean))
    assert np.median(moved_BM) < 0.01


def test_gradient_at_zero_share_is_steep_and_finite() -> None:
    """dL/dr -> -inf at r = 0 (b < 1): finite here, and steeper than anywhere inside."""
    runs = synthetic_runs()
    law = runs.fit(TiedUnion())
    corner, inside = np.array([[1.0, 0, 0, 0]]), np.full((1, 4), 0.25)
    slope, calm = (law.gradient(mix, np.array([6e7, 1e9])) for mix in (corner, inside))
    assert np.isfinite(slope).all()
    assert (slope[..., 1:] < calm[..., 1:]).all()
