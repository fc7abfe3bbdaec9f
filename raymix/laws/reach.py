"""How far from the runs intervals hold as they are: beyond, they are wider by what the law errs on its own extremes.

A law's interval knows what its runs leave open, not where its form stops holding, and it is calibrated on mixtures
left out one by one, most of which have others around them. So the quarter of the mixtures that is farthest from their
mean is left out at once, the law is fitted to the rest, and

    f = (.9 quantile of |error| / sd over what was left out) / 1.645,      1 <= f <= 3

widens each interval of a mixture farther from the mean than any trained, or with more of a domain than any had.
Measured with the default law on seven published tables of which a quarter of the mixtures was kept back
(benchmarks/LOG.md, "Outside the mixtures trained"): 90% intervals held .79 of the farthest and .84 of the purest and
hold .88 and .91; of random mixtures .91 before and after.

Distance is Hellinger's: between the square roots of shares. Letters: B rows, K domains, Q mixtures, M eval domains.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from raymix.laws import make_law
from raymix.laws.base import Array, Flags, Table
from raymix.laws.intervals import Z90, outside
from raymix.laws.repetition import at_rows
from raymix.laws.rows import ROWS_PER_RUN, SAME_SCALE, WARMUP, canonical_order, mixture_numbers, usable_rows

LEFT_OUT = 0.25  # of the mixtures, at once: as many as were kept back where this was measured
ENOUGH = 12  # mixtures, of which three are left out: fewer tell next to nothing
MOST = 3.0  # f: a handful of mixtures decides
ROUNDING = 1e-6  # of a share


@dataclass(frozen=True)
class Reach:
    """Where the mixtures of the runs lie, and the factor of an sd beyond them."""

    center: tuple[float, ...]
    """Mean of the square roots of shares over mixtures."""
    radius: float
    """Largest distance of a mixture trained from it."""
    widen: float

    @classmethod
    def of(cls, table: Table, name: str) -> Self:
        """Of the law `name` on the rows it was fitted to; costs one fit."""
        return replace(cls.around(table), widen=_widening(table, name))

    @classmethod
    def around(cls, table: Table) -> Self:
        """Where the mixtures lie alone, with factor 1."""
        root_QK, center_K = _middle(table)
        return cls(tuple(center_K.tolist()), float(_distance(root_QK, center_K).max()), 1.0)

    @classmethod
    def from_json(cls, value: Mapping[str, Any], n_domains: int) -> Self:
        """What `to_json` gave; ValueError where it cannot be of so many domains."""
        center, radius, widen = value["center"], float(value["radius"]), float(value["widen"])
        if len(center) != n_domains or not 0 <= radius <= 2 or not 1 <= widen <= MOST:
            raise ValueError(f"its reach is that of {len(center)} domains, radius {radius:g}, factor {widen:g}")
        return cls(tuple(float(root) for root in center), radius, widen)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def beyond(self, mix_BK: Array, most_K: Array) -> Flags:
        """Which mixtures (B,) are farther from the middle than any trained, or have more of a domain than any had.

        `most_K` are the largest shares trained; rounding does not count.
        """
        farther_B = _distance(np.sqrt(mix_BK), np.array(self.center)) > self.radius * (1 + 1e-6) + 1e-9
        return np.asarray(farther_B | (above_most(mix_BK, most_K) > ROUNDING))


def widening(table: Table, name: str, mix_QK: Array) -> Array:
    """The factor (Q,) of an sd of the law `name` fitted to these rows; fits again only if a mixture lies outside."""
    reach = Reach.around(table)
    beyond_Q = reach.beyond(mix_QK, table.mix_BK.max(axis=0))
    return np.where(beyond_Q, _widening(table, name), 1.0) if beyond_Q.any() else np.ones(len(mix_QK))


def above_most(mix_BK: Array, most_K: Array) -> Array:
    """How much of each mixture (B,) is share of a domain beyond the largest trained."""
    return np.asarray(np.maximum(mix_BK - most_K, 0.0).sum(axis=1))


def _widening(table: Table, name: str) -> float:
    """f; 1 where mixtures are few, the inner ones cannot be fitted, or none left out is at their scales."""
    table = canonical_order(table)
    root_QK, center_K = _middle(table)
    if len(root_QK) < ENOUGH:
        return 1.0
    table = table.take(np.flatnonzero(usable_rows(table, WARMUP, ROWS_PER_RUN).any(axis=0)))
    mixture_B = mixture_numbers(table.mix_BK)
    first_Q = np.unique(mixture_B, return_index=True)[1]
    far_Q = np.argsort(-_distance(np.sqrt(table.mix_BK[first_Q]), center_K), kind="stable")
    out_B = np.isin(mixture_B, far_Q[: max(1, round(LEFT_OUT * len(first_Q)))])
    (part, seen), asked = table.take(~out_B).measured(), table.take(out_B)
    try:
        law = at_rows(part.fit(make_law(name)), asked)
        loss_BM, sd_BM = (read(asked.mix_BK, asked.scale_B2) for read in (law.predict, law.sd))
    except (ValueError, np.linalg.LinAlgError):
        return 1.0
    scales_22 = np.stack([part.scale_B2.min(axis=0) * (1 - SAME_SCALE), part.scale_B2.max(axis=0) * (1 + SAME_SCALE)])
    z_BM = np.abs(np.log(loss_BM / asked.loss_BM[:, seen])) / sd_BM
    z_BM[outside(asked.scale_B2, scales_22)] = np.nan  # errors of size and tokens, which have a factor of their own
    if not np.isfinite(z_BM).any():
        return 1.0
    return float(np.clip(np.nanquantile(z_BM, 0.9) / Z90, 1.0, MOST))


def _middle(table: Table) -> tuple[Array, Array]:
    """Square roots of the shares of the distinct mixtures (Q, K), and their mean (K,)."""
    root_QK = np.sqrt(np.unique(table.mix_BK, axis=0))
    return root_QK, root_QK.mean(axis=0)


def _distance(root_QK: Array, center_K: Array) -> Array:
    return np.asarray(np.sqrt(((root_QK - center_K) ** 2).sum(axis=1)))
