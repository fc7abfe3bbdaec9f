"""Small spaces and a synthetic trainer for tests that need a study but no proxies."""

import zlib
from typing import Any

import numpy as np

from raymix.simplex import Array
from raymix.space import SearchSpace
from raymix.study.ledger import Ledger
from raymix.study.trial import Trial

DOMAINS = ("web", "code", "books")


def space(**changes: Any) -> SearchSpace:
    """Three domains, two rungs, twelve trials in rounds of four."""
    raw: dict[str, Any] = {
        "name": "small",
        "domains": [{"name": n, "available_tokens": a} for n, a in zip(DOMAINS, (6e6, 2e6, 1e6), strict=True)],
        "eval_domains": [{"name": n, "own": n} for n in DOMAINS],
        "ladder": [{"n_params": 1e5, "n_tokens": 5e5}, {"n_params": 4e5, "n_tokens": 1e6}],
        "target": {"n_params": 4e6, "n_tokens": 1e7},
        "budget": {"trials": 12, "per_round": 4},
    }
    return SearchSpace.parse(raw | changes)


def losses(mix_K: Array, n_params: float, n_tokens: float) -> Array:
    """A smooth truth with transfer between domains: a power law in effective data beside one in parameters."""
    exposure = (np.eye(len(mix_K)) + 0.1) @ (mix_K + 0.01) ** 0.7
    return np.asarray(1.5 + 1.5 * (n_params / 1e5) ** -0.2 + 2 * (n_tokens / 5e5 * exposure) ** -0.2)


def rows(trial: Trial, noise: float = 0.01) -> list[dict[str, Any]]:
    """Two checkpoints; the noise belongs to the trial, as it would in a replay."""
    mix_K = np.asarray([trial.mixture[name] for name in DOMAINS])
    factor = np.exp(noise * np.random.default_rng(zlib.crc32(trial.trial_id.encode())).normal(size=len(DOMAINS)))
    return [
        {f"loss/{name}": value for name, value in zip(DOMAINS, losses(mix_K, trial.n_params, n) * factor, strict=True)}
        | {"n_tokens": n, "status": status}
        for n, status in ((trial.n_tokens / 2, "checkpoint"), (trial.n_tokens, "done"))
    ]


def play(ledger: Ledger) -> None:
    """Run the study to the end of its budget."""
    while len(ledger.trials) < ledger.space.budget.trials:
        for trial in ledger.ask(ledger.space.budget.per_round):
            for row in rows(trial):
                ledger.observe(trial.trial_id, row)
