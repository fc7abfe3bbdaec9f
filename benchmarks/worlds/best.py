"""The true optimum of a surface on a box inside the simplex: many starts, then exchanges between pairs of domains.

Nothing is assumed of the surface but that it is continuous. SLSQP with differences along the simplex goes down from
the best of many random points; moving share from one domain to another, in ever smaller steps, then ends at a point
that no such move improves, also where bounds or steep corners have stopped SLSQP.

Letters: B rows, K training domains, S starts.
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from raymix import simplex
from raymix.simplex import Array, Polytope

N_RANDOM = 4000
N_STARTS = 16  # go down with SLSQP
N_POLISHED = 2
STEP = 1e-6  # of share, for differences
FIRST_STEP, LAST_STEP = 0.05, 1e-7
GAIN = 1e-9  # of the value: a move that gains less does not count

Values = Callable[[Array], Array]  # mix_BK -> (B,)


def many_starts(values: Values, polytope: Polytope, natural_K: Array, seed: int = 0) -> Array:
    """The best mixture (K,) found.

    Raises:
        ValueError: the polytope has groups; bounds are all this search keeps.
    """
    if len(polytope.limit_G):
        raise ValueError("the true optimum of a world is searched inside bounds; groups are not supported")
    start_SK = _starts(values, polytope, natural_K, np.random.default_rng(seed))
    found = [_descend(values, polytope, start_K) for start_K in start_SK]
    found.sort(key=lambda mix_K: float(values(mix_K[None])[0]))
    polished = [_exchange(values, polytope, mix_K) for mix_K in found[:N_POLISHED]]
    return min(polished, key=lambda mix_K: float(values(mix_K[None])[0]))


def _starts(values: Values, polytope: Polytope, natural_K: Array, rng: np.random.Generator) -> Array:
    """The best of random points, of the way from them to the natural mixture, and of the corners."""
    random_BK = simplex.sample(polytope, N_RANDOM, rng)
    pull_B = rng.random((N_RANDOM, 1))
    corner_KK = np.stack([simplex.vertex_along(polytope, -row) for row in np.eye(polytope.n_domains)])
    near_BK = pull_B * random_BK + (1 - pull_B) * natural_K
    all_BK = np.concatenate([random_BK, near_BK, corner_KK, 0.9 * corner_KK + 0.1 * natural_K, natural_K[None]])
    return np.asarray(all_BK[np.argsort(values(all_BK))[:N_STARTS]])


def _descend(values: Values, polytope: Polytope, start_K: Array) -> Array:
    """SLSQP; the gradient by differences of the surface at points moved back onto the simplex."""

    def on_simplex(x: Array) -> Array:
        return simplex.normalise(np.clip(x, polytope.lower_K, polytope.upper_K))

    def value_and_gradient(x: Array) -> tuple[float, Array]:
        inside_K = on_simplex(x)
        moved = (inside_K + STEP * np.eye(len(x))) / (1 + STEP)
        value_B = values(np.concatenate([inside_K[None], moved]))
        return float(value_B[0]), np.asarray((value_B[1:] - value_B[0]) / STEP)

    ones = np.ones(polytope.n_domains)
    found = minimize(
        value_and_gradient,
        start_K,
        jac=True,
        bounds=list(zip(polytope.lower_K, polytope.upper_K, strict=True)),
        constraints=[{"type": "eq", "fun": lambda x: x.sum() - 1, "jac": lambda x: ones}],
        method="SLSQP",
        options={"ftol": 1e-10, "maxiter": 150},
    )
    end_K = simplex.project(polytope, on_simplex(found.x)) if np.isfinite(found.x).all() else start_K
    return end_K if values(end_K[None])[0] <= values(start_K[None])[0] else start_K


def _exchange(values: Values, polytope: Polytope, mix_K: Array) -> Array:
    """Move share between the pair of domains that gains most, until no move of the least step gains."""
    take, give = (index.ravel() for index in np.indices((len(mix_K), len(mix_K))))
    take, give = take[take != give], give[take != give]
    rows = np.arange(len(take))
    value, step = float(values(mix_K[None])[0]), FIRST_STEP
    while step >= LAST_STEP:
        room_B = np.minimum(mix_K[take] - polytope.lower_K[take], polytope.upper_K[give] - mix_K[give])
        move_B = np.minimum(step, room_B)
        tried_BK = np.tile(mix_K, (len(rows), 1))
        tried_BK[rows, take] -= move_B
        tried_BK[rows, give] += move_B
        value_B = values(tried_BK)
        best = int(np.argmin(value_B))
        if value_B[best] < value - GAIN * abs(value):
            mix_K, value = tried_BK[best], float(value_B[best])
        else:
            step /= 2
    return mix_K
