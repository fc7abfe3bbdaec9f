"""The storage of a study under load: opening, appending, and a long search. `python -m benchmarks.store`.

    large   a study of 10,000 trials x 20 eval domains x 5 checkpoints: time to open it, to have its table, to append
    load    5,000 trials through `MixtureSearch`, every record durable: trials/s, memory, and whether it stays flat

The study of `large` is written through the store in groups, which does not change what is read. In `load` the trials
cost nothing, so that everything measured is ours; `--designer default` searches with the law (it refits every round),
`filling` does without. `--folder` says which disk; what fsync costs there is measured and printed beside the rest.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from raymix import SearchSpace, Study
from raymix.design import SpaceFilling
from raymix.search import MixtureSearch
from raymix.study.ledger import Ledger

TRIALS, EVALS, CHECKPOINTS = 10_000, 20, 5
GOAL_OPEN, GOAL_APPEND = 3.0, 0.020  # seconds
GOAL_RATE, GOAL_MEMORY, GOAL_FLAT = 25, 1000, 2  # trials/s, MB, ratio


def space(n_domains: int, n_evals: int, trials: int, per_round: int) -> SearchSpace:
    """Names alone: nothing is trained."""
    return SearchSpace.parse(
        {
            "name": "load",
            "domains": [{"name": f"domain-{k:02d}", "available_tokens": 1e12} for k in range(n_domains)],
            "eval_domains": [{"name": f"eval-{m:02d}"} for m in range(n_evals)],
            "ladder": [{"n_params": 1e7, "n_tokens": 1e9}],
            "target": {"n_params": 1e9, "n_tokens": 1e11},
            "budget": {"trials": trials, "per_round": per_round, "stop_early": False},
        }
    )


def events(of: SearchSpace, n_trials: int) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """The events of each trial, as the ledger records them."""
    rng = np.random.default_rng(0)
    scale = of.ladder[0].scale
    for i, mix_K in enumerate(rng.dirichlet(np.ones(len(of.domains)), n_trials)):
        about = {"trial_id": f"{i:012x}", "seed": 0, "n_params": scale.n_params}
        shares = of.shares(mix_K)
        mixture = {f"mixture/{name}": share for name, share in shares.items()}
        proposed = {"mixture": shares, "n_tokens": scale.n_tokens, "purpose": "search", "round": i // 8}
        out = [("proposed", about | proposed)]
        for c in range(1, CHECKPOINTS + 1):
            drawn = zip(of.eval_names, rng.uniform(2, 4, EVALS).tolist(), strict=True)
            losses = {f"loss/{name}": loss for name, loss in drawn}
            row = {"n_tokens": scale.n_tokens * c / CHECKPOINTS, "status": "done" if c == CHECKPOINTS else "checkpoint"}
            out.append(("row", about | mixture | losses | row | {"seconds": 60.0 * c, "flops": 1e15 * c}))
        yield out


def large(folder: Path) -> None:
    """Open and append to a large study."""
    of = space(20, EVALS, TRIALS + 100, 8)
    study = Study.create(of, folder / "large")
    with study.writing() as ledger:
        for group in events(of, TRIALS):
            study.store.append_all(group)
    for attempt in ("first", "again"):
        opened = timed(f"open, {attempt}", lambda: Study.open(folder / "large"), GOAL_OPEN)
        timed("  and its table", opened.table)
    assert len(opened.table()) == TRIALS * CHECKPOINTS
    with opened.writing() as ledger:
        (trial,) = ledger.ask(1)
        row = {f"loss/{name}": 3.0 for name in of.eval_names}
        seconds = [
            clock(lambda c=c: ledger.observe(trial.trial_id, row | {"n_tokens": c, "status": "checkpoint"}))
            for c in range(1, 201)
        ]
    print(f"append: median {np.median(seconds) * 1e3:.1f} ms, 95% {np.quantile(seconds, 0.95) * 1e3:.1f} ms, "
          f"longest {max(seconds) * 1e3:.0f} ms (goal {GOAL_APPEND * 1e3:.0f} ms)")  # fmt: skip


def load(folder: Path, trials: int, per_round: int, designer: str) -> None:
    """A long search with trials that cost nothing."""
    of = space(3, 3, trials, per_round)
    study = Study.create(of, folder / f"load-{designer}", designer=SpaceFilling(of) if designer == "filling" else None)
    seconds = np.zeros(trials)
    with study.writing() as ledger:
        search = MixtureSearch(ledger=ledger, rounds=True)
        start, i = time.perf_counter(), 0
        while i < trials:
            i = _round(search, ledger, seconds, i)
        took = time.perf_counter() - start
    again = Study.open(folder / f"load-{designer}")
    assert again.ledger.count("done") == trials
    early, late = np.mean(seconds[100 : 100 + trials // 10]), np.mean(seconds[-trials // 10 :])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    rate = f"{trials / took:.0f}/s (goal {GOAL_RATE})"
    print(f"load, {designer}, rounds of {per_round}: {trials} trials in {took:.0f} s, {rate}")
    print(f"  suggest + record: {early * 1e3:.1f} ms a trial from the 100th on, {late * 1e3:.1f} ms at the end: ratio "
          f"{late / early:.2f} (goal {GOAL_FLAT}); {memory:.0f} MB (goal {GOAL_MEMORY})")  # fmt: skip


def _round(search: MixtureSearch, ledger: Ledger, seconds: np.ndarray[Any, np.dtype[np.float64]], i: int) -> int:
    """One round: suggest until it waits, then complete them all; returns the number of trials so far."""
    running: list[tuple[str, dict[str, Any], int]] = []
    while True:
        began = time.perf_counter()
        config = search.suggest(f"t{i}")
        if not isinstance(config, dict):
            break
        seconds[i] += time.perf_counter() - began
        running.append((f"t{i}", config, i))
        i += 1
    for name, config, at in running:
        shares = np.array(list(config["mixture"].values()))
        losses = {f"loss/{e}": float(2 + (0.3 + shares[m]) ** -0.3) for m, e in enumerate(ledger.space.eval_names)}
        began = time.perf_counter()
        search.on_trial_complete(name, {**losses, "n_tokens": config["n_tokens"]})
        seconds[at] += time.perf_counter() - began
    return i


def clock(action: Callable[[], Any]) -> float:
    """Seconds."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def timed(name: str, action: Callable[[], Any], goal: float | None = None) -> Any:
    """What the action returns; its wall and CPU seconds are printed."""
    wall, cpu = time.perf_counter(), time.process_time()
    out = action()
    words = f" (goal {goal:g} s)" if goal else ""
    print(f"{name}: {time.perf_counter() - wall:.2f} s, CPU {time.process_time() - cpu:.2f} s{words}")
    return out


def disk(folder: Path) -> None:
    """What making one small file durable costs here."""
    seconds = []
    for i in range(100):

        def write(i: int = i) -> None:
            with open(folder / f"probe-{i}", "wb") as file:
                file.write(b"x" * 1500)
                os.fsync(file.fileno())

        seconds.append(clock(write))  # fmt: skip
    print(f"this disk: {np.median(seconds) * 1e3:.2f} ms per fsync; load average {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a disk to work on; default: the temporary folder")
    parser.add_argument("--trials", type=int, default=5000, help="of the load")
    parser.add_argument("--per-round", type=int, default=100, help="of the load")
    parser.add_argument("--only", choices=("large", "load"))
    parser.add_argument("--designer", choices=("filling", "default"), default="filling")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        disk(Path(name))
        if args.only != "large":
            load(Path(name), args.trials, args.per_round, args.designer)
        if args.only != "load":
            large(Path(name))


if __name__ == "__main__":
    main()
