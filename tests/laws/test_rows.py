"""Which rows a law reads, and how runs are guessed where none are given."""

import numpy as np
import pytest

from raymix.laws.base import as_mixtures, as_table
from raymix.laws.rows import canonical_order, distinct, spread, usable_rows


def test_warm_up_is_left_out_and_long_runs_are_thinned() -> None:
    tokens_B = np.arange(1, 101) * 1e8
    scale_B2 = np.column_stack([np.full(100, 1e7), tokens_B])
    table = canonical_order(as_table(np.tile([0.5, 0.5], (100, 1)), scale_B2, np.full((100, 1), 3.0), None, None))
    used_1B = usable_rows(table, 0.1, 8)
    kept_B = table.scale_B2[used_1B[0], 1]
    assert len(kept_B) == 8
    assert (kept_B[0], kept_B[-1]) == (10e8, 100e8)
    np.testing.assert_allclose(np.diff(np.log(kept_B)), np.log(10) / 7, atol=0.06)  # a step is up to .1


def test_rows_are_chosen_among_those_measured() -> None:
    """An eval domain measured rarely keeps its rows, whatever the others do."""
    scale_B2 = np.column_stack([np.full(40, 1e7), np.arange(1, 41) * 1e8])
    loss_BM = np.full((40, 2), 3.0)
    loss_BM[np.arange(40) % 10 != 5, 1] = np.nan
    table = canonical_order(as_table(np.tile([0.5, 0.5], (40, 1)), scale_B2, loss_BM, None, None))
    used_MB = usable_rows(table, 0.1, 8)
    assert used_MB.sum(axis=1).tolist() == [8, 4]


def test_replicates_without_run_ids_are_runs_of_their_own() -> None:
    mix_BK = np.tile([0.5, 0.5], (6, 1))
    scale_B2 = np.column_stack([np.full(6, 1e7), [1e9, 2e9] * 3])
    table = as_table(mix_BK, scale_B2, np.arange(1.0, 7.0)[:, None], None, None)
    assert len(np.unique(table.run_B)) == 3
    assert [len(np.unique(scale_B2[table.run_B == run, 1])) for run in np.unique(table.run_B)] == [2, 2, 2]


def test_spread_takes_ends_and_no_row_twice() -> None:
    assert spread(np.array([0.0, 0.01, 0.02, 5.0, 10.0]), 3).tolist() == [0, 3, 4]
    assert spread(np.zeros(5), 3).tolist() == [0]
    assert spread(np.arange(2.0), 3).tolist() == [0, 1]


def test_sizes_within_1_percent_are_one() -> None:
    np.testing.assert_allclose(distinct(np.array([1e8, 1.004e8, 3e8])), [1.002e8, 3e8], rtol=1e-5)


def test_rounded_shares_are_renormalised_and_nonsense_refused() -> None:
    np.testing.assert_allclose(as_mixtures([[0.333, 0.333, 0.333]]), 1 / 3)
    assert as_mixtures([[1.0, -1e-9]])[0, 1] == 0
    for bad, why in (([[0.5, 0.3]], "sum 0.8"), ([[1.2, -0.2]], "least share -0.2"), ([[np.nan, 1]], "finite")):
        with pytest.raises(ValueError, match=why):
            as_mixtures(bad)
