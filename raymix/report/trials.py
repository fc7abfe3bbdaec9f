"""The observation table as one line per trial, in the order in which trials first appear."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raymix.exchange import STATUSES
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import SearchSpace
from raymix.target.optimum import reduce_losses


@dataclass(frozen=True)
class Trial:
    """One mixture that was trained, or was meant to be."""

    trial_id: str
    seed: int
    n_params: float
    mix_K: Array
    rows: NDArray[np.int64]
    """Its usable rows in the table, by tokens."""
    objective: float
    """At its last usable checkpoint, nats per token; NaN if there is none."""
    failed: bool
    stopped: bool
    """Ended before its last token by a scheduler or for being clearly poor; its checkpoints count."""
    reason: str
    round: int | None
    """Which batch of proposals it came from, where the state says so."""

    @property
    def whole(self) -> bool:
        """Whether its objective compares with that of others of its size."""
        return not self.failed and not self.stopped


def list_trials(space: SearchSpace, observations: Observations, rounds: Mapping[str, int] | None = None) -> list[Trial]:
    """Every trial of the table, failed ones too."""
    objective_B = np.full(len(observations), np.nan)
    if set(space.eval_names) <= set(observations.eval_domains) and len(observations):
        columns = [observations.eval_domains.index(name) for name in space.eval_names]
        objective_B = reduce_losses(observations.loss_BM[:, columns], space.weights_M, space.objective.reduce)
    run_B = observations.run_B
    return [
        _trial(observations, np.flatnonzero(run_B == run), objective_B, rounds or {})
        for run in range(run_B.max(initial=-1) + 1)
    ]


def _trial(table: Observations, index: NDArray[np.int64], objective_B: Array, rounds: Mapping[str, int]) -> Trial:
    status = table.status_B[index]
    usable = index[np.isin(status, STATUSES[:2]) & np.isfinite(table.loss_BM[index]).any(axis=1)]
    usable = usable[np.argsort(table.scale_B2[usable, 1], kind="stable")]
    ended = index[np.isin(status, STATUSES[2:4])]
    stopped = bool((status == "stopped").any()) and len(usable) > 0
    first, trial_id = int(index[0]), table.trial_ids[int(index[0])]
    return Trial(
        trial_id=trial_id,
        seed=int(table.table["seed"][first].as_py()),
        n_params=float(table.scale_B2[first, 0]),
        mix_K=table.mix_BK[first],
        rows=usable,
        objective=float(objective_B[usable[-1]]) if len(usable) else float("nan"),
        failed=not stopped and (len(ended) > 0 or len(usable) == 0),
        stopped=stopped,
        reason=_reason(table, ended),
        round=rounds.get(trial_id),
    )


def _reason(table: Observations, ended: NDArray[np.int64]) -> str:
    reasons = [str(table.table["reason"][int(row)].as_py() or table.status_B[row]) for row in ended]
    return reasons[-1] if reasons else "no losses were measured"


def best_trial(trials: list[Trial]) -> Trial | None:
    """The lowest objective among the finished trials of the largest size that has any."""
    done = [t for t in trials if t.whole and np.isfinite(t.objective)]
    largest = max((t.n_params for t in done), default=0.0)
    return min((t for t in done if t.n_params == largest), key=lambda t: t.objective, default=None)


def sizes(trials: list[Trial]) -> list[float]:
    """The proxy sizes, smallest first."""
    return sorted({t.n_params for t in trials if np.isfinite(t.n_params)})


def held_out(data: Mapping[str, Any], cut_short: Collection[str] = ()) -> dict[str, list[Any]]:
    """Held-out predictions with one entry per trial and size (the last listed), finite ones only.

    Those of trials that failed or were stopped are left out: their last checkpoint is an early one, and easy to rank.
    """
    names = ("trial_id", "n_params", "observed", "predicted", "low", "high")
    columns = [list(data.get(name) or [float("nan")] * len(data["observed"])) for name in names]
    entries = {(row[0], row[1]): row for row in zip(*columns, strict=True)}
    done = [r for r in entries.values() if str(r[0]) not in cut_short]
    kept = [r for r in done if all(v is not None and np.isfinite(v) for v in r[1:4])]
    return {name: [row[i] for row in kept] for i, name in enumerate(names)}
