"""Scores of searchers from stored runs: means with standard errors, who is ahead, trials to a goal.

A stored run is one JSON object: world, method, rung, seed, regret by budget. A method that was run at several single
rungs counts with the better of them, chosen per budget after the fact, which favours it. `law, one scale` is the
default held to one rung in the same way.

Differences are paired by seed: two methods meet the same noise.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.search_methods import DEFAULT, METHODS, PEERS

SHOWN = (32, 64, 128)
GOAL = 25.0  # % of regret
ONE_SCALE = f"{DEFAULT}, one scale"
FIXED = {method.name for method in METHODS if method.fixed}  # mixtures without a search have one seed for all

SHORT = [method.name for method in METHODS if method.most < math.inf]

Regrets = dict[int, dict[int, float]]  # budget -> seed -> regret


@dataclass(frozen=True)
class Cell:
    """Mean regret (%), its standard error, number of seeds."""

    mean: float
    error: float
    seeds: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Cell":
        """From one value per seed; the error of a single seed is unknown."""
        found = np.asarray(list(values), float)
        error = float(found.std(ddof=1) / math.sqrt(len(found))) if len(found) > 1 else math.nan
        return cls(float(found.mean()), error, len(found))

    def words(self) -> str:
        """`12.3 ± 1.1`."""
        digits = 1 if abs(self.mean) < 99.95 else 0
        return f"{self.mean:.{digits}f}" + ("" if math.isnan(self.error) else f" ± {self.error:.{digits}f}")


def by_method(records: Iterable[Mapping[str, Any]]) -> dict[str, Regrets]:
    """Regrets of every method in one world; of several rungs the better at each budget."""
    runs: dict[tuple[str, Any], Regrets] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        name = ONE_SCALE if record["method"] == DEFAULT and record["rung"] is not None else record["method"]
        for budget, regret in record["regret"].items():
            runs[name, record["rung"]][int(budget)][record["seed"]] = float(regret)
    found: dict[str, Regrets] = defaultdict(dict)
    for (name, _), regrets in runs.items():
        for budget, by_seed in regrets.items():
            old = found[name].get(budget)
            if old is None or np.mean(list(by_seed.values())) < np.mean(list(old.values())):
                found[name][budget] = by_seed
    return dict(found)


def cell(regrets: Regrets, budget: int) -> Cell | None:
    """The score at a budget; None where the method was not run that far."""
    return Cell.of(regrets[budget].values()) if regrets.get(budget) else None


def trials_to_goal(regrets: Regrets, goal: float = GOAL) -> int | None:
    """The least budget from which on the mean regret stays at or below the goal; None where it never does."""
    found = None
    for budget in sorted(regrets, reverse=True):
        if np.mean(list(regrets[budget].values())) > goal:
            break
        found = budget
    return found


@dataclass(frozen=True)
class Duel:
    """The default beside the best other method at one budget."""

    budget: int
    other: str
    own: Cell
    best: Cell
    behind: Cell
    """Regret of the default less that of the other, over the seeds both were run with."""

    @property
    def beaten(self) -> bool:
        """Whether the other is better by more than the standard error of the difference."""
        return self.behind.mean > (0.0 if math.isnan(self.behind.error) else self.behind.error)

    def words(self) -> str:
        """One sentence."""
        if self.beaten:
            outcome = f"beaten by {self.behind.words()}"
        else:
            outcome = "ahead" if self.own.mean < self.best.mean else "within the standard error"
        outcome += ", one seed" if self.behind.seeds == 1 else ""
        ratio = f", ratio {self.own.mean / self.best.mean:.2f}" if self.best.mean > 0 else ""
        return f"{self.budget}: {self.own.words()}, best other {self.other} {self.best.words()} ({outcome}{ratio})"


def duels(methods: Mapping[str, Regrets], budgets: Iterable[int] = SHOWN) -> list[Duel]:
    """The default against the best other at each budget (its own restriction to one scale is no other method)."""
    found = []
    for budget in budgets:
        own = methods.get(DEFAULT, {}).get(budget)
        others = {m: r[budget] for m, r in methods.items() if m not in (DEFAULT, ONE_SCALE) and r.get(budget)}
        if not own or not others:
            continue
        best = min(others, key=lambda m: float(np.mean(list(others[m].values()))))
        shared = [own[seed] - others[best][seed] for seed in own if seed in others[best]]
        if best in FIXED:
            shared = [value - next(iter(others[best].values())) for value in own.values()]
        if shared:
            behind = Cell.of(shared)
            found.append(Duel(budget, best, Cell.of(own.values()), Cell.of(others[best].values()), behind))
    return found


def quarter(methods: Mapping[str, Regrets]) -> str:
    """Trials the default needs to the goal beside the best of the peers that are to need four times as many."""
    own = trials_to_goal(methods.get(DEFAULT, {}))
    peers = {m: trials_to_goal(methods[m]) for m in PEERS if m in methods}
    reached = {m: n for m, n in peers.items() if n is not None}
    last = min((max(methods[m]) for m in peers if m not in SHORT), default=0)
    best = min(reached.items(), key=lambda item: item[1]) if reached else None
    beside = f"{best[0]} {best[1]}" if best else f"none within {last}"
    limit = (best[1] if best else last) / 4
    beside += "".join(f" ({m} within {max(methods[m])})" for m in SHORT if m in peers and not best)
    outcome = "reached" if own is not None and own <= limit else "missed"
    most = max(methods.get(DEFAULT, {}), default=0)
    return f"{own if own is not None else f'> {most}'}, best of {', '.join(peers)}: {beside} (a quarter: {outcome})"
