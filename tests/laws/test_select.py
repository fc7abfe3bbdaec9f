"""Cross-validation never leaks a mixture; bootstrap resamples runs."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from raymix.laws import TiedUnion, bootstrap, cross_validate, rank_correlation
from raymix.laws.base import Table, as_table
from raymix.laws.bootstrap import resample_runs
from raymix.laws.select import mixture_folds
from raymix.testing import SyntheticRuns, synthetic_runs


def table_of(runs: SyntheticRuns) -> Table:
    return as_table(runs.mix_BK, runs.scale_B2, runs.loss_BM, runs.run_B, runs.own_M)


def test_rows_of_a_mixture_share_a_fold() -> None:
    runs = synthetic_runs()
    fold_B = mixture_folds(runs.mix_BK, 5, 0)
    for mix_K in np.unique(runs.mix_BK, axis=0):
        assert len(np.unique(fold_B[(runs.mix_BK == mix_K).all(axis=1)])) == 1
    sizes = np.bincount(fold_B) // 9  # 9 rows per mixture
    assert sizes.max() - sizes.min() <= 1
    assert mixture_folds(runs.mix_BK, 99, 0).max() == 11  # one by one


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
    pred_BM = cross_validate(TiedUnion, table_of(runs))
    assert (np.abs(np.log(pred_BM / runs.loss_BM)).mean(axis=0) < 0.015).all()
    assert rank_correlation(pred_BM, runs.loss_BM, [1, 1, 1]) > 0.95


def test_eval_domain_missing_from_a_fold_stays_nan_there() -> None:
    runs = synthetic_runs()
    fold_B = mixture_folds(runs.mix_BK, 5, 0)
    loss_BM = runs.loss_BM.copy()
    loss_BM[fold_B != 2, 1] = np.nan
    pred_BM = cross_validate(TiedUnion, table_of(replace(runs, loss_BM=loss_BM)))
    assert np.isnan(pred_BM[fold_B == 2, 1]).all()
    assert np.isfinite(pred_BM[:, [0, 2]]).all()


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 25]) == pytest.approx(0.8)
    pred_BM, loss_BM = np.array([[1, 9], [2, 9], [3, 9.0]]), np.array([[3, np.nan], [2, 1], [1, 1]])
    assert rank_correlation(pred_BM, loss_BM, [1, 0]) == pytest.approx(-1)
    assert np.isnan(rank_correlation([1, 2], [1, 2]))


def test_resampled_runs_stay_whole() -> None:
    runs = synthetic_runs()
    drawn = resample_runs(table_of(runs), np.random.default_rng(0))
    assert len(np.unique(drawn.run_B)) == len(np.unique(runs.run_B))
    for run in np.unique(drawn.run_B):
        rows = drawn.run_B == run
        assert rows.sum() == 3
        assert len(np.unique(drawn.scale_B2[rows], axis=0)) == 3


def test_bootstrap_spreads_and_repeats() -> None:
    """Same rng, same laws; the settings go with the law; the spread is near the law's own parameter sd."""
    runs = synthetic_runs(noise=0.01)
    law = TiedUnion(pool=False, rows_per_run=2)
    one, two = (list(islice(bootstrap(law, table_of(runs), np.random.default_rng(3)), 8)) for _ in range(2))
    assert all(drawn.pool is False and drawn.rows_per_run == 2 for drawn in one)
    one_SBM, two_SBM = (np.stack([law.predict(runs.mix_BK, runs.scale_B2) for law in laws]) for laws in (one, two))
    np.testing.assert_array_equal(one_SBM, two_SBM)
    assert 0.0005 < np.median(np.log(one_SBM).std(axis=0)) < 0.01
