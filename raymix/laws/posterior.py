"""Draws from what the data leave open about a law, from the Gauss-Newton covariance at its optimum (Laplace).

For a search, which asks where the optimum of a law that may be true lies. Not for intervals: with few runs most draws
leave the region where a curved law is nearly linear, and gains read from them are ten times too wide (see `intervals`).
Eval domains are drawn together, not apart: residuals of one run correlate between them, and so do the parameters
that the runs decide. Symmetric square roots of the covariances carry one common draw and one of each domain's own.
"""

from collections.abc import Sequence

import numpy as np

from raymix.laws.average import Average
from raymix.laws.base import Array, Law, changed
from raymix.laws.hedged import HedgedUnion
from raymix.laws.residual import ResidualGP
from raymix.laws.robust import eigen

LEFT = 1e-9  # of the weights of shapes that a draw has not: they still say at what level one factor is read
SHARED = 0.5  # correlation of residuals between eval domains of one run: .4-.6 in published runs


def sample(law: Law, n: int, rng: np.random.Generator) -> list[Law] | None:
    """`n` laws drawn from the posterior of `law`; None for a law without parameters and covariance.

    Of a residual process the law inside is drawn; the process stays. Of a blend each draw has one shape, each as often
    as it counts: a truth has one, and the mean of shapes drawn apart is surer than any of them, though all were fitted
    to the same runs.
    """
    laws = _drawn(law, n, rng)
    return None if laws is None else [_in_one_shape(each, rng) for each in laws]


def _drawn(law: Law, n: int, rng: np.random.Generator) -> list[Law] | None:
    """Draws in which every shape has parameters of its own, and the weights stay."""
    if isinstance(law, ResidualGP):
        bases = _drawn(law.law_, n, rng)
        return None if bases is None else [changed(law, law_=base) for base in bases]
    if isinstance(law, Average | HedgedUnion):
        parts = [_drawn(part, n, rng) for part in law.laws_]
        known = [part for part in parts if part is not None]
        blends = [changed(law, laws_=list(laws)) for laws in zip(*known, strict=True)]
        return blends if len(known) == len(parts) else None
    if not hasattr(law, "params_MP_") or not hasattr(law, "covariance_MPP_"):
        return None
    params_SMP = draw_params(law.params_MP_, law.covariance_MPP_, n, rng)
    return [changed(law, params_MP_=params_MP) for params_MP in params_SMP]


def _in_one_shape(law: Law, rng: np.random.Generator) -> Law:
    """With one of the laws that a blend is made of; a blend of one law draws no shape."""
    found = law
    if isinstance(law, ResidualGP):
        found = changed(law, law_=_in_one_shape(law.law_, rng))
    elif isinstance(law, Average | HedgedUnion) and len(law.laws_) > 1:
        chosen_F = np.eye(len(law.weight_F_))[rng.choice(len(law.weight_F_), p=law.weight_F_)]
        laws = [_in_one_shape(part, rng) for part in law.laws_]
        found = changed(law, laws_=laws, weight_F_=LEFT * law.weight_F_ + (1 - LEFT) * chosen_F)
    return found


def draw_params(mean_MP: Array, covariance_MPP: Array, n: int, rng: np.random.Generator) -> Array:
    """Normal draws (S, M, P) with these means and covariances, correlated SHARED between eval domains."""
    root_MPP = np.stack([_root(covariance_PP) for covariance_PP in covariance_MPP])
    shared_S1P = rng.normal(size=(n, 1, mean_MP.shape[1]))
    own_SMP = rng.normal(size=(n, *mean_MP.shape))
    z_SMP = np.sqrt(SHARED) * shared_S1P + np.sqrt(1 - SHARED) * own_SMP
    return np.asarray(mean_MP + np.einsum("mpq,smq->smp", root_MPP, z_SMP))


def _root(covariance_PP: Array) -> Array:
    """The symmetric square root, which is one and the same however its vectors were found."""
    value_P, vector_PP = eigen(covariance_PP)
    return np.asarray((vector_PP * np.sqrt(np.maximum(value_P, 0.0))) @ vector_PP.T)


def convex_parts(law: Law) -> Sequence[Law]:
    """The convex laws inside: `law` itself, what lies under its process, or the laws of an average."""
    return [law] if law.convex else [part for each in _inside(law) for part in convex_parts(each)]


def parts_of(law: Law) -> Sequence[Law]:
    """The laws inside that have none inside: `law` itself, what lies under its process, or the laws of a blend."""
    return [part for each in _inside(law) for part in parts_of(each)] or [law]


def _inside(law: Law) -> Sequence[Law]:
    return [law.law_] if isinstance(law, ResidualGP) else getattr(law, "laws_", [])
