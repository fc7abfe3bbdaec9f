"""Small spaces with a known truth, for designers: no proxies, no noise unless asked for."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from raymix.design import Designer, Proposal
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import SearchSpace

Truth = Callable[[Array, float, float], Array]


def space(k: int = 4, rungs: int = 1, **changes: Any) -> SearchSpace:
    """k domains, each with an eval domain of its own; rungs 4 times the size and twice the tokens of the last."""
    raw: dict[str, Any] = {
        "name": "known truth",
        "domains": [{"name": f"d{i}", "prior": 1.0 + i} for i in range(k)],
        "eval_domains": [{"name": f"e{i}", "own": f"d{i}"} for i in range(k)],
        "ladder": [{"n_params": 1e6 * 4**i, "n_tokens": 1e8 * 2**i} for i in range(rungs)],
        "target": {"n_params": 1e6 * 4**rungs, "n_tokens": 1e8 * 2**rungs, "max_epochs": None},
        "budget": {"trials": 32, "per_round": 8},
    }
    return SearchSpace.parse(raw | changes)


def truth(mix_K: Array, n_params: float, n_tokens: float) -> Array:
    """Exponential in the shares (M4), with transfer; not of the default law's family."""
    k = len(mix_K)
    pull_KK = -4.0 * np.eye(k) - 0.5 * np.eye(k)[:, ::-1]
    level = (n_params / 1e6) ** -0.2 + (n_tokens / 1e8) ** -0.1
    return np.asarray(1.5 + 0.8 * level * np.exp(pull_KK @ mix_K))


def observed(
    space: SearchSpace, proposals: Sequence[Proposal], noise: float = 0.0, known: Truth = truth
) -> Observations:
    """A table with one row per proposal."""
    rows = []
    for i, proposal in enumerate(proposals):
        z_M = np.random.default_rng(i).normal(size=len(space.eval_names))
        loss_M = known(proposal.mixture_K, *proposal.scale) * np.exp(noise * z_M)
        row: dict[str, Any] = {"trial_id": f"t{i}", "seed": proposal.seed, **proposal.scale._asdict()}
        row |= {f"mixture/{name}": share for name, share in space.shares(proposal.mixture_K).items()}
        row |= {f"loss/{name}": loss for name, loss in zip(space.eval_names, loss_M.tolist(), strict=True)}
        rows.append(row)
    return Observations.from_rows(rows, space.domain_names, space.eval_names)


def play(designer: Designer, n: int, batch: int = 8, seed: int = 0, noise: float = 0.0) -> list[Proposal]:
    """The first n proposals of a search."""
    done: list[Proposal] = []
    while len(done) < n:
        table = observed(designer.space, done, noise)
        done += designer.suggest(table, [], min(batch, n - len(done)), np.random.default_rng([seed, len(done)]))
    return done


def regret(space: SearchSpace, mix_K: Array) -> float:
    """What is lost at the target, in parts of what the prior loses to the best of 20,000 mixtures."""
    target = space.target.scale

    def value(w_K: Array) -> float:
        return float(truth(w_K, *target) @ space.weights_M)

    drawn_BK = np.random.default_rng(0).dirichlet(np.ones(len(mix_K)), size=20_000)
    best = min(value(w_K) for w_K in drawn_BK)
    return (value(mix_K) - best) / (value(space.prior_K()) - best)
