"""From published tables to rows of the observation table: join by id, say what happened to a trial."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raymix.observations import Observations
from raymix.sheet import Sheet, as_number, listed

Row = dict[str, Any]


def row_of_id(sheet: Sheet, column: str) -> dict[str, int]:
    """Where each id stands.

    Raises:
        ValueError: the column is missing, an id is empty or stands twice.
    """
    sheet.need(column)
    found: dict[str, int] = {}
    for row in range(len(sheet.rows)):
        name = re.sub(r"^(\d+)\.0$", r"\1", sheet.text(row, column))  # pandas writes whole ids as 1.0
        if not name:
            raise ValueError(f"{sheet.path}: row {row + 1} has no {column!r}")
        if name in found:
            raise ValueError(
                f"{sheet.path}: the {column} {name!r} stands twice, in rows {found[name] + 1} and {row + 1}; keep one"
            )
        found[name] = row
    return found


def joined(left: Sheet, left_id: str, right: Sheet, right_id: str) -> Iterator[tuple[str, int, int]]:
    """(id, row in left, row in right), in the order of left; the order of right does not matter.

    Raises:
        ValueError: an id is in one file and not in the other, or stands twice in one.
    """
    left_rows, right_rows = row_of_id(left, left_id), row_of_id(right, right_id)
    only = [
        f"{len(missing)} only in {sheet.path.name} ({listed(missing, 5)})"
        for sheet, missing in (
            (left, [name for name in left_rows if name not in right_rows]),
            (right, [name for name in right_rows if name not in left_rows]),
        )
        if missing
    ]
    if only:
        remedy = "a run stands in both, with empty cells where it has no losses"
        raise ValueError(f"{left.path}: the ids of the two files differ: {' and '.join(only)}; {remedy}")
    return ((name, row, right_rows[name]) for name, row in left_rows.items())


def shares_of(sheet: Sheet, row: int, column_of: Mapping[str, str]) -> Row:
    """`mixture/<domain>` cells of a row; `column_of` maps a domain to its column.

    Raises:
        ValueError: a cell is empty or not a number. An empty share is not taken for zero.
    """
    shares = {f"mixture/{domain}": sheet.number(row, column) for domain, column in column_of.items()}
    for domain, column in column_of.items():
        if math.isnan(shares[f"mixture/{domain}"]):
            raise ValueError(f"{sheet.path}: row {row + 1}, column {column!r} is empty; a share of nothing is 0")
    return shares


def losses_of(sheet: Sheet, row: int, column_of: Mapping[str, str]) -> Row:
    """`loss/<eval domain>` cells of a row, NaN where empty; with status failed where no cell holds a loss."""
    losses = {f"loss/{name}": sheet.number(row, column) for name, column in column_of.items()}
    return losses | without_loss(losses.values(), sheet.path)


def without_loss(losses: Any, path: Path) -> Row:
    """Status and reason of a row whose losses are all missing, not finite or not positive; else nothing."""
    if any(math.isfinite(loss) and loss > 0 for loss in losses):
        return {}
    return {"status": "failed", "reason": f"no finite loss in {path.name}"}


def as_observations(
    rows: Sequence[Row], domains: Sequence[str], eval_domains: Sequence[str], path: Path
) -> Observations:
    """The rows as a checked table.

    Raises:
        ValueError: what `Observations.from_rows` refuses, with the file in front.
    """
    try:
        return Observations.from_rows(rows, domains, eval_domains)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def positive(name: str, value: Any) -> float:
    """An option as a number above 0; `1e9` may come as text.

    Raises:
        ValueError: not a finite number above 0.
    """
    try:
        number = as_number(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} is {value!r}: it must be a number above 0, for example 1e9")
    return number


def split_names(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names given as a sequence or as one text with commas."""
    parts = value.split(",") if isinstance(value, str) else (value or ())
    return tuple(part.strip() for part in parts if part.strip())
