"""What is recorded of a row that a trial reported: plain JSON values, with the trial's own scale, seed and mixture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from raymix.space import SearchSpace
from raymix.study.trial import Trial

ON_THE_WAY = ("checkpoint", "start")  # of a trial that has not ended: metrics may be missing
PREFIXES = ("loss/", "metric/", "tokens/", "unique/", "loss_se/", "bpb/")
NAMES = ("n_params", "n_tokens", "seconds", "flops", "status", "reason")
LONGEST_REASON = 2000


def checked_losses(space: SearchSpace, trial_id: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns `loss/<name>` of a reported row, all that it must have.

    Raises:
        ValueError: a column of the objective is missing, or a metric is above its best.
    """
    losses = space.losses_of(row)
    if row.get("status") in ON_THE_WAY:
        late = {f"loss/{name}" for name in space.metric_names}
        losses = {column: value for column, value in losses.items() if value is not None or column not in late}
    missing = [column.removeprefix("loss/") for column, value in losses.items() if value is None]
    if missing:
        kind = "metric" if missing[0] in space.metric_names else "loss"
        raise ValueError(f"trial {trial_id}: {kind}/{missing[0]} was not reported")
    return losses


def is_loss(value: Any) -> bool:
    """Whether it is a positive finite number."""
    return isinstance(value, int | float | np.number) and math.isfinite(value) and bool(value > 0)


def reported(trial: Trial, row: Mapping[str, Any], losses: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a row with losses; columns that the exchange form does not know are left out."""
    known = {key: _plain(value) for key, value in {**row, **losses}.items() if key.startswith(PREFIXES) or key in NAMES}
    body = known | {"trial_id": trial.trial_id, "seed": trial.seed, "status": str(row.get("status") or "done")}
    return {"n_params": trial.n_params, "n_tokens": trial.n_tokens} | body | _mixture(trial)


def without_result(trial: Trial, status: str, reason: str) -> dict[str, Any]:
    """The record of a trial that ended without a result."""
    body = {"trial_id": trial.trial_id, "seed": trial.seed, "status": status, "reason": reason[:LONGEST_REASON]}
    return body | {"n_params": trial.n_params, "n_tokens": trial.n_tokens} | _mixture(trial)


def _mixture(trial: Trial) -> dict[str, float]:
    return {f"mixture/{name}": share for name, share in trial.mixture.items()}


def _plain(value: Any) -> Any:
    """JSON values only; a number that is not finite has no place in a record and becomes null."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
