"""Which rows a law is fitted on: past the warm-up, and no run shouting down the others."""

import numpy as np

from raymix.laws.base import Array, Flags, Ints, Table

SAME_SCALE = 0.01  # sizes or token counts within 1% count as one: recipes round widths and steps


def canonical_order(table: Table) -> Table:
    """The rows sorted by mixture, scale and losses, so that the order given never changes a fit."""
    keys_BC = np.column_stack([table.mix_BK, table.scale_B2, np.nan_to_num(table.loss_BM)])
    return table.take(np.lexsort(keys_BC.T[::-1]).astype(np.int64))


def usable_rows(table: Table, warmup: float, rows_per_run: int) -> Flags:
    """Rows to use per eval domain (M, B): measured, after warm-up, at most `rows_per_run` evenly in log D.

    Rows before `warmup` times the run's last D are dropped; `table` must be in canonical order.
    """
    pattern_CB, which_M = np.unique(np.isfinite(table.loss_BM).T, axis=0, return_inverse=True)
    log_d_B = np.log(table.scale_B2[:, 1])
    used_CB = np.zeros_like(pattern_CB)
    for pattern, measured_B in enumerate(pattern_CB):
        for rows in _rows_by_run(table.run_B, np.flatnonzero(measured_B)):
            late = rows[log_d_B[rows] >= log_d_B[rows].max() + np.log(max(warmup, 1e-300)) - 1e-9]
            used_CB[pattern, late[spread(log_d_B[late], rows_per_run)]] = True
    return used_CB[which_M.ravel()]


def _rows_by_run(run_B: Ints, rows: Ints) -> list[Ints]:
    order = rows[np.argsort(run_B[rows], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(run_B[order])) + 1)


def spread(x_B: Array, n: int) -> Ints:
    """Indices of at most `n` values, those nearest to n points evenly between the least and the greatest."""
    if len(x_B) <= n:
        return np.arange(len(x_B))
    aim_n = np.linspace(x_B.min(), x_B.max(), n) if n > 1 else np.array([x_B.max()])
    return np.unique(np.abs(x_B[None, :] - aim_n[:, None]).argmin(axis=1))


def distinct(values_B: Array) -> Array:
    """Geometric means of the groups of values closer than SAME_SCALE, ascending."""
    log_B = np.sort(np.log(values_B))
    groups = np.split(log_B, np.flatnonzero(np.diff(log_B) > SAME_SCALE) + 1)
    return np.exp([group.mean() for group in groups])


def whole_runs(run_B: Ints, max_rows: int) -> Ints:
    """Rows of as many whole runs as fit in `max_rows`, taken evenly in the order given."""
    if len(run_B) <= max_rows:
        return np.arange(len(run_B))
    _, first, count = np.unique(run_B, return_index=True, return_counts=True)
    order = np.argsort(first)
    keep = max(1, int(max_rows / count.max()))
    chosen = order[np.unique(np.linspace(0, len(order) - 1, keep).round().astype(int))]
    return np.flatnonzero(np.isin(run_B, run_B[first[chosen]]))
