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

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from raymix.laws import make_law
from raymix.laws.base import Array, Flags, Table, as_table
from raymix.laws.intervals import Z90, outside
from raymix.laws.repetition import at_rows
from raymix.laws.rows import SAME_SCALE, canonical_order, mixture_numbers, usable_rows
from raymix.observations import Observations
from raymix.tables.choose import ROWS_PER_RUN, WARMUP

LEFT_OUT = 0.25  # of the mixtures, at once: as many as were kept back where this was measured
ENOUGH = 12  # mixtures, of which three are left out: fewer tell next to nothing
MOST = 3.0  # f: a handful of mixtures decides


@dataclass(frozen=True)
class Reach:
    """Where the mixtures of the runs lie, and the factor of an sd beyond them."""

    center: tuple[float, ...]
    """Mean of the square roots of shares over mixtures."""
    radius: float
    """Largest distance of a mixture trained from it."""
    widen: float

    @classmethod
    def of(cls, usable: Observations, own_M: ArrayLike | None, name: str) -> Self:
        """Of the law `name` on the rows it was fitted to."""
        columns = (usable.mix_BK, usable.scale_B2, usable.loss_BM, usable.model_B, own_M, usable.unique_BK)
        table = canonical_order(as_table(*columns))
        root_QK = np.sqrt(np.unique(table.mix_BK, axis=0))
        center_K = root_QK.mean(axis=0)
        reach = cls(tuple(center_K.tolist()), float(_distance(root_QK, center_K).max()), 1.0)
        return cls(reach.center, reach.radius, _widening(table, name, center_K) if len(root_QK) >= ENOUGH else 1.0)

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

    def beyond(self, mix_BK: Array) -> Flags:
        """Which mixtures (B,) are farther from the middle than any trained; rounding does not count."""
        return np.asarray(_distance(np.sqrt(mix_BK), np.array(self.center)) > self.radius * (1 + 1e-6) + 1e-9)


def _widening(table: Table, name: str, center_K: Array) -> float:
    """f of the law `name`; 1 where it cannot be fitted to the inner mixtures, or none left out is at their scales."""
    table = table.take(np.flatnonzero(usable_rows(table, WARMUP, ROWS_PER_RUN).any(axis=0)))
    mixture_B = mixture_numbers(table.mix_BK)
    first_Q = np.unique(mixture_B, return_index=True)[1]
    far_Q = np.argsort(-_distance(np.sqrt(table.mix_BK[first_Q]), center_K), kind="stable")
    out_B = np.isin(mixture_B, far_Q[: max(1, round(LEFT_OUT * len(first_Q)))])
    (part, seen), asked = table.take(np.flatnonzero(~out_B)).measured(), table.take(np.flatnonzero(out_B))
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


def _distance(root_QK: Array, center_K: Array) -> Array:
    return np.asarray(np.sqrt(((root_QK - center_K) ** 2).sum(axis=1)))
