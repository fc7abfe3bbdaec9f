"""What a study knows: trials proposed, rows observed, in order. Proposes the next from exactly that.

The ledger is the one place where proposals are made and results recorded, for Ray and for ask/tell alike. Given a
store, every event is durable before this object, and so the designer, knows of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from raymix.design import Designer, LawGuided, Proposal
from raymix.observations import Observations
from raymix.space import Scale, SearchSpace
from raymix.store import Store

ENDED = ("done", "stopped", "failed")


@dataclass(frozen=True)
class Trial:
    """A proposal with its identity: the same mixture, scale, seed and space always have the same id."""

    trial_id: str
    mixture: dict[str, float]
    n_params: float
    n_tokens: float
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Plain values, as recorded."""
        return dict(vars(self))


class Ledger:
    """Proposals and rows of one study; with a store, durable."""

    def __init__(
        self, space: SearchSpace, seed: int = 0, store: Store | None = None, designer: Designer | None = None
    ) -> None:
        self.space = space
        self.seed = seed
        self.designer: Designer = designer or LawGuided(space)
        self.trials: dict[str, Trial] = {}
        self._rows: dict[tuple[str, float], dict[str, Any]] = {}
        self._ended: dict[str, str] = {}
        self._store = store
        for kind, body in store.records() if store else []:
            self._apply(kind, body)

    def ask(self, n: int) -> list[Trial]:
        """n new trials, recorded as proposed. Which ones depends only on the seed and on what is recorded."""
        rng = np.random.default_rng([self.seed, len(self.trials)])
        pending = [self._proposal(trial) for trial in self.pending()]
        proposals = self.designer.suggest(self.table(), pending, n, rng)
        return [self._propose(proposal) for proposal in proposals]

    def observe(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """Record one row of a trial: `loss/...`, n_tokens and whatever else the exchange form has.

        A loss that is not a positive finite number makes the row a failure, with that as its reason.

        Raises:
            ValueError: the trial is unknown, or a column of the objective is missing.
        """
        trial = self._known(trial_id)
        losses = {f"loss/{name}": row.get(f"loss/{name}") for name in self.space.eval_names}
        missing = [name for name, value in losses.items() if value is None]
        if missing:
            raise ValueError(f"trial {trial_id}: {missing[0]} was not reported")
        bad = [name for name, value in losses.items() if not _is_loss(value)]
        if bad:
            return self.fail(trial_id, f"{bad[0]} is {losses[bad[0]]}")
        body = {key: _plain(value) for key, value in row.items() if _belongs(key)} | {
            "trial_id": trial_id,
            "seed": trial.seed,
            "status": str(row.get("status") or "done"),
        }
        body.setdefault("n_params", trial.n_params)
        body.setdefault("n_tokens", trial.n_tokens)
        body |= {f"mixture/{name}": share for name, share in trial.mixture.items()}
        self._record("row", body)

    def fail(self, trial_id: str, reason: str, status: str = "failed") -> None:
        """Record that a trial ended without a result, and why. Its checkpoints stay."""
        trial = self._known(trial_id)
        body = {"trial_id": trial_id, "seed": trial.seed, "status": status, "reason": reason[:2000]}
        body |= {"n_params": trial.n_params, "n_tokens": trial.n_tokens}
        body |= {f"mixture/{name}": share for name, share in trial.mixture.items()}
        self._record("row", body)

    def pending(self) -> list[Trial]:
        """Trials proposed that have not ended, in order."""
        return [trial for trial in self.trials.values() if trial.trial_id not in self._ended]

    def tokens_seen(self, trial_id: str) -> float:
        """Tokens at the last row of a trial; 0 before the first."""
        return max((n for trial, n in self._rows if trial == trial_id and n < math.inf), default=0.0)

    def count(self, status: str) -> int:
        """How many trials ended with this status."""
        return sum(ended == status for ended in self._ended.values())

    def table(self) -> Observations:
        """All rows so far, in the order of their trials and tokens."""
        order = {trial_id: i for i, trial_id in enumerate(self.trials)}
        keys = sorted(self._rows, key=lambda key: (order[key[0]], key[1]))
        return Observations.from_rows([self._rows[key] for key in keys], self.space.domain_names, self.space.eval_names)

    def _known(self, trial_id: str) -> Trial:
        if trial_id not in self.trials:
            raise ValueError(f"trial {trial_id!r} was never proposed by this study")
        return self.trials[trial_id]

    def _propose(self, proposal: Proposal) -> Trial:
        seed = proposal.seed
        while True:  # the same mixture again is a replicate: it gets the next seed
            shares = self.space.shares(proposal.mixture_K)
            trial_id = trial_identity(shares, proposal.scale, seed, self.space)
            trial = Trial(trial_id, shares, float(proposal.scale.n_params), float(proposal.scale.n_tokens), seed)
            if trial.trial_id not in self.trials:
                break
            seed += 1
        self._record("proposed", trial.to_json())
        return trial

    def _proposal(self, trial: Trial) -> Proposal:
        return Proposal(self.space.mixture(trial.mixture), Scale(trial.n_params, trial.n_tokens), trial.seed)

    def _record(self, kind: str, body: dict[str, Any]) -> None:
        if self._store is not None:
            self._store.append(kind, body)
        self._apply(kind, body)

    def _apply(self, kind: str, body: dict[str, Any]) -> None:
        if kind == "proposed":
            self.trials[body["trial_id"]] = Trial(**body)
            return
        status = body["status"]
        # A failure has a key of its own: it must not hide the checkpoint measured at the same tokens.
        self._rows[body["trial_id"], math.inf if status in ENDED[1:] else body["n_tokens"]] = body
        if status in ENDED:
            self._ended[body["trial_id"]] = status


def trial_identity(mixture: Mapping[str, float], scale: Scale, seed: int, space: SearchSpace) -> str:
    """A hash of what determines a trial's result: mixture, scale, seed, and the space's data and recipe."""
    shares = {name: round(share, 12) for name, share in mixture.items()}
    key = [shares, *map(float, scale), seed, space.hash()]
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def _is_loss(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value) and bool(value > 0)


def _belongs(key: str) -> bool:
    prefixes = ("loss/", "tokens/", "unique/", "loss_se/", "bpb/")
    return key.startswith(prefixes) or key in ("n_params", "n_tokens", "seconds", "flops", "status", "reason")


def _plain(value: Any) -> Any:
    """JSON values only; a number that is not finite has no place in a record and becomes null."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
