"""Cross-validation never leaks a mixture; bootstrap resamples runs."""

import numpy as np
import pytest

from raymix.laws import (
    TiedUnion,
    bootstrap,
    cross_validate,
    cross_validate_sizes,
    draws,
    noise_level,
    rank_correlation,
)
from raymix.laws.base import as_table
from raymix.laws.bootstrap import resample_runs
from raymix.laws.select import mixture_folds
from raymix.testing import synthetic_runs


def test_rows_of_a_mixture_share_a_fold() -> None:
    runs = synthetic_runs()
    fold_B = mixture_folds(runs.mix_BK, 5, 0)
    for mix_K in np.unique(runs.mix_BK, axis=0):
        assert len(np.unique(fold_B[(runs.mix_BK == mix_K).all(axis=1)])) == 1
    sizes = np.bincount(fold_B) // 9  # 9 rows per mixture
    assert sizes.max() - sizes.min() <= 1
    assert mixture_folds(runs.mix_BK, "loo", 0).max() == 11


def test_folds_do_not_depend_on_row_order() -> None:
    runs = synthetic_runs()
    order_B = np.random.default_rng(0).permutation(len(runs.mix_BK))
    fold_B = mixture_folds(runs.mix_BK, 5, 0)
    np.testing.assert_array_equal(mixture_folds(runs.mix_BK[order_B], 5, 0), fold_B[order_B])


def test_folds_do_not_depend_on_the_order_of_domains() -> None:
    """Shares that are summed in another order differ in the last digit; that changes nothing either."""
    mix_BK = np.random.default_rng(1).dirichlet(np.ones(6), 64)
    fold_B = mixture_folds(mix_BK, 5, 0)
    for seed in range(5):
        moved_BK = mix_BK[:, np.random.default_rng(seed).permutation(6)]
        moved_BK = moved_BK / moved_BK.sum(axis=1, keepdims=True)
        np.testing.assert_array_equal(mixture_folds(moved_BK, 5, 0), fold_B)


def test_held_out_predictions_are_good_and_complete() -> None:
    """Mixtures held out from a world of the law's own family: 1.5% on average with 12 mixtures of 4 domains."""
    runs = synthetic_runs()
    found = cross_validate(TiedUnion, runs.mix_BK, runs.scale_B2, runs.loss_BM, runs.run_B, runs.own_M)
    assert np.isfinite(found.pred_BM).all()
    assert (found.error_M < 0.015).all()
    assert (found.coverage_M > 0.7).all()
    assert found.weighted_error([1, 1, 1]) < found.error_M.max()
    assert rank_correlation(found.pred_BM, found.loss_BM, [1, 1, 1]) > 0.95


def test_sizes_are_predicted_from_smaller_ones() -> None:
    runs = synthetic_runs()
    found = cross_validate_sizes(TiedUnion, runs.mix_BK, runs.scale_B2, runs.loss_BM, runs.run_B, runs.own_M)
    np.testing.assert_array_equal(found.fold_B >= 0, runs.scale_B2[:, 0] == 2e8)
    assert (found.error_M < 0.02).all()
    one = synthetic_runs(sizes=(6e7,))
    with pytest.raises(ValueError, match="two sizes"):
        cross_validate_sizes(TiedUnion, one.mix_BK, one.scale_B2, one.loss_BM)


def test_eval_domain_missing_from_a_fold_stays_nan_there() -> None:
    runs = synthetic_runs()
    fold_B = mixture_folds(runs.mix_BK, 5, 0)
    loss_BM = runs.loss_BM.copy()
    loss_BM[fold_B != 2, 1] = np.nan
    found = cross_validate(TiedUnion, runs.mix_BK, runs.scale_B2, loss_BM, runs.run_B, runs.own_M)
    assert np.isnan(found.pred_BM[fold_B == 2, 1]).all()
    assert np.isfinite(found.pred_BM[:, [0, 2]]).all()
    assert np.isnan(found.error_M[1])


def test_noise_of_replicates_is_found() -> None:
    """40 pairs with 1% noise: within 30% (sampling sd 11%); without replicates the misfit stands in."""
    rng = np.random.default_rng(0)
    mix_BK = np.repeat(rng.dirichlet(np.ones(3), 40), 2, axis=0)
    loss_BM = 3 * np.exp(0.01 * rng.normal(size=(80, 2)))
    scale_2 = np.array([1e7, 1e9])
    np.testing.assert_allclose(noise_level(mix_BK, scale_2, loss_BM), 0.01, rtol=0.3)
    assert np.isnan(noise_level(mix_BK[::2], scale_2, loss_BM[::2])).all()
    np.testing.assert_allclose(noise_level(mix_BK[::2], scale_2, loss_BM[::2], loss_BM[::2] * 1.01), 0.00995, rtol=1e-3)


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 25]) == pytest.approx(0.8)
    pred_BM, loss_BM = np.array([[1, 9], [2, 9], [3, 9.0]]), np.array([[3, np.nan], [2, 1], [1, 1]])
    assert rank_correlation(pred_BM, loss_BM, [1, 0]) == pytest.approx(-1)
    assert np.isnan(rank_correlation([1, 2], [1, 2]))


def test_resampled_runs_stay_whole() -> None:
    runs = synthetic_runs()
    table = as_table(runs.mix_BK, runs.scale_B2, runs.loss_BM, runs.run_B, runs.own_M)
    drawn = resample_runs(table, np.random.default_rng(0))
    assert len(np.unique(drawn.run_B)) == len(np.unique(runs.run_B))
    for run in np.unique(drawn.run_B):
        rows = drawn.run_B == run
        assert rows.sum() == 3
        assert len(np.unique(drawn.scale_B2[rows], axis=0)) == 3


def test_bootstrap_spreads_and_repeats() -> None:
    """Same rng, same draws; the settings go with the law; the spread is near the law's own parameter sd."""
    runs = synthetic_runs(noise=0.01)
    law = TiedUnion(pool=False, rows_per_run=2)
    given = (runs.mix_BK, runs.scale_B2, runs.loss_BM, runs.run_B, runs.own_M)
    one, two = (bootstrap(law, *given, n_draws=8, rng=np.random.default_rng(3)) for _ in range(2))
    draws_SBM = draws(one, runs.mix_BK, runs.scale_B2)
    assert draws_SBM.shape == (8, *runs.loss_BM.shape)
    np.testing.assert_array_equal(draws_SBM, draws(two, runs.mix_BK, runs.scale_B2))
    assert all(isinstance(drawn, TiedUnion) and drawn.rows_per_run == 2 for drawn in one)
    spread_BM = np.log(draws_SBM).std(axis=0)
    assert 0.0005 < np.median(spread_BM) < 0.01
