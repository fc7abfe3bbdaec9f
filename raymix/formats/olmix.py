"""Olmix swarms (github.com/allenai/olmix): a folder with ratios.csv and metrics.csv, joined by run id.

    ratios.csv      run or run_id, optional name and index, then one column of shares per domain
    metrics.csv     the same run id, optional name and index, then one column per metric

Rows are never paired by their order: the two files need not have the same one. Metrics keep their unit;
Olmix publishes bits per byte, so give them no law that shares parameters with losses in nats per token.
"""

import logging
from fnmatch import fnmatchcase
from pathlib import Path

from raymix.exchange import NO_LOSS
from raymix.formats.rows import as_observations, joined, losses_of, positive, shares_of
from raymix.observations import Observations
from raymix.sheet import Sheet, existing, listed, read_sheet

log = logging.getLogger(__name__)

RUN_IDS = ("run_id", "run")
NOT_DATA = (*RUN_IDS, "name", "index", "")  # an unnamed first column is the row number pandas wrote


def read_olmix(src: str | Path, *, n_params: float, n_tokens: float, metrics: str | None = None) -> Observations:
    """One row per run: trial_id is the run id, eval domains are the metrics.

    Args:
        src: the folder.
        n_params: parameters of the proxies without embeddings; the files do not carry it.
        n_tokens: tokens every proxy was trained on.
        metrics: a prefix or a pattern (`*_bpb`) of the metric columns that are losses; if left out all numeric ones
            but scores, where more is better (`_acc`, `exact_match`), and counters (`step`, `epoch`, `tokens`).

    Raises:
        ValueError: a file or column is missing, ids in one file only, a bad cell or sum.
    """
    folder = existing(src, folder=True)
    if not folder.is_dir():
        raise ValueError(f"{folder}: this is a file; name the folder with ratios.csv and metrics.csv")
    ratios, measured = read_sheet(folder / "ratios.csv"), read_sheet(folder / "metrics.csv")
    left_id, right_id = _id_columns(ratios, measured)
    domains = {name: name for name in _data_columns(ratios)}
    eval_domains = {name: name for name in _losses(measured, metrics)}
    scale = {"n_params": positive("n_params", n_params), "n_tokens": positive("n_tokens", n_tokens)}
    rows = [
        {"trial_id": name} | scale | shares_of(ratios, row, domains) | losses_of(measured, other, eval_domains)
        for name, row, other in joined(ratios, left_id, measured, right_id)
    ]
    return as_observations(rows, list(domains), list(eval_domains), ratios.path)


def _id_columns(ratios: Sheet, measured: Sheet) -> tuple[str, str]:
    """The id both files have, or else the one each has."""
    for name in RUN_IDS:
        if name in ratios.names and name in measured.names:
            return name, name
    found = [next((name for name in RUN_IDS if name in sheet.names), "") for sheet in (ratios, measured)]
    for sheet, name in zip((ratios, measured), found, strict=True):
        if not name:
            raise ValueError(f"{sheet.path}: the column 'run' or 'run_id' is missing; it has {listed(sheet.names)}")
    return found[0], found[1]


def _data_columns(sheet: Sheet) -> list[str]:
    found = [name for name in sheet.names if name not in NOT_DATA and not name.startswith("Unnamed:")]
    if not found:
        raise ValueError(f"{sheet.path}: no column besides {listed(sheet.names)}")
    return found


def _losses(sheet: Sheet, metrics: str | None) -> list[str]:
    names = _data_columns(sheet)
    if metrics is None:
        return _losses_by_name(sheet, [name for name in names if sheet.is_numeric(name)])
    pattern = metrics if any(sign in metrics for sign in "*?[") else f"{metrics}*"
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise ValueError(f"{sheet.path}: no metric fits {metrics!r}; it has {listed(names)}")
    return found


def _losses_by_name(sheet: Sheet, numeric: list[str]) -> list[str]:
    """The columns that can be losses; says which these are and which are not."""
    found = [name for name in numeric if not NO_LOSS.fullmatch(name)]
    left_out = [name for name in numeric if name not in found]
    choose = "choose with --option metrics=PREFIX, or a pattern such as '*_bpb'"
    if not found:
        seen = listed(numeric) or "none is numeric"
        raise ValueError(f"{sheet.path}: no column looks like a loss ({seen}); {choose}")
    log.warning("%s: taken as losses: %s; %s", sheet.path, listed(found), choose)
    if left_out:
        log.warning("%s: no losses by their names, left out: %s", sheet.path, listed(left_out))
    return found
