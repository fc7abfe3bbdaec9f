"""DDO (arXiv 2407.20177): which quantities of data are best at one scale, from 2K+1 runs around a base.

    perturbations  the runs: the base, and every domain with less and with more
    fit_ddo        per domain y = L / L_base = (x + a)^-b + c, x the domain's quantity in units of the base run
    water_fill     the quantities that minimise sum_i w_i (n_i + a_i)^-b_i at a given total

Where we differ: the optimum is exact (the paper takes 10,000 projected gradient steps, to 5e-9 of it). A quantity is
unique tokens, which the paper repeats for 3 epochs; y may be a ratio of losses in nats or, as in the paper, of
perplexities, which domains of high perplexity dominate. `autoscale` carries two such optima to a larger scale.

Letters: B runs, K training domains, X quantities per domain at which a run was made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, least_squares, minimize_scalar

from raymix.simplex import Array, normalise

DOWN, UP = 1 / 5, 3.0  # factors of the runs released with arXiv 2407.20177; its text says 1/3
BASE_NOISE = 0.2  # of its loss: a base run repeated is 1 within this; losses in nats or perplexities are not
TINY_POWER, LARGE_POWER = 1e-9, 1e6  # range searched for b


@dataclass(frozen=True)
class DDOFit:
    """y_k(x) = (x + a_k)^-b_k + c_k, relative to the loss of the base run."""

    a_K: Array
    b_K: Array
    c_K: Array
    error_K: Array
    """Largest residual per domain; rounding only where three points were given."""

    def predict(self, x_K: ArrayLike) -> Array:
        """y (..., K): loss over base loss when one domain's quantity is x times its base quantity."""
        return np.asarray((np.asarray(x_K, float) + self.a_K) ** -self.b_K + self.c_K)


def perturbations(base_K: ArrayLike, down: float = DOWN, up: float = UP) -> tuple[Array, Array]:
    """Mixtures (2K+1, K) and total tokens (2K+1,) of DDO's runs: the base, then each domain x down and x up in turn.

    All other quantities stay at the base, so the total changes with the perturbation: a run is a (mixture, n_tokens)
    pair, and mix_BK * n_tokens_B[:, None] are the quantities.

    Raises:
        ValueError: a base quantity is not above 0, or not 0 < down < 1 < up.
    """
    base = positive(base_K, "base quantity")
    if not 0 < down < 1 < up < np.inf:
        raise ValueError(f"the perturbations are down = {down:g} and up = {up:g}: they must satisfy 0 < down < 1 < up")
    quantity_BK = np.tile(base, (2 * len(base) + 1, 1))
    for k in range(len(base)):
        quantity_BK[1 + 2 * k : 3 + 2 * k, k] *= (down, up)
    return normalise(quantity_BK), quantity_BK.sum(axis=1)


def fit_ddo(x_KX: ArrayLike, y_KX: ArrayLike, names: Sequence[str] | None = None) -> DDOFit:
    """(x + a)^-b + c per domain, through three points exactly, by least squares through more.

    `x_KX` holds quantities relative to the base, (K, X) or (X,) for all domains; `y_KX` losses relative to the
    base run's. Three points have two such curves: one falls fast to a high floor c, one slowly (b below about .1)
    to a floor near 0. We take the first, as published.

    Raises:
        ValueError: fewer than three quantities, losses not relative to the base, or points on no such curve; the
            message names the domain.
    """
    y = np.array(y_KX, dtype=np.float64, ndmin=2)
    x = np.broadcast_to(np.asarray(x_KX, float), y.shape)
    fits = []
    for x_X, y_X, name in zip(x, y, named(names, len(y)), strict=True):
        x_X, y_X = _sorted_points(x_X, y_X, name)
        abc = _through_three(x_X, y_X, name) if len(x_X) == 3 else _least_squares(x_X, y_X, name)
        fits.append([*abc, float(np.abs((x_X + abc[0]) ** -abc[1] + abc[2] - y_X).max())])
    a_K, b_K, c_K, error_K = np.array(fits).T
    return DDOFit(a_K, b_K, c_K, error_K)


