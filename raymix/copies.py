"""Runs that stand in a table twice under two names: one measurement, not two that agree.

Two runs of one mixture and scale never have the same loss to the last digit in several eval domains, whatever their
seeds. Where they do, somebody gave a table twice, or a trainer ignores its seed. Counted as two they would weigh twice
and, as replicates without noise, make every interval too narrow.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from raymix.observations import Observations

SEVERAL = 2  # losses that are equal to the last digit: of a single one, rounded, that may be chance
DIGITS = 9  # of a share: mapped to other domains and back it differs beyond
NAMED = 5


def copies(table: Observations) -> dict[int, int]:
    """Row -> the first row that says the same of another trial: mixture, scale and every loss."""
    rows = zip(table.mix_BK.tolist(), table.scale_B2.tolist(), table.loss_BM.tolist(), strict=True)
    return _repeated(table.trial_ids, (_said(*row) for row in rows))


def copied_rows(rows: Sequence[Mapping[str, Any]], ids: Sequence[str]) -> dict[int, int]:
    """The same of plain rows; `ids` tell what may be a copy of what: rows of one id are none."""
    return _repeated(ids, (_said_by(row) for row in rows))


def _repeated(ids: Sequence[str], said: Iterable[Hashable | None]) -> dict[int, int]:
    first: dict[Hashable, int] = {}
    found = {}
    for b, key in enumerate(said):
        original = b if key is None else first.setdefault(key, b)
        if ids[original] != ids[b]:
            found[b] = original
    return found


def _said_by(row: Mapping[str, Any]) -> Hashable | None:
    """As `_said`; the columns of one study stand in one order in all of its rows."""
    mixture, losses = ([row[name] for name in sorted(row) if name.startswith(kind)] for kind in ("mixture/", "loss/"))
    names = tuple(name for name in sorted(row) if name.startswith("loss/") and row[name] is not None)
    said = _said(mixture, (row["n_params"], row["n_tokens"]), [math.nan if loss is None else loss for loss in losses])
    return None if said is None else (said, names)


def _said(mixture: Sequence[float], scale: Sequence[float], losses: Sequence[float]) -> Hashable | None:
    """What makes a row; None where it measured too little to be told from others."""
    measured = tuple(loss if math.isfinite(loss) else None for loss in losses)
    if len(measured) - measured.count(None) < SEVERAL:
        return None
    return tuple(round(share, DIGITS) for share in mixture), tuple(scale), measured


def without_copies(table: Observations) -> tuple[Observations, list[str]]:
    """The table with each measurement once, and a sentence where some stood there more often."""
    found = copies(table)
    if not found:
        return table, []
    kept_B = ~np.isin(np.arange(len(table)), list(found))
    return table.select(kept_B), [f"{copy_words(table.trial_ids, found)}; each counts once"]


def copy_words(ids: Sequence[str], found: Mapping[int, int]) -> str:
    """Which trials are copies of which, as a sentence without its end."""
    pairs = list(dict.fromkeys((ids[b], ids[original]) for b, original in found.items()))
    named = ", ".join(f"{copy!r} of {original!r}" for copy, original in pairs[:NAMED])
    more = ", ..." if len(pairs) > NAMED else ""
    trials = f"{len(pairs)} trials have" if len(pairs) > 1 else "1 trial has"
    return f"{trials} the mixture, scale and every loss of another to the last digit ({named}{more})"
