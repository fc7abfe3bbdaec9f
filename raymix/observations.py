"""The observation table: one row per trial and checkpoint, its columns as matrices (see `exchange` for the columns).

Letters: B rows, K training domains, M eval domains.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raymix.exchange import (
    LABELS,
    NUMBERS,
    USABLE,
    Labels,
    check_rows,
    labels,
    matrix,
    number_columns,
    numbers,
    renormalised,
    write_table,
)
from raymix.sheet import Sheet, listed, nearest, read_sheet
from raymix.simplex import Array
from raymix.space_parts import Metric

log = logging.getLogger(__name__)

PREFIXES = ("mixture/", "loss/", "metric/", "tokens/", "unique/")
SAME_SCALE = 0.1  # in logs of n_params and n_tokens: realised scales differ a little from nominal ones
REUSED = "from/"  # trial ids of evidence from elsewhere begin with it


@dataclass(frozen=True)
class Observations:
    """A checked table in the exchange form, with its columns as matrices."""

    table: pa.Table
    domains: tuple[str, ...]
    eval_domains: tuple[str, ...]

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Mapping[str, Any]],
        domains: Sequence[str],
        eval_domains: Sequence[str],
        metrics: Sequence[str] = (),
    ) -> "Observations":
        """From dictionaries keyed by column names; missing numbers become NaN.

        Raises:
            ValueError: a mixture is negative, not finite, or off 1 by more than 1%; a duplicate row.
        """
        rows = list(rows)
        names = number_columns(domains, eval_domains, metrics)
        number_BC = np.asarray([numbers(row, names) for row in rows], dtype=np.float64).reshape(len(rows), len(names))
        return cls.from_numbers([labels(row) for row in rows], number_BC, domains, eval_domains, metrics)

    @classmethod
    def from_numbers(
        cls,
        labels_B: Sequence[Labels],
        number_BC: Array,
        domains: Sequence[str],
        eval_domains: Sequence[str],
        metrics: Sequence[str] = (),
    ) -> "Observations":
        """From rows already in order: their labels, and their numbers in the order of `number_columns`.

        Raises:
            ValueError: as `from_rows`.
        """
        columns: dict[str, Any] = {
            name: pa.array([row[i] for row in labels_B], pa.int64() if name == "seed" else pa.string())
            for i, name in enumerate(LABELS)
        }
        for name, value_B in zip(number_columns(domains, eval_domains, metrics), number_BC.T, strict=True):
            columns[name] = pa.array(np.ascontiguousarray(value_B), pa.float64())
        return cls._checked(pa.table(columns), tuple(domains), tuple(eval_domains))

    @classmethod
    def read(cls, src: str | Path) -> "Observations":
        """A table in the exchange form, row by row; columns that the form does not know are left out with a warning.

        Args:
            src: .csv, .tsv (also .gz) or .parquet.

        Raises:
            ValueError: a column is missing, a cell is not a number, or a row is invalid; names the file and the row.
        """
        sheet = read_sheet(src)
        sheet.need("trial_id", "n_params", "n_tokens")
        _check_header(sheet)
        numbers = [name for name in sheet.names if name in NUMBERS or name.startswith(PREFIXES)]
        rows = []
        for i in range(len(sheet.rows)):
            row: dict[str, Any] = {name: sheet.text(i, name) for name in LABELS[:3] if name in sheet.names}
            if not row["trial_id"]:
                raise ValueError(f"{sheet.path}: row {i + 1} has no trial_id")
            row["seed"] = sheet.whole(i, "seed") if "seed" in sheet.names else 0
            rows.append(row | {name: sheet.number(i, name) for name in numbers})
        try:
            found = cls.from_rows(rows, *(_named(sheet, prefix) for prefix in PREFIXES[:3]))
        except ValueError as error:
            raise ValueError(f"{sheet.path}: {error}") from None
        for b, i in np.argwhere(~found.good_BM & ~np.isnan(found.loss_BM))[:1]:
            log.warning("%s: losses that are not finite numbers above 0 count as not measured, the first in row %d "
                        "(trial %s): loss/%s is %g", sheet.path, b + 1, found.trial_ids[b], found.eval_domains[i],
                        found.loss_BM[b, i])  # fmt: skip
        return found

    @classmethod
    def _checked(cls, table: pa.Table, domains: tuple[str, ...], eval_domains: tuple[str, ...]) -> "Observations":
        if table.num_rows:
            table = renormalised(table, domains)
            check_rows(table, domains)
        return cls(table, domains, eval_domains)

    def write(self, path: str | Path) -> None:
        """By the ending of the path, see `exchange.write_table`."""
        write_table(self.table, Path(path))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "Observations":
        """The rows of a boolean mask or an index array."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Observations(self.table.take(pa.array(index, pa.int64())), self.domains, self.eval_domains)

    def minimising(self, metrics: Iterable[Metric]) -> "Observations":
        """With a column `loss/<name>` for each of these metrics that has none: what is minimised in its place.

        Raises:
            ValueError: a value is above the best there is.
        """
        table, names = self.table, self.eval_domains
        for metric in metrics:
            if metric.name in self.metrics and metric.name not in names:
                loss_B = [metric.loss(value) for value in self.column(f"metric/{metric.name}")]  # NaN stays NaN
                table = table.append_column(f"loss/{metric.name}", pa.array(loss_B, pa.float64()))
                names = (*names, metric.name)
        return Observations(table, self.domains, names)

    def usable(self) -> "Observations":
        """Rows with at least one finite positive loss, of checkpoints or finished trials: what a law may see.

        A loss that is not positive and finite is NaN in them.
        """
        good_BM, table = self.good_BM, self.table
        kept_B = good_BM.any(axis=1) & np.isin(self.status_B, USABLE)
        for m in np.flatnonzero((~good_BM & ~np.isnan(self.loss_BM)).any(axis=0)):
            name = f"loss/{self.eval_domains[m]}"
            loss_B = np.where(good_BM[:, m], self.loss_BM[:, m], np.nan)
            table = table.set_column(table.column_names.index(name), name, pa.array(loss_B, pa.float64()))
        return Observations(table, self.domains, self.eval_domains).select(kept_B)

    def check_unique(self) -> None:
        """Nothing, if there are tokens in every domain that a run drew from, as far as the table says.

        Raises:
            ValueError: there is less than one; names the trial.
        """
        for b, k in np.argwhere((self.unique_BK < 1) & (self.mix_BK > 0))[:1]:
            name, said, share = self.domains[k], self.unique_BK[b, k], self.mix_BK[b, k]
            raise ValueError(f"trial {self.trial_ids[b]}: unique/{name} is {said:g}, and {share:.3g} of the run was "
                             "drawn from it: it must be at least 1, or empty where nobody knows")  # fmt: skip

    def last(self) -> "Observations":
        """The row with the most tokens of every trial, in order of first appearance."""
        rows = np.arange(len(self))
        order = np.lexsort((-rows, self.scale_B2[:, 1], self.run_B))  # of two with as many tokens the first
        run_B = self.run_B[order]
        index = order[run_B != np.append(run_B[1:], -1)]
        return self.select(np.asarray(index, dtype=np.int64))

    @cached_property
    def mix_BK(self) -> Array:
        """Shares, every row summing to 1."""
        return matrix(self.table, "mixture/", self.domains)

    @cached_property
    def loss_BM(self) -> Array:
        """Nats per token; NaN where not measured."""
        return matrix(self.table, "loss/", self.eval_domains)

    @property
    def good_BM(self) -> NDArray[np.bool_]:
        """Which losses are positive and finite."""
        return np.asarray(np.isfinite(self.loss_BM) & (self.loss_BM > 0))

    @cached_property
    def tokens_BK(self) -> Array:
        """Tokens really drawn per domain; NaN where not reported."""
        return matrix(self.table, "tokens/", self.domains)

    @cached_property
    def unique_BK(self) -> Array:
        """Unique tokens the proxy could draw from per domain; NaN where not reported."""
        return matrix(self.table, "unique/", self.domains)

    @cached_property
    def scale_B2(self) -> Array:
        """n_params and n_tokens."""
        return np.stack([self.column("n_params"), self.column("n_tokens")], axis=1)

    @cached_property
    def run_B(self) -> NDArray[np.int64]:
        """Which trial a row belongs to: 0, 1, ... in order of first appearance."""
        ids: dict[str, int] = {}
        return np.asarray([ids.setdefault(t, len(ids)) for t in self.trial_ids], dtype=np.int64)

    @cached_property
    def model_B(self) -> NDArray[np.int64]:
        """Which trained model a row is a checkpoint of, 0, 1, ...: a table may give runs of all sizes one trial_id."""
        models: dict[tuple[int, float], int] = {}
        keys = zip(self.run_B.tolist(), self.column("n_params").tolist(), strict=True)
        return np.asarray([models.setdefault(key, len(models)) for key in keys], dtype=np.int64)

    @cached_property
    def scale_group_B(self) -> NDArray[np.int64]:
        """Which scale a row was trained at: 0, 1, ... by size, then tokens; gaps of less than 10% are rounding."""
        return scale_groups(self.scale_B2)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the columns `metric/<name>`."""
        return tuple(n.removeprefix("metric/") for n in self.table.column_names if n.startswith("metric/"))

    @property
    def trial_ids(self) -> list[str]:
        """Per row."""
        return [str(value) for value in self.table["trial_id"].to_pylist()]

    @property
    def status_B(self) -> NDArray[np.str_]:
        """Per row, one of `exchange.STATUSES`."""
        return np.asarray(self.table["status"].to_pylist(), dtype=np.str_)

    def column(self, name: str) -> Array:
        """A numeric column as float64."""
        return np.asarray(self.table[name].to_numpy(zero_copy_only=False), float)


def _check_header(sheet: Sheet) -> None:
    """Nothing, if its columns are those of the exchange form; what else it has is said.

    Raises:
        ValueError: no domain, a column that names nothing, or tokens of what is no domain.
    """
    domains = _named(sheet, "mixture/")
    if not domains:
        raise ValueError(f"{sheet.path}: no column begins with 'mixture/'; name the shares mixture/<domain>")
    if nameless := [name for name in sheet.names if name in PREFIXES]:
        raise ValueError(f"{sheet.path}: the column {nameless[0]!r} names nothing after the slash")
    say_left_out(sheet)
    for prefix in PREFIXES[3:]:
        for name in _named(sheet, prefix):
            if name not in domains:
                raise ValueError(f"{sheet.path}: {prefix}{name} has no mixture/{name}; {nearest(name, domains)}")


def say_left_out(sheet: Sheet, also: Collection[str] = ()) -> None:
    """A warning of columns that neither the exchange form knows nor `also`: one may be a slip, as n_token."""
    unknown = [name or "one without a name" for name in sheet.names
               if name not in (*LABELS, *NUMBERS, *also) and not name.startswith(PREFIXES)]  # fmt: skip
    if unknown:
        log.warning("%s: not part of the exchange form, left out: %s", sheet.path, listed(unknown))


def _named(sheet: Sheet, prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in sheet.names if name.startswith(prefix)]


def scale_groups(scale_B2: Array) -> NDArray[np.int64]:
    """Which of these scales are one: 0, 1, ... by size, then tokens (B); gaps of less than 10% are rounding."""
    cell_B2 = np.zeros(scale_B2.shape, dtype=np.int64)
    for cell_B, log_B in zip(cell_B2.T, np.log(scale_B2).T, strict=True):
        order = np.argsort(log_B)
        cell_B[order] = np.cumsum(np.diff(log_B[order], prepend=log_B[order[:1]]) > SAME_SCALE)
    return np.unique(cell_B2, axis=0, return_inverse=True)[1].ravel()
