"""The rows of a study: one per trial and token count, a trial's end being one of them; together a table.

Observations taken from elsewhere stand before them, as long as this study did not measure the same.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from raymix.exchange import Labels, labels, number_columns, numbers
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import SearchSpace
from raymix.study.routes import alike, by_size, once, origin

ENDED = ("done", "stopped", "failed")
Cells = tuple[Labels, Array]  # a row of the table


class Rows:
    """Kept as the table wants them: labels, and numbers in the order of its columns."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._names = space.domain_names, space.eval_names, space.metric_names
        self._columns = number_columns(*self._names)
        self._cells: dict[str, dict[float, Cells]] = {}
        """By trial and tokens."""
        self._ends: dict[str, float] = {}
        """Where the row with which a trial ended stands among its own."""
        self.reused: dict[str, dict[str, Any]] = {}
        """Observations taken from elsewhere, by the entry of `from` that asked for them (raymix/study/evidence.py)."""
        self._reused: tuple[list[tuple[tuple[str, float], Cells]], set[str]] | None = None
        self._table: Observations | None = None

    def add(self, body: Mapping[str, Any]) -> bool:
        """Take a recorded row; False where the trial has ended with one at the same tokens, which counts instead."""
        trial_id, status = body["trial_id"], body["status"]
        own = self._cells.setdefault(trial_id, {})
        # A failure has a place of its own: it must not hide the checkpoint measured at the same tokens.
        place = math.inf if status in ENDED[1:] else body["n_tokens"]
        if status in ENDED:  # a trial has one result, the last that was told
            own.pop(self._ends.get(trial_id, place), None)
            self._ends[trial_id] = place
        elif self._ends.get(trial_id) == place:
            return False
        own[place] = self._cells_of(body)
        self._table = None
        return True

    def reuse(self, body: dict[str, Any]) -> None:
        """Take observations from elsewhere, as recorded."""
        self.reused[body["entry"]] = body
        self._reused = self._table = None

    def table(self, trial_ids: Iterable[str], last_rows: Iterable[Mapping[str, Any]]) -> Observations:
        """What is reused, then the rows of these trials in their order and that of their tokens.

        `last_rows` are those of the trials that say most: with them it is known what has been measured at all.
        """
        if self._table is None:
            own = [self._cells[trial_id] for trial_id in trial_ids if trial_id in self._cells]
            cells = [cells[place] for cells in own for place in sorted(cells)]
            self._table = self._as_table([*self._reused_cells(last_rows), *cells])
        return self._table

    def near(self, trial_ids: Iterable[str], n_tokens: float, within: float) -> Observations:
        """The rows of these trials at so many tokens, give or take the share `within`; quick where few are."""
        own = (self._cells.get(trial_id, {}).items() for trial_id in trial_ids)
        return self._as_table([row for cells in own for at, row in cells if abs(at - n_tokens) < within * n_tokens])

    def _as_table(self, cells: Sequence[Cells]) -> Observations:
        number_BC = np.stack([number for _, number in cells]) if cells else np.zeros((0, len(self._columns)))
        return Observations.from_numbers([label for label, _ in cells], number_BC, *self._names)

    def _reused_cells(self, last_rows: Iterable[Mapping[str, Any]]) -> list[Cells]:
        """Rows from elsewhere, once every eval domain is measured by some row: a law needs all of them."""
        if self._reused is None:
            asked = [self.reused[entry.key] for entry in self._space.reuse if entry.key in self.reused]
            rows = once([row for body in asked for row in by_size(body["rows"])])
            cells = [((origin(row["trial_id"]), row["n_tokens"]), self._cells_of(row)) for row in rows]
            self._reused = cells, _measured(rows)
        found, measured = self._reused
        columns = {f"loss/{name}" for name in self._space.eval_names}
        if not found or not columns <= measured | _measured(last_rows):
            return []
        own = ((self._cells.get(name, {}).get(at), cells) for (name, at), cells in found)  # others may have taken it
        return [cells for ours, cells in own if ours is None or not alike(self._columns, ours[1], cells[1])]

    def _cells_of(self, row: Mapping[str, Any]) -> Cells:
        return labels(row), np.asarray(numbers(row, self._columns))


def _measured(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Columns that some row has a value of."""
    return {name for row in rows for name, value in row.items() if value is not None}
