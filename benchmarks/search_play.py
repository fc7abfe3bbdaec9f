"""One method searches one world once, and is asked for its answer on the way.

The space a method sees says nothing of the truth. A method is asked for `batch` trials at a time; losses come back with
the world's noise. Before the first trial that would pass one of `BUDGETS`, the method is asked what it would recommend
from what is known so far; that is scored on the truth at the target.
"""

import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search_methods import Method
from benchmarks.worlds.base import World
from raymix.design import Proposal, make_designer
from raymix.design.schedule import rungs
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import SearchSpace

BUDGETS = (8, 16, 24, 32, 48, 64, 96, 128, 192)  # of the cheapest rung's trials; scored at each
USUAL = 128  # what everybody is played to; some further, to show that they need four times the default's trials
EMPTY_ROUNDS = 3  # rounds in a row without an affordable trial before the rest of a budget is given up


@dataclass
class Played:
    """What a run has spent and seen."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    seen: set[tuple[int, bytes]] = field(default_factory=set)
    spent: float = 0.0
    trials: int = 0


def play(world: World, method: Method, rung: int | None, seed: int, budget: float) -> dict[str, Any]:
    """Regret (%) of the recommended mixture at every budget, the answer at the last, and seconds.

    `rung` restricts the space to one rung of the ladder (from cheap to dear). A method that raises ends there; the
    error is part of the result.
    """
    space = space_for(world, rung)
    found: dict[str, Any] = {"world": world.name, "method": method.name, "rung": rung, "seed": seed, "regret": {}}
    began = time.perf_counter(), time.process_time()
    try:
        for size, mix_K, played in answers(world, space, method, seed, min(budget, method.most)):
            found["regret"][str(size)] = round(world.regret(mix_K), 4)
            found |= {"mixture": [round(float(share), 9) for share in mix_K], "trials": played.trials}
    except Exception as error:  # a peer that breaks is a result, not the end of the benchmark
        frames = traceback.extract_tb(error.__traceback__)
        where = [frame for frame in frames if "raymix" in frame.filename][-1:] or frames[-1:]
        found["error"] = f"{type(error).__name__}: {error} ({Path(where[0].filename).name}:{where[0].lineno})"
    took = {"seconds": time.perf_counter() - began[0], "cpu_seconds": time.process_time() - began[1]}
    return found | {name: round(value, 2) for name, value in took.items()}


def space_for(world: World, rung: int | None) -> SearchSpace:
    """The space as it is, or with one rung alone."""
    if rung is None:
        return world.space
    scale = rungs(world.space)[rung]
    only = next(r for r in world.space.ladder if r.scale == scale)
    return world.space.model_copy(update={"ladder": (only,)})


def answers(
    world: World, space: SearchSpace, method: Method, seed: int, budget: float
) -> Iterator[tuple[int, Array, Played]]:
    """(budget, recommended mixture, what has been spent by then) at every budget up to the last."""
    designer: Any = make_designer(method.designer, space)
    sizes = [size for size in method.asked or BUDGETS if size <= budget]
    played, empty = Played(), 0
    if method.fixed:
        mix_K = designer.recommend(table_of(space, played))
        yield from ((size, mix_K, played) for size in sizes)
        return
    least = min(world.cost(rung.scale) for rung in space.ladder)
    while sizes and empty < EMPTY_ROUNDS and played.spent + least <= sizes[-1]:
        rng = np.random.default_rng([seed, played.trials, empty])
        before = played.trials
        for proposal in designer.suggest(table_of(space, played), [], method.batch, rng):
            after = played.spent + world.cost(proposal.scale)
            if after > sizes[-1]:
                continue  # too dear for what is left
            while after > sizes[0]:
                yield sizes.pop(0), designer.recommend(table_of(space, played)), played
            train(world, proposal, played, seed)
        empty = 0 if played.trials > before else empty + 1
    for size in sizes:
        yield size, designer.recommend(table_of(space, played)), played


def train(world: World, proposal: Proposal, played: Played, seed: int) -> None:
    """Run one trial: its rows, its cost."""
    mix_K = world.admit(proposal.mixture_K, proposal.scale, played.seen)
    rung = rungs(world.space).index(proposal.scale)
    played.seen.add((rung, mix_K.tobytes()))
    checkpoints = world.run(mix_K, proposal.scale, played.trials, seed)
    shares = {f"mixture/{k}": float(v) for k, v in zip(world.space.domain_names, mix_K, strict=True)}
    for i, (n_tokens, loss_M) in enumerate(checkpoints):
        row: dict[str, Any] = {"trial_id": f"t{played.trials:04d}", "seed": proposal.seed, **shares}
        row |= {"n_params": proposal.scale.n_params, "n_tokens": n_tokens}
        row |= {f"loss/{m}": float(v) for m, v in zip(world.space.eval_names, loss_M, strict=True)}
        played.rows.append(row | {"status": "done" if i == len(checkpoints) - 1 else "checkpoint"})
    played.spent = round(played.spent + world.cost(proposal.scale), 6)
    played.trials += 1


def table_of(space: SearchSpace, played: Played) -> Observations:
    """All rows so far."""
    return Observations.from_rows(played.rows, space.domain_names, space.eval_names)
