"""Any CSV or Parquet file in the exchange form of raymix/exchange.py: nothing is changed, all is checked."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from raymix.exchange import NUMBERS
from raymix.formats.rows import as_observations
from raymix.formats.sheet import Sheet, listed, nearest, read_sheet
from raymix.observations import Observations

log = logging.getLogger(__name__)

PREFIXES = ("mixture/", "loss/", "metric/", "tokens/", "unique/")
COLUMNS = ("trial_id", "status", "reason", "seed", *NUMBERS)


def read_exchange(src: str | Path) -> Observations:
    """The table, row by row; columns the exchange form does not know are left out with a warning.

    Args:
        src: .csv, .tsv (also .gz) or .parquet.

    Raises:
        ValueError: a column is missing, a cell is not a number, or a row is invalid; names the file and the row.
    """
    sheet = read_sheet(src)
    sheet.need("trial_id", "n_params", "n_tokens")
    domains, eval_domains = _named(sheet, "mixture/"), _named(sheet, "loss/")
    if not domains:
        raise ValueError(f"{sheet.path}: no column begins with 'mixture/'; name the shares mixture/<domain>")
    nameless = [name for name in sheet.names if name in PREFIXES]
    if nameless:
        raise ValueError(f"{sheet.path}: the column {nameless[0]!r} names nothing after the slash")
    unknown = [name or "one without a name" for name in sheet.names
               if name not in COLUMNS and not name.startswith(PREFIXES)]  # fmt: skip
    if unknown:
        log.warning("%s: not part of the exchange form, left out: %s", sheet.path, listed(unknown))
    for prefix in ("tokens/", "unique/"):
        for name in _named(sheet, prefix):
            if name not in domains:
                raise ValueError(f"{sheet.path}: {prefix}{name} has no mixture/{name}; {nearest(name, domains)}")
    numbers = [name for name in sheet.names if name in (*NUMBERS, "seed") or name.startswith(PREFIXES)]
    rows = [
        {name: sheet.text(row, name) for name in ("trial_id", "status", "reason") if name in sheet.names}
        | {name: sheet.number(row, name) for name in numbers}
        for row in range(len(sheet.rows))
    ]
    for number, row in enumerate(rows, start=1):
        if not row["trial_id"]:
            raise ValueError(f"{sheet.path}: row {number} has no trial_id")
        row["seed"] = _whole(row.get("seed"))
    return as_observations(rows, domains, eval_domains, sheet.path, _named(sheet, "metric/"))


def _named(sheet: Sheet, prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in sheet.names if name.startswith(prefix)]


def _whole(seed: object) -> int:
    return int(seed) if isinstance(seed, float) and math.isfinite(seed) else 0
