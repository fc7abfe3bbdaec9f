"""AutoScale (arXiv 2407.20177): optimal quantities of data at two scales, carried to a larger one.

N(t) = N1 (N2 / N1)^t: t = 0 and 1 are the two scales, t = 2 is the paper's N2 N1^-1 N2; it repeats steps and takes the
total that comes out, here t may be real (`autoscale_to`). `check` says where that does not hold.

Why it holds: for L = sum_i beta_i N_i^-gamma_i every log N_i* is affine in -log(multiplier), slope 1 / (1 + gamma_i).
What it gives up: no transfer between domains, no model size, no predicted loss, no interval. The union law has all
of these and is the default; this is the published method, with guards. Quantities at one scale come from `ddo`.

Letters: K training domains.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, minimize_scalar

from raymix.laws.ddo import named, positive
from raymix.simplex import Array

BOUND_TOLERANCE = 1e-3  # relative: published quantities that sit on their bound repeat it to 1e-9, rounded ones to 1e-4
MAX_OFFSET = 0.05  # of N: beyond it the plain formula misses exact optima of known laws (measured)
MAX_LOG_SD = 0.1  # of log N: quantities are then off by up to a factor of 1.18 (90%)
MAX_GROWTH = 4.2  # times the second total: one step of the published chain (.3B, 1.2B -> 5B tokens)


def autoscale(n1_K: ArrayLike, n2_K: ArrayLike, steps: float = 1.0, offsets: ArrayLike = 0.0) -> Array:
    """Quantities (K,) `steps` beyond the second scale: (N2 + n0)^(1+k) (N1 + n0)^-k - n0, k = steps.

    One step is N3 = N2 N1^-1 N2 (arXiv 2407.20177); k steps are that, repeated. Known constant offsets n0 (tokens
    that other domains stand in for; in DDO's fit, a times the base quantity) are exact where no bound is met.

    Raises:
        ValueError: a quantity is not above 0, the scales are equal or in the wrong order, or the result is below 0.
    """
    n1, n2, n0 = _two_scales(n1_K, n2_K, offsets)
    if not np.isfinite(steps):
        raise ValueError(f"steps is {steps}: it must be a number")
    n_K = _along(n1, n2, n0, 1.0 + steps)
    if (n_K <= 0).any():
        k = int(np.argmax(n_K <= 0))
        raise ValueError(f"domain {k} falls to {n_K[k]:.4g} tokens {steps:g} steps out: the offsets do not hold there")
    return n_K


def autoscale_to(n1_K: ArrayLike, n2_K: ArrayLike, total: float, offsets: ArrayLike = 0.0) -> Array:
    """Quantities (K,) that sum to `total`: N(t) = (N1 + n0) ((N2 + n0) / (N1 + n0))^t - n0 at the t `time_of` gives.

    Raises:
        ValueError: as `autoscale`; or no t reaches the total.
    """
    t = time_of(n1_K, n2_K, total, offsets)
    n_K = autoscale(n1_K, n2_K, t - 1.0, offsets)
    return np.asarray(n_K * (total / n_K.sum()))  # rounding only


def time_of(n1_K: ArrayLike, n2_K: ArrayLike, total: float, offsets: ArrayLike = 0.0) -> float:
    """The real t with sum N(t) = total; 0 and 1 are the two scales.

    The sum is convex in t and grows from t = 0 to 1, so there is one root above the first total. Below it the
    sum may turn (a domain that shrinks as the budget grows): the root nearest to 0 is taken, if there is one.

    Raises:
        ValueError: as `autoscale`; or no t reaches the total.
    """
    n1, n2, n0 = _two_scales(n1_K, n2_K, offsets)
    if not (np.isfinite(total) and total > 0):
        raise ValueError(f"the total is {total}: it must be above 0")

    def excess(t: float) -> float:
        return float(_along(n1, n2, n0, t).sum() / total - 1)

    if excess(0.0) <= 0:
        low, high = 0.0, 1.0
        while excess(high) < 0:
            low, high = high, 1.25 * high
    else:
        low, high = -1.0, 0.0
        while 0 < excess(low) < excess(high):
            low, high = 2 * low, low
        if excess(low) > 0:  # the sum has turned on the way
            low = float(minimize_scalar(excess, bounds=(low, 0.5 * high), method="bounded").x)
        high = 0.0
        if excess(low) > 0:
            least = (excess(low) + 1) * total
            raise ValueError(f"a total of {total:.4g} is beyond reach: the formula gives no less than {least:.4g}")
    return float(brentq(excess, low, high, xtol=1e-15, rtol=1e-15))


def _along(n1_K: Array, n2_K: Array, offset_K: Array, t: float) -> Array:
    log_1, log_2 = np.log(n1_K + offset_K), np.log(n2_K + offset_K)
    return np.asarray(np.exp(log_1 + t * (log_2 - log_1)) - offset_K)


def log_sd(t: float, noise: float) -> float:
    """sd of log N(t) when log N1 and log N2 have independent errors of sd `noise`.

    log N(t) = (1 - t) log N1 + t log N2; k steps beyond the second scale this is sqrt((k+1)^2 + k^2) noise.
    """
    return float(noise * np.hypot(1 - t, t))


def check(
    n1_K: ArrayLike,
    n2_K: ArrayLike,
    total: float,
    *,
    lower_K: ArrayLike = 0.0,
    upper_K: ArrayLike = 1.0,
    offsets: ArrayLike = 0.0,
    noise: float | None = None,
    names: Sequence[str] | None = None,
) -> list[str]:
    """Sentences on why `autoscale_to(n1_K, n2_K, total)` may not hold; empty where nothing speaks against it.

    `lower_K`, `upper_K` bound the *shares* at both scales, or at each (2, K); `offsets` are what is known of n0, in
    tokens; `noise` is the sd of log N* at one scale.

    Raises:
        ValueError: as `autoscale_to`, where the formula has no meaning at all; noise, bounds or names are none.
    """
    n1, n2, n0 = _two_scales(n1_K, n2_K, offsets)
    lower, upper = (np.broadcast_to(np.asarray(share, float), (2, len(n1))) for share in (lower_K, upper_K))
    if not ((lower >= 0) & (lower <= upper) & (upper <= 1)).all():
        raise ValueError(f"bounds of shares, not of tokens, lie in 0 <= lower <= upper <= 1: got {lower} and {upper}")
    if noise is not None and not 0 <= noise < np.inf:
        raise ValueError(f"the noise is {noise:g}: it must be a number of at least 0")
    t, growth = time_of(n1, n2, total), total / n2.sum()
    sd = 0.0 if noise is None else log_sd(t, noise)
    found = _per_domain(n1, n2, n0, lower, upper, named(names, len(n1)))
    if sd > MAX_LOG_SD:
        factor = np.exp(1.645 * sd)
        found.append(
            f"noise of {noise:.2g} in log N grows to {sd:.2g} at this total: "
            f"a quantity may be off by a factor of {factor:.2g} (90%)"
        )
    if growth > MAX_GROWTH * (1 + BOUND_TOLERANCE):
        found.append(
            f"the total is {growth:.3g} times the second scale's (t = {t:.3g}), more than one published step "
            f"({MAX_GROWTH:g}): every further one multiplies the errors"
        )
    return found


def _per_domain(
    n1_K: Array, n2_K: Array, n0_K: Array, lower_2K: Array, upper_2K: Array, name_K: Sequence[str]
) -> list[str]:
    """Sentences on domains at a bound of their share, shrinking, or with a large offset."""
    small_K, share_2K = np.minimum(n1_K, n2_K), np.stack([n1_K / n1_K.sum(), n2_K / n2_K.sum()])
    low_2K, high_2K = share_2K <= lower_2K * (1 + BOUND_TOLERANCE), share_2K >= upper_2K * (1 - BOUND_TOLERANCE)
    found = []
    for k in range(len(n1_K)):
        for at, which in enumerate(("first", "second")):
            if low_2K[at, k] or high_2K[at, k]:
                found.append(
                    f"{name_K[k]} is at a bound of its share ({share_2K[at, k]:.4g}) at the {which} scale: "
                    "its quantity follows the bound; hold its share, or fit a law"
                )
        if n2_K[k] <= n1_K[k]:
            found.append(
                f"{name_K[k]} shrinks from {n1_K[k]:.4g} to {n2_K[k]:.4g} as the budget grows: noise or "
                "transfer, for no optimum of separate power laws does that"
            )
        if abs(n0_K[k]) > MAX_OFFSET * small_K[k]:
            found.append(
                f"{name_K[k]} has an offset of {n0_K[k]:.4g}, above {MAX_OFFSET:.0%} of its quantity: "
                "give the offsets to the formula (exact where no bound is met), or fit a law"
            )
    return found


def _two_scales(n1_K: ArrayLike, n2_K: ArrayLike, offsets: ArrayLike) -> tuple[Array, Array, Array]:
    n1, n2 = positive(n1_K, "quantity at the first scale"), positive(n2_K, "quantity at the second scale")
    if n1.shape != n2.shape:
        raise ValueError(f"the two scales have {len(n1)} and {len(n2)} domains")
    n0 = np.broadcast_to(np.asarray(offsets, float), n1.shape)
    if not ((n1 + n0 > 0) & (n2 + n0 > 0) & np.isfinite(n0)).all():
        raise ValueError("an offset takes a quantity to 0 or below")
    if n2.sum() <= n1.sum() * (1 + 1e-9):
        raise ValueError(f"the totals are {n1.sum():.4g} and {n2.sum():.4g}: the second scale must be the larger")
    return n1, n2, n0
