"""Which rows a law is fitted on: past the warm-up, and no run shouting down the others."""

import numpy as np

from raymix.laws.base import Array, Flags, Ints, Table

WARMUP, ROWS_PER_RUN = 0.1, 8  # the rows that laws are fitted on by default, and judged by
SAME_SCALE = 0.01  # sizes or token counts within 1% count as one: recipes round widths and steps
NOMINAL = 0.3  # in logs: so much may a size or a length that was asked for differ from the one trained


def canonical_order(table: Table) -> Table:
    """The rows sorted by mixture, scale and losses, so that the order given never changes a fit."""
    keys_BC = np.column_stack([table.mix_BK, table.scale_B2, np.nan_to_num(table.loss_BM)])
    return table.take(np.lexsort(keys_BC.T[::-1]).astype(np.int64))


def mixture_numbers(mix_BK: Array) -> Ints:
    """Which distinct mixture each row has (B,), numbered alike in whatever order rows and domains come.

    Domains are put in the order of their sorted shares. Only domains that have all the same shares keep theirs.
    """
    share_BK = np.round(mix_BK, 12)  # sums in another order differ in the last digit
    sorted_QK = np.sort(np.unique(share_BK, axis=0), axis=0)
    share_BK = share_BK[:, np.lexsort(sorted_QK[::-1])]
    return np.unique(share_BK, axis=0, return_inverse=True)[1].ravel()


def usable_rows(table: Table, warmup: float, rows_per_run: int) -> Flags:
    """Rows to use per eval domain (M, B): measured, after warm-up, at most `rows_per_run` evenly in log D.

    Rows before `warmup` times the run's last D are dropped; `table` must be in canonical order.
    """
    pattern_CB, which_M = patterns(np.isfinite(table.loss_BM).T)
    log_d_B = np.log(table.scale_B2[:, 1])
    used_CB = np.zeros_like(pattern_CB)
    for used_B, measured_B in zip(used_CB, pattern_CB, strict=True):
        rows = np.flatnonzero(measured_B)
        rows, start_R, count_R = _by_run(table.run_B, rows)
        last_R = np.maximum.reduceat(log_d_B[rows], start_R)
        late = log_d_B[rows] >= np.repeat(last_R, count_R) + np.log(max(warmup, 1e-300)) - 1e-9
        rows, start_R, count_R = _by_run(table.run_B, rows[late])
        used_B[rows] = True
        for start, count in zip(start_R[count_R > rows_per_run], count_R[count_R > rows_per_run], strict=True):
            run = rows[start : start + count]
            used_B[run] = False
            used_B[run[spread(log_d_B[run], rows_per_run)]] = True
    return used_CB[which_M]


def patterns(flag_MB: Flags) -> tuple[Flags, Ints]:
    """The distinct rows (C, B) of some flags, and which each is (M,)."""
    if (flag_MB == flag_MB[0]).all():
        return flag_MB[:1], np.zeros(len(flag_MB), dtype=np.int64)
    pattern_CB, which_M = np.unique(flag_MB, axis=0, return_inverse=True)
    return pattern_CB, which_M.ravel()


def _by_run(run_B: Ints, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """The rows run by run (runs R), where each run starts among them, and how many it has."""
    rows = rows[np.argsort(run_B[rows], kind="stable")]
    start_R = np.flatnonzero(np.diff(run_B[rows], prepend=run_B[rows[0]] - 1))
    return rows, start_R, np.diff(start_R, append=len(rows))


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


def scales_seen(scale_B2: Array) -> tuple[Array, Array, Ints]:
    """The units N0 and D0, least and greatest n_params and n_tokens (2, 2), and which of the two vary (1 or 0)."""
    sizes, tokens = distinct(scale_B2[:, 0]), distinct(scale_B2[:, 1])
    origin_2 = np.array([np.exp(np.log(sizes).mean()), np.exp(np.log(scale_B2[:, 1]).mean())])
    seen_22 = np.stack([scale_B2.min(axis=0) * (1 - SAME_SCALE), scale_B2.max(axis=0) * (1 + SAME_SCALE)])
    return origin_2, seen_22, np.array([len(sizes) > 1, len(tokens) > 1], dtype=np.int64)


def rows_of(group_B: Ints) -> list[Ints]:
    """The rows of each group, by ascending number."""
    order = np.argsort(group_B, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group_B[order])) + 1)


def last_rows(table: Table) -> Ints:
    """The row with the most tokens of every run."""
    order = np.lexsort((table.scale_B2[:, 1], table.run_B))
    return np.asarray(order[np.append(np.diff(table.run_B[order]) != 0, True)])


def whole_runs(run_B: Ints, max_rows: int) -> Ints:
    """Rows of as many whole runs as fit in `max_rows`, taken evenly in the order given."""
    if len(run_B) <= max_rows:
        return np.arange(len(run_B))
    _, first, count = np.unique(run_B, return_index=True, return_counts=True)
    order = np.argsort(first)
    keep = max(1, int(max_rows / count.max()))
    chosen = order[np.unique(np.linspace(0, len(order) - 1, keep).round().astype(int))]
    return np.flatnonzero(np.isin(run_B, run_B[first[chosen]]))