def _sorted_points(x_X: Array, y_X: Array, name: str) -> tuple[Array, Array]:
    """The points by ascending x; repeats of one x (same run, other seed) only where there are more than three."""
    order = np.argsort(x_X, kind="stable")
    x_X, y_X = x_X[order], y_X[order]
    if not (np.isfinite(x_X).all() and np.isfinite(y_X).all() and (x_X >= 0).all() and (y_X > 0).all()):
        raise ValueError(f"{name}: quantities are finite and >= 0, relative losses finite and > 0")
    if len(np.unique(x_X)) < 3:
        raise ValueError(f"{name}: {len(np.unique(x_X))} different quantities: (x + a)^-b + c needs three or more")
    base = y_X[x_X == 1].mean() if (x_X == 1).any() else 1.0
    if abs(base - 1) > BASE_NOISE:
        raise ValueError(f"{name}: the loss at quantity 1, the base run, is {base:.4g}: divide losses by that run's")
    return x_X, y_X


def _through_three(x_X: Array, y_X: Array, name: str) -> tuple[float, float, float]:
    """(a, b, c) with all three residuals 0: b from the ratio of the two drops, then one root find in a."""
    drop = y_X[:-1] - y_X[1:]
    if not (drop > 0).all():
        raise ValueError(
            f"{name}: the loss does not fall at every step of quantity ({listed(y_X)} at {listed(x_X)}): noise, "
            "or a domain that does not help; repeat its runs or leave it at its bound"
        )
    ratio = float(drop[0] / drop[1])
    if ratio <= (x_X[1] - x_X[0]) / (x_X[2] - x_X[1]):
        raise ValueError(f"{name}: the loss falls faster at larger quantities ({listed(y_X)} at {listed(x_X)}): noise")

    def excess(log_room: float) -> float:  # of the first drop; its own ratio to the second already fits
        u_X = np.exp(log_room) + x_X - x_X[0]
        b = _power(u_X, ratio)
        return -float(drop[0]) if b is None else float(u_X[0] ** -b - u_X[1] ** -b - drop[0])

    top = _top(excess)
    if excess(top) <= 0:
        raise ValueError(
            f"{name}: drops of {drop[0]:.3g} and {drop[1]:.3g} are too large for a term of amplitude 1: "
            "measure at smaller perturbations, or fit a law with an amplitude"
        )
    high = top + 1.0
    while excess(high) > 0:
        high += 1.0
    log_room = float(brentq(excess, top, high, xtol=1e-15, rtol=1e-15))
    b = _power(np.exp(log_room) + x_X - x_X[0], ratio)
    assert b is not None
    a = float(np.exp(log_room) - x_X[0])
    return a, b, float(y_X[1] - (x_X[1] + a) ** -b)


def _power(u_X: Array, ratio: float) -> float | None:
    """b > 0 with (u1^-b - u2^-b) / (u2^-b - u3^-b) = ratio, which grows with b; None if even b = 0 exceeds it."""
    first, second = np.log(u_X[1] / u_X[0]), np.log(u_X[2] / u_X[1])

    def excess(b: float) -> float:
        return float(b * first + np.log(-np.expm1(-b * first)) - np.log(-np.expm1(-b * second)) - np.log(ratio))

    if excess(TINY_POWER) >= 0:
        return None
    high = 1.0
    while excess(high) < 0 and high < LARGE_POWER:
        high *= 4
    return float(brentq(excess, TINY_POWER, high, xtol=1e-15, rtol=1e-15)) if excess(high) > 0 else None


def _top(excess: Callable[[float], float]) -> float:
    """Where the first drop is largest: a grid over log(a + least x), then a bounded search around its best point."""
    grid = np.linspace(-10.0, 10.0, 81)
    best = float(grid[int(np.argmax([excess(at) for at in grid]))])
    found = minimize_scalar(lambda at: -excess(at), bounds=(best - 0.25, best + 0.25), method="bounded")
    return float(found.x) if -found.fun > excess(best) else best


def _least_squares(x_X: Array, y_X: Array, name: str) -> tuple[float, float, float]:
    """(a, b, c) of least squared error; starts at several rooms a + least x, the best is kept."""

    def residual(theta: Array) -> Array:
        return np.asarray((np.exp(theta[0]) + x_X - x_X[0]) ** -np.exp(theta[1]) + theta[2] - y_X)

    if np.polyfit(x_X, y_X, 1)[0] >= 0:
        raise ValueError(f"{name}: the loss does not fall with quantity ({listed(y_X)} at {listed(x_X)})")
    box = ([-10.0, np.log(1e-3), -np.inf], [10.0, np.log(1e3), np.inf])
    starts = [(log_room, log_b) for log_room in (0.0, 1.0, 2.0) for log_b in (-1.0, 0.3)]
    tries = [
        least_squares(residual, [*s, y_X.min() - 0.1], bounds=box, x_scale="jac", xtol=1e-15, ftol=1e-15, gtol=1e-15)
        for s in starts
    ]
    theta = min(tries, key=lambda found: float(found.cost)).x
    return float(np.exp(theta[0]) - x_X[0]), float(np.exp(theta[1])), float(theta[2])


