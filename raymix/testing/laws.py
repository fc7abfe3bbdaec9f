"""The contract of a law, for our tests and for your own law: `check_law(lambda: MyLaw())`.

Each check is a plain function that raises AssertionError; LAW_CHECKS lists them, so that a test
suite can run them one by one, on the worlds of `synthetic`. A law that holds only somewhere (one scale,
two domains) is checked there: `check_law(make, world(n_domains=2))`.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from inspect import getattr_static

import numpy as np

from raymix.laws import law_from_json
from raymix.laws.base import Law
from raymix.testing.synthetic import SyntheticRuns, World, synthetic_runs

Make = Callable[[], Law]  # gives an unfitted law


def check_law(make: Make, world: World = synthetic_runs) -> None:
    """Run the whole contract on the law that `make` gives."""
    for check in LAW_CHECKS:
        check(make, world)


def check_nothing_is_missing(make: Make, world: World = synthetic_runs) -> None:
    """Every member of `Law` that is there before a fit; one inherited from the protocol says nothing."""
    law = make()
    wanted = {"name": None, "convex": None} | {name: had for name, had in vars(Law).items() if not name.startswith("_")}
    missing = [name for name, had in wanted.items() if getattr_static(law, name, None) in (None, had)]
    assert not missing, f"{type(law).__name__} lacks {', '.join(missing)}: raymix.laws.Law says what each is"


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


def check_what_two_mixtures_share_cancels(make: Make, world: World = synthetic_runs) -> None:
    """sd_between is (B, M), 0 between a mixture and itself, the same both ways and finite."""
    runs = world()
    law, mix_BK = runs.fit(make()), runs.mix_BK
    one_BM = law.sd_between(mix_BK, mix_BK[::-1], runs.scale_B2)
    assert one_BM.shape == runs.loss_BM.shape
    assert np.isfinite(one_BM).all() and (one_BM >= 0).all() and one_BM.max() > 0
    np.testing.assert_allclose(law.sd_between(mix_BK[::-1], mix_BK, runs.scale_B2), one_BM, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(law.sd_between(mix_BK, mix_BK, runs.scale_B2), 0, atol=1e-9)


def check_row_order_does_not_matter(make: Make, world: World = synthetic_runs) -> None:
    """Shuffled rows give the same law (1e-6)."""
    runs = world()
    shuffled = runs.take(np.random.default_rng(1).permutation(len(runs.mix_BK)))
    one, other = runs.fit(make()), shuffled.fit(make())
    for read in ("predict", "sd"):
        want = getattr(one, read)(runs.mix_BK, runs.scale_B2)
        np.testing.assert_allclose(getattr(other, read)(runs.mix_BK, runs.scale_B2), want, rtol=1e-6)


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


LAW_CHECKS: tuple[Callable[[Make, World], None], ...] = (
    check_nothing_is_missing,
    check_inputs_are_read_only,
    check_shapes_and_signs,
    check_what_two_mixtures_share_cancels,
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
