"""Held-out predictions, scale by scale: how well the law orders mixtures it has not seen.

Across scales any law orders well, because longer runs of larger proxies are better whatever the mixture.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from raymix.counts import scale_words
from raymix.laws.select import rank_within
from raymix.observations import scale_groups
from raymix.simplex import Array
from raymix.space import Scale
from raymix.target.held_out import ENOUGH

Columns = dict[str, list[Any]]
NEEDED = ("trial_id", "n_params", "n_tokens", "observed", "predicted")
ENDS = ("low", "high")  # of the interval, where there is one


def by_scale(data: Mapping[str, Any] | None, cut_short: Collection[str] = ()) -> list[tuple[Scale, Columns]]:
    """Held-out predictions of each scale, the dearest (6 N D) last: one entry per trial, finite ones only.

    Those of trials that failed or were stopped (`cut_short`) are left out: their last checkpoint is an early one, and
    easy to rank. Sizes and lengths that differ by less than 10% are one scale, named by its median.
    """
    if not data or not data.get("observed"):
        return []
    unknown = [float("nan")] * len(data["observed"])
    rows = zip(*(data[name] for name in NEEDED), *(data.get(name) or unknown for name in ENDS), strict=True)
    last = {(row[0], row[1], row[2]): row for row in rows if str(row[0]) not in cut_short}
    kept = [row for row in last.values() if all(value is not None and np.isfinite(value) for value in row[1:5])]
    scale_B2 = np.asarray([row[1:3] for row in kept], float).reshape(-1, 2)
    group_B = scale_groups(scale_B2)
    found = [
        (
            Scale(*np.median(scale_B2[group_B == group], axis=0).tolist()),
            {name: [row[i] for row, g in zip(kept, group_B, strict=True) if g == group]
             for i, name in enumerate(NEEDED + ENDS)},
        )
        for group in np.unique(group_B)
    ]  # fmt: skip
    return sorted(found, key=lambda item: item[0].n_params * item[0].n_tokens)


def judged(
    groups: Sequence[tuple[Scale, Columns]], every: Sequence[tuple[Scale, Columns]] | None = None
) -> dict[str, Any]:
    """Rank correlation within each scale and within all, typical error, how often the interval held; empty without
    predictions.

    Args:
        every: the groups with those of stopped trials, where there are any: the verdict goes by the order in all.
    """
    if not groups:
        return {}
    orders = []
    for scale, columns in groups:
        observed, predicted = columns["observed"], columns["predicted"]
        varied = len(observed) > 2 and np.ptp(observed) > 0 and np.ptp(predicted) > 0
        r = float(spearmanr(observed, predicted).statistic) if varied else float("nan")
        orders.append((scale_words(*scale), len(observed), r))
    observed_B, predicted_B, low_B, high_B = (_column(groups, name) for name in ("observed", "predicted", *ENDS))
    known = np.isfinite(low_B) & np.isfinite(high_B)
    every = every or groups
    group_B = np.repeat(np.arange(len(every)), [len(columns["observed"]) for _, columns in every])
    return {
        "orders": orders,
        "order": rank_within(_column(every, "predicted"), _column(every, "observed"), group_B, ENOUGH),
        "error": float(np.median(np.abs(observed_B - predicted_B))), "judged": int(known.sum()),
        "inside": int(((low_B <= observed_B) & (observed_B <= high_B))[known].sum()),
    }  # fmt: skip


def _column(groups: Sequence[tuple[Scale, Columns]], name: str) -> Array:
    return np.concatenate([np.asarray(columns[name], float) for _, columns in groups])
