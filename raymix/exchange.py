"""The exchange form of an observation table: its columns, one row, a file, and what makes a table valid.

The same for import, ask/tell and fitting, as CSV or Parquet:

    trial_id, status, reason, seed, n_params, n_tokens, mixture/<domain>..., loss/<eval domain>...,
    metric/<name>..., tokens/<domain>..., unique/<domain>..., seconds, flops

`n_tokens` is what had been trained on when the losses were measured. Losses are nats per token, or bits per byte where
their names say so. `metric/` are other numbers as they were reported; one that an objective may name has also a column
`loss/<name>`, of what is minimised in its place (raymix/space_parts.py, Metric). `tokens/` are the tokens really drawn,
`unique/` those the proxy could draw from. A failed, stopped or NaN trial is a row with a status and a reason; it is
never dropped and never replaced by a number.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from raymix.simplex import Array

USABLE = ("checkpoint", "done")  # statuses of rows that a law may see
STATUSES = (*USABLE, "stopped", "failed", "start")  # start: of a model that a run goes on from, before its first token
# Mixtures off by more are refused, up to 1% is rounding of the publisher and renormalised; in binary 1.01 - 1 > .01.
SUM_ERROR = 0.01 + 1e-9
NEGATIVE = 1e-6  # a share below 0 by less is rounding of whoever computed it, and 0
MAX_SEED = 2**63
# By name: scores, where more is better (those of OLMES too), and counters of training.
ACC = r"acc(_(norm|raw|uncond|per_(char|token|byte)))?"
NO_LOSS = re.compile(rf"(.*[_/ .-])?({ACC}|accuracy|primary_score|exact_match|em|f1|steps?|epochs?|(n_)?tokens)", re.I)
NUMBERS = ("n_params", "n_tokens", "seconds", "flops")
LABELS = ("trial_id", "status", "reason", "seed")
Labels = tuple[str, str, str, int]


def number_columns(domains: Sequence[str], eval_domains: Sequence[str], metrics: Sequence[str] = ()) -> list[str]:
    """The columns that hold numbers, in order."""
    return [
        *NUMBERS[:2],
        *(f"mixture/{name}" for name in domains),
        *(f"loss/{name}" for name in eval_domains),
        *(f"metric/{name}" for name in metrics),
        *(f"tokens/{name}" for name in domains),
        *(f"unique/{name}" for name in domains),
        *NUMBERS[2:],
    ]


def labels(row: Mapping[str, Any]) -> Labels:
    """The columns `LABELS` of a row."""
    seed = int(row.get("seed") or 0)
    if not -MAX_SEED <= seed < MAX_SEED:
        raise ValueError(f"trial {row['trial_id']}: the seed is {seed:.4g}, it must be a whole number below 2^63")
    return str(row["trial_id"]), str(row.get("status") or "done"), readable(row.get("reason") or ""), seed


def readable(words: object) -> str:
    """Words as text that every file can hold: half characters, as in names of files that are not UTF-8, become '?'."""
    return str(words).encode("utf-8", "replace").decode()


def numbers(row: Mapping[str, Any], names: Sequence[str]) -> Array:
    """The columns `names` of a row; NaN where there is no number."""
    values = list(map(row.get, names))
    try:
        return np.array(values, dtype=np.float64)  # makes None NaN
    except ValueError:  # an empty cell of a CSV file
        return np.array([_number(row, name, value) for name, value in zip(names, values, strict=True)])


def _number(row: Mapping[str, Any], name: str, value: Any) -> float:
    try:
        return float("nan") if value is None or value == "" else float(value)
    except ValueError:
        raise ValueError(f"trial {row['trial_id']}: {name} is {value!r}, it must be a number") from None


def write_table(table: pa.Table, path: Path) -> None:
    """As .parquet, or as .csv, gzipped where the name ends in .gz."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
        return
    with pa.output_stream(str(path), compression="detect") as stream:
        pyarrow.csv.write_csv(table, stream)


def matrix(table: pa.Table, prefix: str, names: Sequence[str]) -> Array:
    """Columns that share a prefix (B, len(names))."""
    columns = [table[prefix + name].to_numpy(zero_copy_only=False) for name in names]
    return np.stack(columns, axis=1).astype(float) if columns else np.zeros((table.num_rows, 0))


