"""The observation table as one line per trial, in the order in which trials first appear."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raymix.exchange import USABLE
from raymix.observations import Observations, scale_groups
from raymix.simplex import Array
from raymix.space import SearchSpace
from raymix.target.objective import objective_values


@dataclass(frozen=True)
class Trial:
    """One mixture that was trained, or was meant to be."""

    trial_id: str
    seed: int
    n_params: float
    n_tokens: float
    """At its last usable checkpoint; as proposed if there is none."""
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
        objective_B = objective_values(space, observations.loss_BM[:, columns])
    run_B = observations.run_B
    return [
        _trial(observations, np.flatnonzero(run_B == run), objective_B, rounds or {})
        for run in range(run_B.max(initial=-1) + 1)
    ]


def _trial(table: Observations, index: NDArray[np.int64], objective_B: Array, rounds: Mapping[str, int]) -> Trial:
    status = table.status_B[index]
    usable = index[np.isin(status, USABLE) & np.isfinite(table.loss_BM[index]).any(axis=1)]
    usable = usable[np.argsort(table.scale_B2[usable, 1], kind="stable")]
    ended = index[np.isin(status, ("stopped", "failed"))]
    stopped = bool((status == "stopped").any()) and len(usable) > 0
    first, last, trial_id = int(index[0]), int(usable[-1] if len(usable) else index[-1]), table.trial_ids[int(index[0])]
    return Trial(
        trial_id=trial_id,
        seed=int(table.table["seed"][first].as_py()),
        n_params=float(table.scale_B2[last, 0]),
        n_tokens=float(table.scale_B2[last, 1]),
        mix_K=table.mix_BK[last],
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
    """The lowest objective among the finished trials of the dearest scale (6 N D) that has any."""
    done = [t for t in trials if t.whole and np.isfinite(t.objective)]
    if not done:
        return None
    scale_B2 = np.asarray([(t.n_params, t.n_tokens) for t in done])
    group_B = scale_groups(scale_B2)
    dearest = group_B[np.argmax(scale_B2.prod(axis=1))]
    return min((t for t, group in zip(done, group_B, strict=True) if group == dearest), key=lambda t: t.objective)


def sizes(trials: list[Trial]) -> list[float]:
    """The proxy sizes, smallest first."""
    return sorted({t.n_params for t in trials if np.isfinite(t.n_params)})
