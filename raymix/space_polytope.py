"""The mixtures that a space allows: bounds of the domains, groups, and epoch caps at a scale."""

from collections.abc import Sequence

import numpy as np

from raymix import simplex
from raymix.simplex import ROUNDING, Array, Polytope
from raymix.space_parts import Domain, Group


def allowed(
    domains: Sequence[Domain],
    groups: Sequence[Group],
    stages: tuple[Array, float],
    max_epochs: float | None,
    n_tokens: float,
) -> Polytope:
    """The polytope of mixtures over K domains.

    Args:
        stages: the share of a run that stages fix for each domain (K,), and that left to the trial's own mixture.
        max_epochs: how often a domain may be repeated in a run of `n_tokens`; None for any number of times.

    Raises:
        ValueError: nothing is feasible; the message says which constraints clash.
    """
    lower_K = np.asarray([d.min_share for d in domains])
    upper_K = np.asarray([d.max_share for d in domains])
    if max_epochs is not None:
        upper_K = np.minimum(upper_K, _largest_K(domains, *stages, max_epochs, n_tokens))
    _check_bounds(domains, lower_K, upper_K, max_epochs, n_tokens)
    rows, limits = [], []
    for group in groups:
        inside = np.asarray([domain.name in group.domains for domain in domains])
        least, most = float(lower_K[inside].sum()), float(upper_K[inside].sum())
        if least <= group.max <= least + ROUNDING and group.min <= group.max:  # no room: as bounds, which solvers see
            upper_K = np.where(inside, lower_K, upper_K)
            continue
        if most - ROUNDING <= group.min <= most and group.min <= group.max:
            lower_K = np.where(inside, upper_K, lower_K)
            continue
        # What the bounds imply is no row: two constraints at one corner slow solvers down.
        if group.max < min(most, 1 - float(lower_K[~inside].sum())):
            rows.append(1.0 * inside)
            limits.append(group.max)
        if group.min > max(least, 1 - float(upper_K[~inside].sum())):
            rows.append(-1.0 * inside)
            limits.append(-group.min)
    rows_GK = np.asarray(rows) if rows else np.zeros((0, len(domains)))
    polytope = Polytope(lower_K, upper_K, rows_GK, np.asarray(limits))
    try:
        simplex.vertex_along(polytope, np.zeros(len(domains)))
    except ValueError:
        raise ValueError(
            "constraints.groups: no mixture satisfies these groups and the bounds of the domains"
        ) from None
    return polytope


def _largest_K(domains: Sequence[Domain], fixed_K: Array, free: float, max_epochs: float, n_tokens: float) -> Array:
    """The largest shares with which no domain is repeated more often in a run; ValueError where stages alone do so."""
    available_K = np.asarray([d.available_tokens or np.inf for d in domains])
    epochs_K = fixed_K * n_tokens / available_K
    if (epochs_K > max_epochs * (1 + 1e-9)).any():
        k = int(np.argmax(epochs_K))
        raise ValueError(
            f"recipe.stages: their fixed mixtures alone repeat {domains[k].name!r} {epochs_K[k]:.3g} times at "
            f"the target, more than {max_epochs:g}: lower its share there, or raise target.max_epochs"
        )
    return np.maximum(0.0, (max_epochs * available_K / n_tokens - fixed_K) / free)


def _check_bounds(
    domains: Sequence[Domain], lower_K: Array, upper_K: Array, max_epochs: float | None, n_tokens: float
) -> None:
    if lower_K.sum() > 1 + 1e-9:
        raise ValueError(f"the min_share values sum to {lower_K.sum():.4g}, more than 1: lower some")
    for domain, low, high in zip(domains, lower_K, upper_K, strict=True):
        if low > high + 1e-12:
            raise ValueError(
                f"domain {domain.name!r}: min_share {low:.4g} needs more than {max_epochs:g} epochs of its "
                f"{domain.available_tokens:.4g} tokens at the target (at most {high:.4g}): lower min_share, "
                "raise target.max_epochs, or shrink target.n_tokens"
            )
    if upper_K.sum() < 1 - 1e-9:
        epochs = "" if max_epochs is None else (
            f", or, where epochs bind ({max_epochs:g} passes over the available tokens for {n_tokens:.3g} target "
            "tokens), raise target.max_epochs or lower target.n_tokens"
        )  # fmt: skip
        raise ValueError(f"the largest allowed shares sum to {upper_K.sum():.4g}, less than 1: raise max_share{epochs}")
