"""Evidence that came by several routes counts once.

A study that took evidence hands it on with its own: whoever takes from that study and from its source, or is its
source, meets the same measurements twice, as would-be replicates without noise. The ids say by which route a row came,
`from/<source>/` for every step.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raymix.copies import copied_rows, copy_words
from raymix.observations import REUSED
from raymix.simplex import Array

STEPS = re.compile(rf"(?:{REUSED}[0-9a-f]+/)*")


def once(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of evidence in their order, each measurement once: of several routes the shortest, then the first.

    The same trial at the same scale with the same losses is one measurement; trials of several tables may well be
    numbered alike, but then their losses differ. What another source says under another name is a copy.
    """
    known: dict[tuple[Any, ...], list[int]] = {}
    for i in sorted(range(len(rows)), key=lambda i: _steps(rows[i])):
        same = known.setdefault(_trial(rows[i]), [])
        if not any(_agree(rows[i], rows[j]) for j in same):
            same.append(i)
    named = [rows[i] for i in sorted(i for same in known.values() for i in same)]
    twice = copied_rows(named, [_route(row) for row in named])
    return [row for i, row in enumerate(named) if i not in twice]


def by_size(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the size in the name of a trial that stands for runs of several: a trial of a study is one run.

    A study begun by an earlier version has recorded such rows under one name.
    """
    sizes: dict[str, set[float]] = {}
    for row in rows:
        sizes.setdefault(row["trial_id"], set()).add(row["n_params"])
    several = {trial_id for trial_id, found in sizes.items() if len(found) > 1}
    return [
        {**row, "trial_id": f"{row['trial_id']}@{row['n_params']:g}"} if row["trial_id"] in several else dict(row)
        for row in rows
    ]


def copied(rows: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence where rows of evidence are those of another source (in `before`) under other names."""
    both = [*before, *rows]
    ids = [origin(row["trial_id"]) for row in both]
    found = copied_rows(both, [_route(row) for row in both])
    renamed = {b: first for b, first in found.items() if b >= len(before) and ids[b] != ids[first]}
    return [f"{copy_words(ids, renamed)}; each counts once"] if renamed else []


def alike(columns: Sequence[str], ours_C: Array, theirs_C: Array) -> bool:
    """Whether all losses that two rows of numbers both say are equal."""
    both_C = np.array([name.startswith("loss/") for name in columns]) & np.isfinite(ours_C) & np.isfinite(theirs_C)
    return bool(both_C.any()) and bool((ours_C[both_C] == theirs_C[both_C]).all())


def origin(trial_id: str) -> str:
    """The name of a trial where it was trained."""
    return STEPS.sub("", trial_id, count=1)


def _route(row: Mapping[str, Any]) -> str:
    found = STEPS.match(row["trial_id"])
    return found[0] if found else ""


def _steps(row: Mapping[str, Any]) -> int:
    return _route(row).count(REUSED)


def _trial(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Its name at its source, with seed and scale."""
    return origin(row["trial_id"]), row.get("seed"), row.get("n_params"), row.get("n_tokens")


def _agree(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether all losses that both say are equal; a study on the way may have left some out."""
    both = [name for name in a if name.startswith("loss/") and a[name] is not None and b.get(name) is not None]
    return bool(both) and all(a[name] == b[name] for name in both)
