"""The contract of designers: `check_designer(make)` for ours and for yours."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from raymix.design import Designer, Proposal
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import SearchSpace


def check_designer(make: Callable[[SearchSpace], Designer], seed: int = 0) -> None:
    """Every promise of `Designer.suggest`, over spaces of 2 to 40 domains with tight caps and groups.

    Raises:
        AssertionError: a promise is broken; the message says which and where.
    """
    for space in spaces():
        designer = make(space)
        for name, table in tables(space, seed):
            where = f"{space.name}, {name}"
            pending = designer.suggest(table, [], 3, _rng(seed))
            assert len(pending) == 3, f"{where}: asked for 3 proposals, got {len(pending)}"
            following = designer.suggest(table, pending, 2, _rng(seed + 1))
            for proposal in [*pending, *following]:
                inside = space.polytope().contains(proposal.mixture_K, 1e-9)[0]
                assert inside, f"{where}: {proposal.mixture_K} lies outside the polytope"
                assert proposal.scale in [rung.scale for rung in space.ladder], f"{where}: {proposal.scale} is no rung"
            _check_no_duplicate(pending, following, where)
            again = make(space).suggest(table, [], 3, _rng(seed))
            same = all(np.array_equal(a.mixture_K, b.mixture_K) for a, b in zip(pending, again, strict=True))
            assert same, f"{where}: the same table, pending and seed gave other proposals"


def _check_no_duplicate(pending: list[Proposal], following: list[Proposal], where: str) -> None:
    taken = {(p.mixture_K.tobytes(), p.scale, p.seed) for p in pending}
    for proposal in following:
        key = (proposal.mixture_K.tobytes(), proposal.scale, proposal.seed)
        assert key not in taken, f"{where}: {proposal.mixture_K} is pending already"


def spaces() -> Iterator[SearchSpace]:
    """Spaces that have broken designers: two domains, many, tight caps, groups, a fixed share, one rung."""
    yield _space("two", 2)
    yield _space("tight caps", 12, max_share=1.3 / 12)
    yield _space("forty", 40)
    group = {"groups": [{"domains": ["d0", "d1"], "min": 0.3, "max": 0.5}]}
    yield _space("groups", 5, constraints=group)
    yield _space("one rung", 3, ladder=[{"n_params": 1e6, "n_tokens": 1e8}])


def _space(name: str, k: int, max_share: float = 1.0, **changes: object) -> SearchSpace:
    raw: dict[str, object] = {
        "name": name,
        "domains": [{"name": f"d{i}", "max_share": max_share, "available_tokens": 1e9 * (i + 1)} for i in range(k)],
        "eval_domains": [{"name": f"d{i}", "own": f"d{i}"} for i in range(min(k, 3))],
        "ladder": [{"n_params": 1e6, "n_tokens": 1e8}, {"n_params": 4e6, "n_tokens": 2e8}],
        "target": {"n_params": 1e8, "n_tokens": 1e9},
    }
    return SearchSpace.parse(raw | changes)


def tables(space: SearchSpace, seed: int) -> Iterator[tuple[str, Observations]]:
    """Nothing yet; every trial failed; a dozen trials, some failed, some losses missing."""
    yield "empty table", _table(space, [])
    rng = _rng(seed)
    mix_BK = rng.dirichlet(np.ones(len(space.domains)), size=12)
    yield "all failed", _table(space, [_row(space, i, mix_BK[i], None, "failed") for i in range(12)])
    rows = [_row(space, i, mix_BK[i], rng, "failed" if i % 5 == 4 else "done") for i in range(12)]
    rows[0][f"loss/{space.eval_names[-1]}"] = None
    yield "a dozen trials", _table(space, rows)


def _row(space: SearchSpace, i: int, mix_K: Array, rng: np.random.Generator | None, status: str) -> dict[str, object]:
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


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
