"""What the default has learned from a table: one fit per tenth of growth, remembered by what it was made from.

A fit costs seconds at thousands of trials, a proposal should cost milliseconds. So law, optimum and candidates come
from the first m trials, where m is the largest number of a fixed ladder (each a tenth above the last) that the table
has reached; trials beyond m still enter the process on the residuals. All of it is a function of the table: the
memory only saves computing the same again.

Letters: B candidates, K training domains, M eval domains, S draws.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from raymix import simplex
from raymix.design import space_filling
from raymix.design.base import Observations, SearchSpace
from raymix.design.belief import Belief, Sites
from raymix.design.evidence import prior_inside, usable_rows, whole
from raymix.design.information import Question
from raymix.design.schedule import rungs
from raymix.laws import HedgedUnion, Law, ResidualGP
from raymix.laws.base import Table
from raymix.laws.posterior import sample
from raymix.laws.rows import last_rows
from raymix.simplex import Array, Polytope
from raymix.target.answer import MIN_TRIALS
from raymix.target.objective import ObjectiveAtScale, objective_of
from raymix.target.optimum import constraints_of, minimise, on_simplex

GROWTH = 1.1
REMEMBERED = 16  # fits; forgetting one costs only time
MAX_SITES = 256  # trials the process is conditioned on: those nearest the law's optimum
N_DRAWS = 4  # laws whose optima are looked for
N_BEST = 4  # trials seen that the belief likes best, among which and the optima candidates lie
N_BLENDS = 64
RADII = (0.5, 0.15)  # of the boxes around an optimum, in units of its shares (and a hundredth)
N_LOCAL = 40  # candidates per box
N_BOXES = 3  # optimum and what polishing makes of it and of the best trial
N_EXCHANGES = 60  # candidates per such point that give other domains a part of its shares
MOVED = (0.03, 0.5)  # of all tokens, in such an exchange
STEP = 1e-6  # of a share, for the slope of the belief
N_ASKED = 32  # laws that span what is asked
N_NEAR = 24  # mixtures between which a design point should decide
N_DESIGN = 64  # of each kind of candidate for a design point
GUARD_SLACK = 1e-6  # nats: what the optimum itself may be over a guardrail by rounding

_fits: OrderedDict[bytes, "Learned"] = OrderedDict()


@dataclass(frozen=True)
class Learned:
    """A fit, its optimum at the target, and where the optimum could lie."""

    law: ResidualGP
    optimum_K: Array
    """Of the law without the process."""
    candidates_BK: Array
    question: Question
    """Which of the best candidates is best?"""
    design_BK: Array
    """Mixtures all over the polytope: design points for the law."""
    design_BMS: Array
    """What each would tell (`information`), trained on the smallest rung."""


def learn(space: SearchSpace, table: Observations) -> tuple[Learned, Belief] | None:
    """The fit and the belief that follow from a table; None where there is too little to learn from."""
    usable = usable_rows(space, table)
    if _whole_trials(usable) < MIN_TRIALS:
        return None
    first = usable.take(usable.run_B < reached(int(usable.run_B.max()) + 1))
    if _whole_trials(first) < MIN_TRIALS:
        first = usable
    key = _digest(space, first)
    learned = _fits.pop(key, None) or _fit(space, first)  # another thread may know or forget other fits meanwhile
    _fits[key] = learned
    while len(_fits) > REMEMBERED:
        _fits.popitem(last=False)
    return learned, Belief.of(space, learned.law, _sites(usable, learned.optimum_K))


def _whole_trials(rows: Table) -> int:
    """How many trials have a row with every loss."""
    return len(np.unique(whole(rows).run_B))


def reached(trials: int) -> int:
    """The largest m <= trials of 4, 5, ... in which each is at least a tenth above the last."""
    m = MIN_TRIALS
    while (following := int(np.ceil(m * GROWTH))) <= trials:
        m = following
    return m


def _digest(space: SearchSpace, rows: Table) -> bytes:
    found = hashlib.sha256(space.model_dump_json().encode())
    for array in (rows.mix_BK, rows.scale_B2, rows.loss_BM, rows.run_B, rows.unique_BK):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.digest()


def _sites(usable: Table, optimum_K: Array) -> Sites:
    """The last rows of the trials nearest the optimum, those with every loss measured."""
    measured = whole(usable)
    last = measured.take(last_rows(measured))
    distance_B = simplex.hellinger(last.mix_BK, optimum_K[None])[:, 0]
    near = last.take(np.sort(np.argsort(distance_B, kind="stable")[:MAX_SITES]))
    assert near.unique_BK is not None
    return Sites(near.mix_BK, near.scale_B2, np.log(near.loss_BM), near.unique_BK)


def _fit(space: SearchSpace, rows: Table) -> Learned:
    rng = np.random.default_rng(len(rows.run_B))  # a function of the table: it may not matter who asked first
    law = rows.fit(ResidualGP(stretched=False))
    polytope, objective = space.polytope(), objective_of(space, law.law_)
    optimum_K = minimise(objective, polytope).mixture_K
    objective = objective.in_units(optimum_K)
    belief = Belief.of(space, law, _sites(rows, optimum_K))
    seen_BK = belief.sites.mix_RK[np.argsort(belief.objective(belief.sites.mix_RK), kind="stable")[:N_BEST]]
    seen = [simplex.project(polytope, mix_K) for mix_K in seen_BK]
    polished_BK = np.stack([polish(belief, polytope, objective, mix_K) for mix_K in (optimum_K, *seen[:1])])
    drawn = sample(law.law_, N_DRAWS, rng) or []
    ends = [minimise(objective_of(space, draw), polytope, [optimum_K]).mixture_K for draw in drawn]
    corners_BK = np.stack([optimum_K, *polished_BK, *ends, *seen])
    candidates_BK = _candidates(polytope, objective, corners_BK, rng)
    near = np.argsort(objective.values(candidates_BK), kind="stable")[:N_NEAR]
    laws: Sequence[Law] = sample(law.law_, N_ASKED, rng) or [law.law_]
    assert isinstance(law.law_, HedgedUnion)
    question = Question.of(space, laws, candidates_BK[near], law.law_.sig_M_)
    design_BK = space_filling.candidates(polytope, prior_inside(space), rng, N_DESIGN)
    design_BMS = question.features(design_BK, np.tile(rungs(space)[0], (len(design_BK), 1)))
    return Learned(law, optimum_K, candidates_BK, question, design_BK, design_BMS)


def _candidates(polytope: Polytope, objective: ObjectiveAtScale, corners_BK: Array, rng: np.random.Generator) -> Array:
    """The corners, points between two, boxes around the first and exchanges with them; guardrails are kept."""
    i, j = rng.integers(len(corners_BK), size=(2, N_BLENDS))
    blends_BK = corners_BK[i] + rng.random((N_BLENDS, 1)) * (corners_BK[j] - corners_BK[i])
    local = [nearby(polytope, mix_K, radius, N_LOCAL, rng) for mix_K in corners_BK[:N_BOXES] for radius in RADII]
    exchanged = [exchanges(polytope, mix_K, N_EXCHANGES, rng) for mix_K in corners_BK[:N_BOXES]]
    found_BK = np.concatenate([corners_BK, blends_BK, *local, *exchanged])
    return np.asarray(found_BK[allowed(objective, found_BK) | (np.arange(len(found_BK)) < 1)])


def allowed(objective: ObjectiveAtScale, mix_BK: Array) -> NDArray[np.bool_]:
    """Which mixtures (B,) keep the guardrails under the law."""
    if objective.ceiling_M is None:
        return np.ones(len(mix_BK), dtype=bool)
    return np.asarray((objective.losses(mix_BK) <= objective.ceiling_M + GUARD_SLACK).all(axis=1))


def nearby(polytope: Polytope, mix_K: Array, radius: float, n: int, rng: np.random.Generator) -> Array:
    """n points (n, K) of the part of the polytope where every share is within `radius` of its own (and a hundredth)."""
    reach_K = radius * (mix_K + 0.01)
    lower_K, upper_K = np.maximum(polytope.lower_K, mix_K - reach_K), np.minimum(polytope.upper_K, mix_K + reach_K)
    box = Polytope(np.minimum(lower_K, mix_K), np.maximum(upper_K, mix_K), polytope.rows_GK, polytope.limit_G)
    spread_BK = simplex.sample(box, n, rng, steps=2 * polytope.n_domains)
    return np.asarray(mix_K + rng.uniform(0.2, 1.0, size=(n, 1)) * (spread_BK - mix_K))


def exchanges(polytope: Polytope, mix_K: Array, n: int, rng: np.random.Generator) -> Array:
    """n points (n, K): one to three domains, drawn at random, get a part of the tokens of all.

    A box around a share is as small as the share: at a corner it holds the corner alone.
    """
    size = (n, polytope.n_domains)
    chosen_BK = rng.random(size).argsort(axis=1).argsort(axis=1) < rng.integers(1, 4, size=(n, 1))
    given_BK = rng.exponential(size=size) * chosen_BK
    low, high = np.log(MOVED)
    part_B1 = np.exp(rng.uniform(low, high, size=(n, 1)))
    moved_BK = (1 - part_B1) * mix_K + part_B1 * given_BK / given_BK.sum(axis=1, keepdims=True)
    return np.stack([simplex.project(polytope, moved_K) for moved_K in moved_BK])


def polish(belief: Belief, polytope: Polytope, objective: ObjectiveAtScale, start_K: Array) -> Array:
    """The local optimum of the cautious belief near `start_K`: SLSQP, slopes by differences, guardrails kept.

    Random points in small boxes were not enough: in 17 dimensions they left half of what the process promised.
    """

    def value_and_slope(x_K: Array) -> tuple[float, Array]:
        mix_K = on_simplex(polytope, x_K)
        asked_BK = np.vstack([mix_K, (mix_K + STEP * np.eye(len(mix_K))) / (1 + STEP)])
        value_B = belief.cautious(asked_BK) / objective.unit
        return float(value_B[0]), np.asarray((value_B[1:] - value_B[0]) / STEP)

    found = minimize(
        value_and_slope,
        start_K,
        jac=True,
        bounds=list(zip(polytope.lower_K, polytope.upper_K, strict=True)),
        constraints=constraints_of(objective, polytope),
        method="SLSQP",
        options={"ftol": 1e-9, "maxiter": 100},
    )
    if not np.isfinite(found.x).all():
        return start_K
    tried_BK = np.stack([start_K, simplex.project(polytope, on_simplex(polytope, found.x))])
    kept_BK = tried_BK[allowed(objective, tried_BK) | (np.arange(2) < 1)]
    return np.asarray(kept_BK[int(np.argmin(belief.cautious(kept_BK)))])