def renormalised(table: pa.Table, domains: Sequence[str]) -> pa.Table:
    """With mixtures that sum to 1, and 0 for a share that rounding left below 0.

    Raises:
        ValueError: a share is below -1e-6 or not finite, or a sum is off by more than 1%.
    """
    mix_BK = matrix(table, "mixture/", domains)
    bad = ~np.isfinite(mix_BK) | (mix_BK < -NEGATIVE)
    if bad.any():
        b, k = np.argwhere(bad)[0]
        raise ValueError(f"row {b + 1} (trial {table['trial_id'][b]}): mixture/{domains[k]} is {mix_BK[b, k]}")
    mix_BK = np.maximum(mix_BK, 0.0)
    total_B = mix_BK.sum(axis=1)
    off = np.flatnonzero(np.abs(total_B - 1) > SUM_ERROR)
    if len(off):
        rows = ", ".join(f"{b + 1} ({table['trial_id'][b]}: {total_B[b]:.4g})" for b in off[:5].tolist())
        raise ValueError(f"the shares of {len(off)} row(s) do not sum to 1 within 1%: {rows}{percent_hint(total_B)}")
    for k, name in enumerate(domains):
        at = table.column_names.index(f"mixture/{name}")
        table = table.set_column(at, f"mixture/{name}", pa.array(mix_BK[:, k] / total_B, pa.float64()))
    return table


def percent_hint(totals: Sequence[float] | Array) -> str:
    """What to do where all sums of shares are near 100, else ""."""
    if len(totals) and bool((np.abs(np.asarray(totals) / 100 - 1) <= SUM_ERROR).all()):
        return "; these look like percentages: divide them by 100"
    return ""


def check_rows(table: pa.Table, domains: Sequence[str]) -> None:
    """Every status is known, every usable row has a scale and is there once, and a run ends in one mixture.

    Raises:
        ValueError: with the trial.
    """
    for trial_id, status in zip(table["trial_id"].to_pylist(), table["status"].to_pylist(), strict=True):
        if status not in STATUSES:
            raise ValueError(f"trial {trial_id}: status {status!r} is not one of {', '.join(STATUSES)}")
    usable = table.filter(pc.is_in(table["status"], pa.array(USABLE)))
    keys = list(zip(*(usable[name].to_pylist() for name in ("trial_id", "n_params", "n_tokens")), strict=True))
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"trial {twice[0]!r} has two rows at n_params {twice[1]:g}, n_tokens {twice[2]:g}: "
                         "keep one, or give each run a trial_id of its own")  # fmt: skip
    _check_ends(usable.filter(pc.equal(usable["status"], "done")), domains)
    for name in ("n_params", "n_tokens"):
        values = np.asarray(usable[name].to_numpy(zero_copy_only=False), float)
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0))).tolist()
        if bad:
            raise ValueError(f"trial {usable['trial_id'][bad[0]]}: {name} is {values[bad[0]]}, it must be above 0")


def _check_ends(done: pa.Table, domains: Sequence[str]) -> None:
    """Nothing, if the rows with which runs ended differ in their mixtures where they differ in trial or size.

    Rows of one trial and size count as checkpoints of one model: of two runs under one name most would not be used.
    """
    first: dict[tuple[str, float], int] = {}
    keys = zip(done["trial_id"].to_pylist(), done["n_params"].to_pylist(), strict=True)
    pairs = [(first[key], b) for b, key in enumerate(keys) if first.setdefault(key, b) != b]
    if not pairs:
        return
    mix_BK, (one, other) = matrix(done, "mixture/", domains), np.array(pairs).T
    apart = np.flatnonzero(np.abs(mix_BK[one] - mix_BK[other]).max(axis=1) > SUM_ERROR)
    if len(apart):
        row = int(one[apart[0]])
        raise ValueError(f"trial {str(done['trial_id'][row])!r} ended in two mixtures at n_params "
                         f"{done['n_params'][row].as_py():g}: give each run a trial_id of its own, or the rows on its "
                         "way the status checkpoint")  # fmt: skip
