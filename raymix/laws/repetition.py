"""What repeated tokens are worth (Muennighoff et al., arXiv 2305.16264, eq. 5): of n_j = r_j D tokens drawn from U_j

    D'_j = n_j  up to U_j,      D'_j = U_j (1 + R* (1 - exp(-(n_j / U_j - 1) / R*)))  beyond.

A share r_j then counts as r_j g_j of fresh data, g_j = D'_j / n_j. D'_j is concave in r_j, so a law that is convex in r
stays so. Here x_j = n_j / U_j are the epochs; 0 where U_j is not known, for then no token is known to be a repeat.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from raymix.laws.base import Array, Law, Table, changed

REPEAT_VALUE = 15.39  # R*: repeats after which more of them add little (fitted in arXiv 2305.16264)
REPEAT_PRIOR = (np.log(REPEAT_VALUE), 1.0)  # of log R* where runs can tell
REPEATED = 1.01  # epochs from which on runs can tell: less is rounding


@dataclass(frozen=True)
class Worth:
    """g of every share per eval domain (M, B, K): its log, d log g / d log R*, and d(r g) / dr."""

    log_MBK: Array
    by_repeats_MBK: Array
    slope_MBK: Array


def worth(epochs_BK: Array, log_repeats_M: Array) -> Worth:
    """What shares are worth at so many epochs, with R* per eval domain."""
    x_BK, repeats_M11 = np.maximum(epochs_BK, 1.0), np.exp(log_repeats_M)[:, None, None]
    decay_MBK = np.exp(-(x_BK - 1) / repeats_M11)
    gained_MBK = repeats_M11 * (1 - decay_MBK)
    return Worth(
        np.log1p(gained_MBK) - np.log(x_BK), (gained_MBK - (x_BK - 1) * decay_MBK) / (1 + gained_MBK), decay_MBK
    )


def epochs(mix_BK: Array, scale_B2: Array, unique: Array | None) -> Array | None:
    """x (B, K) for unique tokens (K,) or (B, K), NaN or inf where not known; None where no token is a repeat."""
    if unique is None:
        return None
    known = np.where(np.isfinite(unique), unique, np.inf)
    x_BK = mix_BK * scale_B2[:, 1:] / known
    return x_BK if (x_BK > 1).any() else None


def stocked(law: Law, unique: ArrayLike) -> Law:
    """The law read where there are so many unique tokens of each domain, (K,) or a row per query (B, K).

    Laws fitted without unique tokens know of no repeats and stay as they are; of blends the laws inside are stocked.
    """
    inside: Any = law
    if hasattr(law, "law_"):
        return cast(Law, changed(law, law_=stocked(inside.law_, unique)))
    if hasattr(law, "laws_"):
        return cast(Law, changed(law, laws_=[stocked(part, unique) for part in inside.laws_]))
    knows = getattr(law, "knows_unique_", False)
    return cast(Law, changed(law, unique_=np.asarray(unique, dtype=np.float64))) if knows else law


def at_rows(law: Law, table: Table) -> Law:
    """The law read with the unique tokens of these rows."""
    return law if table.unique_BK is None else stocked(law, table.unique_BK)
