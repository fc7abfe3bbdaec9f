"""Data mixing laws (arXiv 2403.16952, github.com/yegcjs/mixinglaws): losses along training, in two forms.

Text, one line per checkpoint and eval file; the run name ends in the shares, the path in the step:

    runs/70M_13-0.25-0.125-0.625/500 <tab> valid/Pile-CC.jsonl <tab> 7.2113

Tidy (CSV or Parquet), one row per run, step and eval domain; without the column `loss` it is a table of queries:

    [experiment,] run_id, model_size or model_label, step or tokens, p_<domain>..., valid_domain[, loss]

Either becomes one row per run, size and tokens, with the eval domains as columns and NaN where a cell was not
measured. (trial_id, n_params, n_tokens) is unique: predictions are joined back on it. Checkpoints before the
last of a run have the status `checkpoint`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from raymix.formats.mixinglaws_text import points_of_text
from raymix.formats.model_sizes import TOKENS_PER_STEP, n_params_of
from raymix.formats.points import Point, check_skip, gather
from raymix.formats.rows import split_names
from raymix.formats.sheet import Sheet, existing, is_table, listed, nearest, read_sheet
from raymix.observations import Observations

log = logging.getLogger(__name__)


def read_mixinglaws(
    src: str | Path,
    *,
    experiment: str | None = None,
    domains: str | Sequence[str] | None = None,
    model: str | float | None = None,
    skip: str | Sequence[str] | None = None,
) -> Observations:
    """One row per run, size and tokens, sorted; losses in nats per token, or none for queries.

    Args:
        src: .csv, .tsv (also .gz) or .parquet is the tidy form, any other file the text form.
        experiment: which experiment of a tidy file with several; shares that are empty in it are dropped.
        domains: text form: the domains in the order of the numbers in a run name.
        model: size of runs that name none: 70M, 160M, 305M, 410M, 1B, or a number of parameters without embeddings.
        skip: run names to leave out, such as truncated ones.

    Raises:
        ValueError: a bad line or cell, two values for one cell, a run whose name or sum is off, an unknown option.
    """
    path = existing(src)
    left_out, names = split_names(skip), split_names(domains)
    idle = "domains" if is_table(path) and names else "experiment" if not is_table(path) and experiment else ""
    if idle:
        log.warning("%s: the option %s has no effect on this form", path, idle)
    if is_table(path):
        return _tidy(read_sheet(path), experiment, model, left_out)
    return gather(points_of_text(path, names, model, left_out), names, path)


def _tidy(sheet: Sheet, experiment: str | None, model: str | float | None, skip: Sequence[str]) -> Observations:
    sheet.need("run_id", "valid_domain")
    if "tokens" not in sheet.names:
        sheet.need("step")
    if model is None and "model_size" not in sheet.names:
        sheet.need("model_label")
    rows = _rows_of(sheet, experiment)
    check_skip({sheet.text(row, "run_id") for row in rows}, skip, sheet.path)
    rows = [row for row in rows if sheet.text(row, "run_id") not in skip]
    shares = [name for name in sheet.names if name.startswith("p_")]
    shares = [name for name in shares if any(sheet.text(row, name) for row in rows)]
    if not shares:
        raise ValueError(f"{sheet.path}: no column p_<domain> holds shares; it has {listed(sheet.names)}")
    points = [_point(sheet, row, shares, model) for row in rows]
    return gather(points, [name.removeprefix("p_") for name in shares], sheet.path)


def _rows_of(sheet: Sheet, experiment: str | None) -> list[int]:
    every = list(range(len(sheet.rows)))
    if experiment is None and "experiment" not in sheet.names:
        return every
    sheet.need("experiment")
    known = sorted({sheet.text(row, "experiment") for row in every})
    if experiment is None and len(known) > 1:
        raise ValueError(
            f"{sheet.path}: the file holds several experiments, "
            f"choose one with --option experiment=NAME: {listed(known)}"
        )
    if experiment is not None and experiment not in known:
        raise ValueError(f"{sheet.path}: there is no experiment {experiment!r}; {nearest(experiment, known)}")
    return [row for row in every if experiment in (None, sheet.text(row, "experiment"))]


def _point(sheet: Sheet, row: int, shares: Sequence[str], model: str | float | None) -> Point:
    size: str | float = sheet.text(row, "model_size") if "model_size" in sheet.names else ""
    size = size or (sheet.text(row, "model_label") if "model_label" in sheet.names else "") or model or ""
    tokens = sheet.number(row, "tokens") if "tokens" in sheet.names else sheet.number(row, "step") * TOKENS_PER_STEP
    run, eval_domain = sheet.text(row, "run_id"), sheet.text(row, "valid_domain")
    if not (run and eval_domain and tokens >= 0):
        raise ValueError(f"{sheet.path}: row {row + 1} has no run_id, valid_domain or tokens")
    try:
        n_params = n_params_of(size)
    except ValueError as error:
        raise ValueError(f"{sheet.path}: row {row + 1}: {error}") from None
    loss = sheet.number(row, "loss") if "loss" in sheet.names else None
    return Point(run, n_params, tokens, tuple(sheet.number(row, name) for name in shares), eval_domain, loss)
