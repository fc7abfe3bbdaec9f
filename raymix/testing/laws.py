"""The contract of a law, for our tests and for your own law: `check_law(lambda: MyLaw())`.

Each check is a plain function that raises AssertionError; LAW_CHECKS lists them, so that a test
suite can run them one by one. Worlds here have a known truth: what a law is asked to find. A law that
holds only somewhere (one scale, two domains) is checked there: `check_law(make, world(n_domains=2))`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raymix.laws import law_from_json
from raymix.laws.base import Array, Ints, Law

Make = Callable[[], Law]  # gives an unfitted law
World = Callable[..., "SyntheticRuns"]  # takes the settings of `synthetic_runs`


@dataclass(frozen=True)
class SyntheticRuns:
    """Observations of a known surface: what `Law.fit` takes, and the losses without noise."""

    mix_BK: Array
    scale_B2: Array
    loss_BM: Array
    run_B: Ints
    own_M: Ints
    truth_BM: Array

    def fit(self, law: Law) -> Law:
        """`law` fitted on all of it."""
        return law.fit(self.mix_BK, self.scale_B2, self.loss_BM, self.run_B, self.own_M)

    def take(self, rows: Ints) -> "SyntheticRuns":
        """The rows named, in that order."""
        parts = {name: getattr(self, name)[rows] for name in ("mix_BK", "scale_B2", "loss_BM", "run_B", "truth_BM")}
        return replace(self, **parts)


def synthetic_runs(
    n_domains: int = 4,
    n_eval: int = 3,
    n_mixtures: int = 12,
    sizes: tuple[float, ...] = (2e7, 6e7, 2e8),
    tokens: tuple[float, ...] = (5e8, 1e9, 2e9),
    noise: float = 0.003,
    seed: int = 0,
    mixture_effect: float = 1.0,
) -> SyntheticRuns:
    """Every mixture trained at every size, measured at every token count; some shares are exactly 0.

    Truth: L = 1.5 + .5 (N/6e7 F)^-.3 + (D/1e9 F)^-.35 with F = .03 + sum_j t_j r_j^.7, and log t ~ N(log .3, .8)
    but t = 1 for the own domain. Noise is log-normal: half of the variance per run, half per row.
    `mixture_effect` is a power on F: 0 makes the shares irrelevant.
    """
    rng = np.random.default_rng(seed)
    mix_QK = rng.dirichlet(np.full(n_domains, 0.8), n_mixtures)
    mix_QK[mix_QK < 0.02] = 0.0
    mix_QK /= mix_QK.sum(axis=1, keepdims=True)
    weight_MK = np.exp(rng.normal(np.log(0.3), 0.8, (n_eval, n_domains)))
    own_M = np.arange(n_eval) % n_domains
    weight_MK[np.arange(n_eval), own_M] = 1.0
    grid = [(q, n, d) for q in range(n_mixtures) for n in sizes for d in tokens]
    mix_BK = mix_QK[[q for q, _, _ in grid]]
    scale_B2 = np.array([(n, d) for _, n, d in grid])
    factor_BM = (0.03 + mix_BK**0.7 @ weight_MK.T) ** mixture_effect
    n_B1, d_B1 = scale_B2[:, :1] / 6e7, scale_B2[:, 1:] / 1e9
    truth_BM = 1.5 + 0.5 * (n_B1 * factor_BM) ** -0.3 + (d_B1 * factor_BM) ** -0.35
    run_B = np.repeat(np.arange(n_mixtures * len(sizes)), len(tokens))
    run_noise = rng.normal(size=(n_mixtures * len(sizes), n_eval))[run_B]
    loss_BM = truth_BM * np.exp(noise * np.sqrt(0.5) * (run_noise + rng.normal(size=truth_BM.shape)))
    return SyntheticRuns(mix_BK, scale_B2, loss_BM, run_B, own_M, truth_BM)


def world(**fixed: Any) -> World:
    """`synthetic_runs` with these settings, whatever a check asks for."""
    return lambda **asked: synthetic_runs(**{**asked, **fixed})


def check_law(make: Make, world: World = synthetic_runs) -> None:
    """Run the whole contract on the law that `make` gives."""
    for check in LAW_CHECKS:
        check(make, world)


def check_inputs_are_read_only(make: Make, world: World = synthetic_runs) -> None:
    """Inputs may be read-only arrays, and are left as they were."""
    runs = world()
    arrays = [runs.mix_BK, runs.scale_B2, runs.loss_BM, runs.run_B, runs.own_M]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    law = runs.fit(make())
    for read in (law.predict, law.gradient, law.sd):
        read(runs.mix_BK, runs.scale_B2)
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


def check_shapes_and_signs(make: Make, world: World = synthetic_runs) -> None:
    """predict and sd are (B, M) and positive, gradient is (B, M, K); all are finite and float64."""
    runs = world()
    law = runs.fit(make())
    loss_BM, sd_BM = law.predict(runs.mix_BK, runs.scale_B2), law.sd(runs.mix_BK, runs.scale_B2)
    slope_BMK = law.gradient(runs.mix_BK, runs.scale_B2)
    assert loss_BM.shape == sd_BM.shape == runs.loss_BM.shape
    assert slope_BMK.shape == (*runs.loss_BM.shape, runs.mix_BK.shape[1])
    for array in (loss_BM, sd_BM, slope_BMK):
        assert array.dtype == np.float64
        assert np.isfinite(array).all()
    assert (loss_BM > 0).all()
    assert (sd_BM > 0).all()


def check_row_order_does_not_matter(make: Make, world: World = synthetic_runs) -> None:
    """Shuffled rows give the same law (1e-6)."""
    runs = world()
    shuffled = runs.take(np.random.default_rng(1).permutation(len(runs.mix_BK)))
    _assert_same_predictions(runs.fit(make()), shuffled.fit(make()), runs)


def check_order_of_eval_domains_does_not_matter(make: Make, world: World = synthetic_runs) -> None:
    """Permuted eval domains give permuted losses (1e-6)."""
    runs = world()
    order_M = np.random.default_rng(2).permutation(runs.loss_BM.shape[1])
    permuted = replace(runs, loss_BM=runs.loss_BM[:, order_M], own_M=runs.own_M[order_M]).fit(make())
    want_BM = runs.fit(make()).predict(runs.mix_BK, runs.scale_B2)[:, order_M]
    np.testing.assert_allclose(permuted.predict(runs.mix_BK, runs.scale_B2), want_BM, rtol=1e-6)


def check_order_of_domains_does_not_matter(make: Make, world: World = synthetic_runs) -> None:
    """Permuted training domains give the same losses (1e-6)."""
    runs = world()
    order_K = np.random.default_rng(3).permutation(runs.mix_BK.shape[1])
    own_M = np.argsort(order_K)[runs.own_M]
    permuted = replace(runs, mix_BK=runs.mix_BK[:, order_K], own_M=own_M).fit(make())
    want_BM = runs.fit(make()).predict(runs.mix_BK, runs.scale_B2)
    np.testing.assert_allclose(permuted.predict(runs.mix_BK[:, order_K], runs.scale_B2), want_BM, rtol=1e-6)


def check_gradient_is_the_slope(make: Make, world: World = synthetic_runs) -> None:
    """The gradient equals central differences along tangents of the simplex, inside it."""
    runs = world()
    law = runs.fit(make())
    rng = np.random.default_rng(4)
    mix_BK = 0.2 / runs.mix_BK.shape[1] + 0.8 * runs.mix_BK
    step_BK = rng.normal(size=mix_BK.shape)
    step_BK -= step_BK.mean(axis=1, keepdims=True)
    h = 1e-5
    ahead_BM, behind_BM = (law.predict(mix_BK + side * h * step_BK, runs.scale_B2) for side in (1, -1))
    slope_BM = np.einsum("bmk,bk->bm", law.gradient(mix_BK, runs.scale_B2), step_BK)
    np.testing.assert_allclose((ahead_BM - behind_BM) / (2 * h), slope_BM, rtol=1e-5, atol=1e-6)


def check_json_round_trip_is_exact(make: Make, world: World = synthetic_runs) -> None:
    """Written to JSON text and read back, a law predicts the same to the last bit."""
    runs = world()
    law = runs.fit(make())
    again = law_from_json(json.loads(json.dumps(law.to_json(), allow_nan=False)))
    assert again.to_json() == law.to_json()
    for read in ("predict", "gradient", "sd"):
        want = getattr(law, read)(runs.mix_BK, runs.scale_B2)
        np.testing.assert_array_equal(getattr(again, read)(runs.mix_BK, runs.scale_B2), want)


def check_second_fit_is_the_same(make: Make, world: World = synthetic_runs) -> None:
    """Fitting again, on an object already fitted to something else, changes nothing; predict is pure."""
    runs = world()
    law = runs.fit(make())
    first_BM = law.predict(runs.mix_BK, runs.scale_B2)
    np.testing.assert_array_equal(law.predict(runs.mix_BK, runs.scale_B2), first_BM)
    world(n_domains=2, n_eval=1, seed=5).fit(law)
    np.testing.assert_array_equal(runs.fit(law).predict(runs.mix_BK, runs.scale_B2), first_BM)


def check_law_recovers_itself(make: Make, world: World = synthetic_runs) -> None:
    """Refitted on its own predictions, a law gives them back, also at unseen mixtures.

    Within 1% everywhere and .1% on average: priors pull by no more than a few times the least noise a
    law may assume (.4% for ours), and that only where the data are thin.
    """
    runs = world(n_mixtures=20)
    law = runs.fit(make())
    own = replace(runs, loss_BM=law.predict(runs.mix_BK, runs.scale_B2)).fit(make())
    other = world(n_mixtures=10, seed=6)
    for mix_BK, scale_B2 in ((runs.mix_BK, runs.scale_B2), (other.mix_BK, other.scale_B2)):
        error_BM = np.abs(np.log(own.predict(mix_BK, scale_B2) / law.predict(mix_BK, scale_B2)))
        assert error_BM.max() < 0.01, error_BM.max()
        assert error_BM.mean() < 0.001, error_BM.mean()


def check_corners_are_finite(make: Make, world: World = synthetic_runs) -> None:
    """Shares of 0 and single-domain mixtures have finite losses, slopes and sd, seen or not."""
    runs = world()
    law = runs.fit(make())
    corners_KK = np.eye(runs.mix_BK.shape[1])
    for read in (law.predict, law.gradient, law.sd):
        assert np.isfinite(read(corners_KK, np.array([6e7, 1e9]))).all()
    both = replace(
        runs, mix_BK=np.where(runs.run_B[:, None] % 2 == 0, corners_KK[runs.run_B % len(corners_KK)], runs.mix_BK)
    )
    assert np.isfinite(both.fit(make()).predict(corners_KK, np.array([6e7, 1e9]))).all()


def check_missing_losses_are_left_out(make: Make, world: World = synthetic_runs) -> None:
    """NaN losses are as if not there: the other eval domains do not notice, the ragged one is as fitted without."""
    runs = world()
    known_B = np.random.default_rng(7).random(len(runs.mix_BK)) >= 0.3
    ragged_BM = runs.loss_BM.copy()
    ragged_BM[~known_B, 0] = np.nan
    got_BM = replace(runs, loss_BM=ragged_BM).fit(make()).predict(runs.mix_BK, runs.scale_B2)
    want_BM = runs.fit(make()).predict(runs.mix_BK, runs.scale_B2)
    alone = runs.take(np.flatnonzero(known_B))
    alone = replace(alone, loss_BM=alone.loss_BM[:, :1], own_M=alone.own_M[:1])
    want_BM[:, :1] = alone.fit(make()).predict(runs.mix_BK, runs.scale_B2)
    np.testing.assert_allclose(got_BM, want_BM, rtol=0.02)


def check_any_number_of_domains(make: Make, world: World = synthetic_runs) -> None:
    """From 2 to 64 training domains."""
    for n_domains in (2, 3, 17, 64):
        runs = world(n_domains=n_domains, n_eval=2, n_mixtures=10, tokens=(1e9, 2e9))
        law = runs.fit(make())
        assert np.isfinite(law.predict(runs.mix_BK, runs.scale_B2)).all()
        assert np.isfinite(law.sd(runs.mix_BK, runs.scale_B2)).all()


def check_little_data(make: Make, world: World = synthetic_runs) -> None:
    """One run, one row, one eval domain: finite, and close to the only thing seen."""
    runs = world(n_eval=1)
    for rows in (np.flatnonzero(runs.run_B == 0), np.array([0])):
        few = runs.take(rows)
        law = few.fit(make())
        np.testing.assert_allclose(law.predict(few.mix_BK, few.scale_B2), few.loss_BM, rtol=0.05)
        far_BM = law.predict(runs.mix_BK, runs.scale_B2)
        assert np.isfinite(far_BM).all()
        assert np.isfinite(law.sd(runs.mix_BK, runs.scale_B2)).all()


def check_scale_may_be_one_point(make: Make, world: World = synthetic_runs) -> None:
    """One (N, D) for all rows may be given as a pair."""
    runs = world()
    law = runs.fit(make())
    scale_2 = np.array([1e8, 3e9])
    want_BM = law.predict(runs.mix_BK, np.tile(scale_2, (len(runs.mix_BK), 1)))
    np.testing.assert_array_equal(law.predict(runs.mix_BK, scale_2), want_BM)


def check_nonsense_is_refused(make: Make, world: World = synthetic_runs) -> None:
    """What cannot be losses, shares or scales is a ValueError that says so."""
    runs = world()
    bad = {
        "loss_BM": [
            np.where(runs.loss_BM > np.median(runs.loss_BM), -1.0, runs.loss_BM),
            runs.loss_BM[:-1],
            runs.loss_BM * np.nan,
        ],
        "mix_BK": [runs.mix_BK * 2, runs.mix_BK * np.nan, runs.mix_BK[0]],
        "scale_B2": [runs.scale_B2 * 0, runs.scale_B2[:, :1]],
        "own_M": [runs.own_M + 9],
        "run_B": [runs.run_B[:-1]],
    }
    for name, values in bad.items():
        for value in values:
            assert _refuses(make(), replace(runs, **{name: value})), f"a bad {name} was accepted"


def _refuses(law: Law, runs: SyntheticRuns) -> bool:
    try:
        runs.fit(law)
    except ValueError as error:
        return len(str(error)) > 0
    return False


def _assert_same_predictions(one: Law, other: Law, runs: SyntheticRuns) -> None:
    for read in ("predict", "sd"):
        want = getattr(one, read)(runs.mix_BK, runs.scale_B2)
        np.testing.assert_allclose(getattr(other, read)(runs.mix_BK, runs.scale_B2), want, rtol=1e-6)


LAW_CHECKS: tuple[Callable[[Make, World], None], ...] = (
    check_inputs_are_read_only,
    check_shapes_and_signs,
    check_row_order_does_not_matter,
    check_order_of_eval_domains_does_not_matter,
    check_order_of_domains_does_not_matter,
    check_gradient_is_the_slope,
    check_json_round_trip_is_exact,
    check_second_fit_is_the_same,
    check_law_recovers_itself,
    check_corners_are_finite,
    check_missing_losses_are_left_out,
    check_any_number_of_domains,
    check_little_data,
    check_scale_may_be_one_point,
    check_nonsense_is_refused,
)
