"""The contract of designers: `check_designer(make)` for ours and for yours."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache

import numpy as np
from numpy.random import Generator, default_rng

from raymix.design import Designer, Proposal, Recommender
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import SearchSpace


def check_designer(
    make: Callable[[SearchSpace], Designer], seed: int = 0, spaces: Iterable[SearchSpace] | None = None
) -> None:
    """Every promise of `Designer.suggest` (and of `recommend`, where there is one).

    Over `spaces`, by default of 2 to 8 domains, some with tight caps and groups; with tables that are empty, failed
    throughout, or have failures and missing losses.

    Raises:
        AssertionError: a promise is broken; the message says which and where.
    """
    for space in some_spaces() if spaces is None else spaces:
        designer = make(space)
        for name, table in tables(space, seed):
            where = f"{space.name}, {name}"
            pending = designer.suggest(table, [], 3, default_rng(seed))
            following = designer.suggest(table, pending, 2, default_rng(seed + 1))
            _check_inside(space, pending, 3, where)
            _check_inside(space, following, 2, where)
            _check_no_duplicate(pending, following, where)
            _check_no_duplicate(_tried(space, table), pending, where)
            again = make(space).suggest(table, [], 3, default_rng(seed))
            assert fingerprint(pending) == fingerprint(again), f"{where}: same table, pending and seed, other proposals"
            if isinstance(designer, Recommender):
                found_K = designer.recommend(table)
                assert space.polytope().contains(found_K, 1e-9)[0], f"{where}: recommended {found_K} lies outside"


def fingerprint(proposals: list[Proposal]) -> tuple[tuple[bytes, float, float, int], ...]:
    """All that proposals are, to the last bit."""
    return tuple(_key(proposal) for proposal in proposals)


def _check_inside(space: SearchSpace, proposals: list[Proposal], n: int, where: str) -> None:
    assert len(proposals) == n, f"{where}: asked for {n} proposals, got {len(proposals)}"
    for proposal in proposals:
        inside = space.polytope().contains(proposal.mixture_K, 1e-9)[0]
        assert inside, f"{where}: {proposal.mixture_K} lies outside the polytope"
        assert proposal.scale in [rung.scale for rung in space.ladder], f"{where}: {proposal.scale} is no rung"


def _check_no_duplicate(taken: list[Proposal], following: list[Proposal], where: str) -> None:
    keys = {_key(proposal) for proposal in taken}
    for proposal in following:
        assert _key(proposal) not in keys, f"{where}: {proposal.mixture_K} is pending or tried already"


def _tried(space: SearchSpace, table: Observations) -> list[Proposal]:
    if not len(table):
        return []
    last = table.last()
    rungs = [space.ladder[i % len(space.ladder)].scale for i in range(len(last))]
    seeds = last.table["seed"].to_pylist()
    return [Proposal(mix_K, rung, seed) for mix_K, rung, seed in zip(last.mix_BK, rungs, seeds, strict=True)]


def _key(proposal: Proposal) -> tuple[bytes, float, float, int]:
    return (proposal.mixture_K.tobytes(), *proposal.scale, proposal.seed)


@cache
def some_spaces() -> tuple[SearchSpace, ...]:
    """Spaces that have broken designers: two domains, many, tight caps, groups, a fixed share, one rung."""
    group = {"groups": [{"domains": ["d0", "d1"], "min": 0.3, "max": 0.5}]}
    return (
        space_of("two", 2),
        space_of("tight caps", 8, max_share=1.3 / 8),
        space_of("groups", 5, constraints=group),
        space_of("one rung", 3, ladder=[{"n_params": 1e6, "n_tokens": 1e8}]),
        space_of("one mixture", 4, max_share=0.25),
    )


def space_of(name: str, k: int, max_share: float = 1.0, **changes: object) -> SearchSpace:
    """A space of k domains, two rungs, at most three eval domains; `changes` replace its parts."""
    raw: dict[str, object] = {
        "name": name,
        "domains": [{"name": f"d{i}", "max_share": max_share, "available_tokens": 1e9 * (i + 1)} for i in range(k)],
        "eval_domains": [{"name": f"d{i}", "own": f"d{i}"} for i in range(min(k, 3))],
        "ladder": [{"n_params": 1e6, "n_tokens": 1e8}, {"n_params": 4e6, "n_tokens": 2e8}],
        "target": {"n_params": 1e8, "n_tokens": 1e9},
    }
    return SearchSpace.parse(raw | changes)


def tables(space: SearchSpace, seed: int = 0) -> Iterator[tuple[str, Observations]]:
    """Nothing yet; every trial failed; a dozen trials, some failed, some losses missing."""
    yield "empty table", _table(space, [])
    rng = default_rng(seed)
    mix_BK = rng.dirichlet(np.ones(len(space.domains)), size=12)
    yield "all failed", _table(space, [_row(space, i, mix_BK[i], None, "failed") for i in range(12)])
    rows = [_row(space, i, mix_BK[i], rng, "failed" if i % 5 == 4 else "done") for i in range(12)]
    rows[0][f"loss/{space.eval_names[-1]}"] = None
    yield "a dozen trials", _table(space, rows)
    for row in rows:
        row[f"loss/{space.eval_names[0]}"] = None
    yield "an eval domain never measured", _table(space, rows)


def _row(space: SearchSpace, i: int, mix_K: Array, rng: Generator | None, status: str) -> dict[str, object]:
    scale = space.ladder[i % len(space.ladder)].scale
    row: dict[str, object] = {"trial_id": f"t{i}", "status": status, "reason": "died" if status == "failed" else ""}
    row |= {"n_params": scale.n_params, "n_tokens": scale.n_tokens}
    row |= {f"mixture/{name}": share for name, share in zip(space.domain_names, mix_K, strict=True)}
    if rng is not None and status == "done":
        for own, name in zip(space.own_M, space.eval_names, strict=True):
            row[f"loss/{name}"] = 2 + (mix_K[own] + 0.05) ** -0.2 * np.exp(0.01 * rng.normal())
    return row


def _table(space: SearchSpace, rows: list[dict[str, object]]) -> Observations:
    return Observations.from_rows(rows, space.domain_names, space.eval_names)