def water_fill(
    a_K: ArrayLike,
    b_K: ArrayLike,
    total: float,
    lower_K: ArrayLike = 0.0,
    upper_K: ArrayLike = np.inf,
    weights: ArrayLike = 1.0,
) -> Array:
    """The quantities (K,) that minimise sum_i w_i (n_i + a_i)^-b_i on sum n = total, lower <= n <= upper.

    Every marginal w b (n + a)^-(b+1) equals one multiplier, or the domain is at a bound: the sum of the clipped
    n(multiplier) = (w b / multiplier)^(1 / (b+1)) - a is monotone, so one root find is exact. With w = beta and
    b = gamma this is the paper's general form, sum_i beta_i (N0_i + N_i)^-gamma_i.

    Raises:
        ValueError: a parameter is out of range, or no quantities meet the bounds at this total.
    """
    a = np.asarray(a_K, float)
    b, lower, upper, w = (np.broadcast_to(np.asarray(v, float), a.shape) for v in (b_K, lower_K, upper_K, weights))
    if not (np.isfinite([a, b, w]).all() and (b > 0).all() and (w > 0).all()):
        raise ValueError("water filling needs finite a, b > 0 and weights > 0 for every domain")
    if not np.isfinite(total):
        raise ValueError(f"the total is {total}: it must be a number")
    low_K = np.maximum(np.maximum(lower, 0.0), -a)
    least, most = float(low_K.sum()), float(upper.sum())
    if not ((low_K <= upper).all() and least <= total * (1 + 1e-12) and most >= total * (1 - 1e-12)):
        raise ValueError(f"no quantities between their bounds (sums {least:.6g} to {most:.6g}) sum to {total:g}")
    if least >= total or most <= total:
        return np.array(low_K if least >= total else upper)
    n_K, slope_K = _at_multiplier(a, b, np.log(w * b), total, low_K, upper)
    part_K = slope_K / max(slope_K.sum(), 1e-300)  # one last Newton step takes the rounding out of the sum
    return np.asarray(np.clip(n_K + (total - n_K.sum()) * part_K, low_K, upper))


def _at_multiplier(
    a_K: Array, b_K: Array, log_wb_K: Array, total: float, low_K: Array, high_K: Array
) -> tuple[Array, Array]:
    """Quantities at the multiplier that gives the total, and -dn / d log multiplier (0 at a bound)."""

    def quantities(log_multiplier: float) -> Array:
        return np.asarray(np.clip(np.exp((log_wb_K - log_multiplier) / (b_K + 1)) - a_K, low_K, high_K))

    def log_marginal(n_K: Array) -> Array:
        return np.asarray(log_wb_K - (b_K + 1) * np.log(n_K + a_K))

    even_K = low_K + (total - low_K.sum()) / len(a_K)
    start, end = log_marginal(np.full_like(a_K, total)).min() - 1e-9, log_marginal(even_K).max() + 1e-9
    at = float(brentq(lambda m: quantities(m).sum() / total - 1, start, end, xtol=1e-15, rtol=1e-15))
    n_K = quantities(at)
    return n_K, np.where((n_K > low_K) & (n_K < high_K), (n_K + a_K) / (b_K + 1), 0.0)


def positive(value: ArrayLike, what: str) -> Array:
    array = np.array(value, dtype=np.float64, ndmin=1)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"a {what} per domain is needed, got shape {array.shape}")
    if not (np.isfinite(array) & (array > 0)).all():
        k = int(np.argmin(np.isfinite(array) & (array > 0)))
        raise ValueError(f"the {what} of domain {k} is {array[k]:g}: it must be above 0; leave the domain out, "
                         "or give it a lower bound")  # fmt: skip
    return array


def named(names: Sequence[str] | None, n_domains: int) -> list[str]:
    """What sentences call the domains."""
    if names is not None and len(names) != n_domains:
        raise ValueError(f"{len(names)} names for {n_domains} domains: one of each")
    return [f"domain {k}" if names is None else str(names[k]) for k in range(n_domains)]


def listed(values: Array) -> str:
    return ", ".join(f"{value:.5g}" for value in values)
