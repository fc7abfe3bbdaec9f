"""Losses in long form, one point per run, size, tokens and eval domain, gathered into rows of the observation table.

The order of the points does not matter: rows come out sorted by size, run and tokens, eval domains by name.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from raymix.exchange import SUM_ERROR, percent_hint
from raymix.formats.rows import Row, as_observations, without_loss
from raymix.observations import Observations
from raymix.sheet import listed, nearest

log = logging.getLogger(__name__)


Key = tuple[str, float, float]  # trial_id, n_params, n_tokens


class Point(NamedTuple):
    """One measured loss, or one asked for (`loss` None); shares in the order of the domains."""

    trial_id: str
    n_params: float
    n_tokens: float
    shares: tuple[float, ...]
    eval_domain: str
    loss: float | None


def gather(points: Iterable[Point], domains: Sequence[str], path: Path) -> Observations:
    """One row per (trial_id, n_params, n_tokens); no eval domains where no point has a loss.

    Args:
        points: in any order; equal duplicates count once.
        domains: names of the shares.
        path: named in errors.

    Raises:
        ValueError: two values for one cell, two mixtures for one trial, a sum off by more than 1%, nothing left.
    """
    every = list(points)
    kept = [point for point in every if point.n_tokens > 0]
    if not kept:
        raise ValueError(f"{path}: no rows are left to import")
    mixtures = _mixtures(kept, path)
    kept += _before_training(every, mixtures, path)
    _check_sums(mixtures, path)
    cells = _cells(kept, path)
    eval_domains = sorted({name for losses in cells.values() for name in losses})
    rows = [_row(key, mixtures[key[0]], losses, domains, path) for key, losses in sorted(cells.items(), key=_order)]
    return as_observations(_with_checkpoints(rows), domains, eval_domains, path)


def check_skip(known: set[str], skip: Sequence[str], path: Path) -> None:
    """Nothing, if every trial to leave out is there.

    Raises:
        ValueError: names the unknown one and the nearest.
    """
    for name in skip:
        if name not in known:
            raise ValueError(f"{path}: skip names {name!r}, which is no trial; {nearest(name, sorted(known))}")


def _before_training(points: list[Point], mixtures: Mapping[str, tuple[float, ...]], path: Path) -> list[Point]:
    """Losses at 0 tokens of a model without a mixture, as the start of every run of its size: all go on from it.

    Other losses at 0 tokens are of untrained models, and are left out aloud.
    """
    before = [p for p in points if p.n_tokens == 0]
    base = [p for p in before if p.loss is not None and all(map(math.isnan, p.shares))]
    if other := sorted({p.trial_id for p in before} - {p.trial_id for p in base}):
        log.warning("%s: losses at 0 tokens are left out, of %s", path, listed(other, 5))
    runs = {(p.trial_id, p.n_params) for p in points if p.trial_id in mixtures}
    return [p._replace(trial_id=run, shares=mixtures[run]) for p in base for run, size in runs if size == p.n_params]


def _mixtures(points: list[Point], path: Path) -> dict[str, tuple[float, ...]]:
    found: dict[str, tuple[float, ...]] = {}
    for point in points:
        if any(math.isnan(share) for share in point.shares):
            raise ValueError(f"{path}: trial {point.trial_id!r} has an empty share; a share of nothing is 0")
        if found.setdefault(point.trial_id, point.shares) != point.shares:
            raise ValueError(f"{path}: trial {point.trial_id!r} has two mixtures; a trial has one")
    return found


def _check_sums(mixtures: Mapping[str, Sequence[float]], path: Path) -> None:
    off = {name: sum(shares) for name, shares in mixtures.items() if not abs(sum(shares) - 1) <= SUM_ERROR}
    if off:
        names = listed([f"{name} (sum {total:.5g})" for name, total in off.items()], 5)
        raise ValueError(
            f"{path}: the shares of {len(off)} trial(s) do not sum to 1 within 1%: {names}; "
            f"leave out with --option skip=TRIAL{percent_hint([sum(shares) for shares in mixtures.values()])}"
        )


def _cells(points: list[Point], path: Path) -> dict[Key, dict[str, float]]:
    cells: dict[Key, dict[str, float]] = {}
    for trial_id, n_params, n_tokens, _, name, loss in points:
        losses = cells.setdefault((trial_id, n_params, n_tokens), {})
        if loss is None:
            continue
        before = losses.setdefault(name, loss)
        if before != loss and not (math.isnan(before) and math.isnan(loss)):
            raise ValueError(
                f"{path}: trial {trial_id!r} at {n_tokens:g} tokens has two losses on {name!r}: {before:g} and {loss:g}"
            )
    return cells


def _order(item: tuple[Key, dict[str, float]]) -> tuple[float, str, float]:
    (trial_id, n_params, n_tokens), _ = item
    return n_params, trial_id, n_tokens


def _row(key: Key, shares: Sequence[float], losses: dict[str, float], domains: Sequence[str], path: Path) -> Row:
    row: Row = dict(zip(("trial_id", "n_params", "n_tokens"), key, strict=True))
    row |= {f"mixture/{name}": share for name, share in zip(domains, shares, strict=True)}
    row |= {f"loss/{name}": loss for name, loss in losses.items()}
    return row | (without_loss(losses.values(), path) if losses else {})


def _with_checkpoints(rows: list[Row]) -> list[Row]:
    """Rows sorted by tokens within a trial; all but its last, unless failed, become checkpoints."""
    last = {(row["trial_id"], row["n_params"]): row["n_tokens"] for row in rows}
    return [_on_the_way(row) if row["n_tokens"] < last[row["trial_id"], row["n_params"]] else row for row in rows]


def _on_the_way(row: Row) -> Row:
    """Of a run that has not ended: `failed` stays, and at 0 tokens it has not begun."""
    return {"status": "checkpoint"} | row if row["n_tokens"] > 0 else row | {"status": "start"}
