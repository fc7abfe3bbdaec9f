"""Runs of a sweep as CSV (of Weights & Biases, Optuna, Ray Tune), with a mapping file: which column is what.

    trial_id: Name                      # a column
    n_params: 60e6                      # a column, or one number for all runs
    n_tokens: train/total_tokens        # likewise; tokens, never steps
    mixture: {web: config.w_web, code: config.w_code}
    loss: {web: eval/web/ce_loss, exams: eval/exams/ce_loss}
    status: State                       # optional: finished, crashed, failed, killed, ...
    seed: config.seed                   # optional
    normalise: true                     # optional: mixture columns are weights that the trainer divides by their sum

Of W&B the export is that of the table of runs, whose names need not differ: then `trial_id` is the column of ids. Of
Optuna it is `study.trials_dataframe().to_csv(...)`, with columns such as params_web, user_attrs_..., state. Of Ray Tune
`results.get_dataframe()` does not say which trials died; with columns such as config/mixture/web and state

    rows = [{**result.metrics, "state": "ERROR" if result.error else "TERMINATED"} for result in results]
    pandas.json_normalize(rows, sep="/").to_csv("runs.csv")

does. Losses are nats per token. A run that crashed or never logged a loss stays as a row that says so; one that
died or waits before it had a mixture is left out aloud.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raymix.exchange import NO_LOSS, STATUSES
from raymix.formats.rows import Row, as_observations, losses_of, positive, row_of_id, shares_of
from raymix.observations import Observations
from raymix.sheet import Sheet, existing, listed, nearest, read_sheet, read_text
from raymix.yaml12 import parse_yaml

log = logging.getLogger(__name__)

NEEDED = ("trial_id", "n_params", "n_tokens", "mixture", "loss")
OPTIONAL = ("status", "seed", "normalise")
STATES = dict(zip(STATUSES, STATUSES, strict=True)) | {
    "finished": "done",
    "crashed": "failed",
    "killed": "stopped",
    "preempted": "stopped",
    "preempting": "stopped",
    "running": "stopped",  # its losses belong to no end of training
    "pending": "stopped",
    **{"complete": "done", "fail": "failed", "pruned": "stopped", "waiting": "stopped"},  # Optuna's
    **{"terminated": "done", "error": "failed"},  # Ray Tune's
}


def read_wandb(src: str | Path, *, mapping: str | Path) -> Observations:
    """One row per run of the export, in its order.

    Args:
        src: the CSV.
        mapping: the YAML file shown above.

    Raises:
        ValueError: a key of the mapping or a column is missing or unknown, a run stands twice, a bad cell or sum.
    """
    sheet, columns = read_sheet(src, once=False), _read_mapping(existing(mapping))
    if any(name.endswith("__MIN") for name in sheet.names):
        raise ValueError(f"{sheet.path}: this is the export of a chart, with a column for each run: export the table "
                         "of runs")  # fmt: skip
    mixture, loss, seed = columns["mixture"], columns["loss"], columns.get("seed")
    named = [columns[key] for key in ("n_params", "n_tokens", "status", "seed") if isinstance(columns.get(key), str)]
    sheet.need(*mixture.values(), *loss.values(), *named)
    scores = [name for name, column in loss.items() if NO_LOSS.fullmatch(column) and not NO_LOSS.fullmatch(name)]
    if scores:
        log.warning("%s: no losses by the names of their columns, and losses are minimised: %s; of a score where more "
                    "is better, call loss/%s metric/%s in the table, and say raymix fit --metric %s=high", sheet.path,
                    listed([loss[name] for name in scores]), *scores[:1] * 3)  # fmt: skip
    if "status" not in columns and "training_iteration" in sheet.names:
        log.warning("%s: Ray Tune's dataframe does not say which trials died, and they count as done: let a column say "
                    "ERROR where result.error is set, else TERMINATED, and name it as status", sheet.path)  # fmt: skip
    rows = [
        {"trial_id": name}
        | {key: _number_or_column(sheet, row, key, columns[key]) for key in ("n_params", "n_tokens")}
        | _shares(sheet, row, mixture, columns.get("normalise", False))
        | losses_of(sheet, row, loss)
        | _status(sheet, row, columns.get("status"))
        | {"seed": sheet.whole(row, seed) if isinstance(seed, str) else seed}
        for name, row in _with_mixture(sheet, _rows(sheet, columns["trial_id"]), columns).items()
    ]
    try:
        return as_observations(rows, list(mixture), list(loss), sheet.path)
    except ValueError as error:
        weights = "; are they weights that the trainer divides by their sum? Say normalise: true in the mapping file"
        raise ValueError(f"{error}{weights if 'do not sum to 1' in str(error) else ''}") from None


def _with_mixture(sheet: Sheet, rows: Mapping[str, int], columns: Mapping[str, Any]) -> dict[str, int]:
    """The runs but those that died, or wait, before they had a mixture: said, for no row can hold them."""
    names = [name for name, row in rows.items() if _status(sheet, row, columns.get("status"))]
    without = [
        name for name in names
        if any(math.isnan(sheet.number(rows[name], column)) for column in columns["mixture"].values())
    ]  # fmt: skip
    if without:
        log.warning("%s: runs that did not end and have no mixture are left out: %s", sheet.path, listed(without, 5))
    return {name: row for name, row in rows.items() if name not in without}


def _shares(sheet: Sheet, row: int, mixture: Mapping[str, str], normalise: bool) -> Row:
    """Shares as they stand, or weights divided by their sum."""
    given = shares_of(sheet, row, mixture)
    if not normalise:
        return given
    least, total = min(given.values()), sum(given.values())
    if not (least >= 0 and 0 < total < math.inf):
        raise ValueError(f"{sheet.path}: row {row + 1}: the weights of its mixture must be at least 0, and not all 0")
    return {name: weight / total for name, weight in given.items()}


def _rows(sheet: Sheet, column: str) -> dict[str, int]:
    try:
        return row_of_id(sheet, column)
    except ValueError as error:
        remedy = ", or let trial_id be the column of run ids" if "stands twice" in str(error) else ""
        raise ValueError(f"{error}{remedy}") from None


def _read_mapping(path: Path) -> dict[str, Any]:
    raw = parse_yaml(read_text(path), str(path))
    if not isinstance(raw, Mapping):
        raise ValueError(f"{path}: a mapping file says trial_id: column, n_params: ..., this one is no mapping")
    for key in raw:
        if key not in (*NEEDED, *OPTIONAL):
            raise ValueError(f"{path}: unknown key {key!r}; {nearest(str(key), (*NEEDED, *OPTIONAL))}")
    for key in NEEDED:
        if key not in raw:
            raise ValueError(f"{path}: the key {key!r} is missing")
    return {key: _checked(path, key, value) for key, value in raw.items()}


def _checked(path: Path, key: str, value: Any) -> Any:
    if key in ("mixture", "loss"):
        if not isinstance(value, Mapping) or not value or not all(isinstance(name, str) for name in value.values()):
            raise ValueError(f"{path}: {key} is a mapping of names to columns, not {value!r}")
        return {str(name): column for name, column in value.items()}
    if key == "normalise":
        if not isinstance(value, bool):
            raise ValueError(f"{path}: normalise is true or false, not {value!r}")
        return value
    is_number = isinstance(value, int if key == "seed" else int | float) and not isinstance(value, bool)
    if not isinstance(value, str) and not (key in ("n_params", "n_tokens", "seed") and is_number):
        raise ValueError(f"{path}: {key} is the name of a column, not {value!r}")
    return value


def _number_or_column(sheet: Sheet, row: int, key: str, value: str | float) -> float:
    return sheet.number(row, value) if isinstance(value, str) else positive(key, value)


def _status(sheet: Sheet, row: int, column: str | None) -> Row:
    """Status and reason; nothing for a finished run, whose losses decide."""
    if column is None:
        return {}
    state = sheet.text(row, column)
    if state.lower() not in STATES:
        raise ValueError(f"{sheet.path}: row {row + 1}: the state {state!r} is none of {', '.join(STATES)}")
    status = STATES[state.lower()]
    if status == "done":
        return {}
    return {"status": status} if status == "checkpoint" else {"status": status, "reason": f"state of the run: {state}"}
