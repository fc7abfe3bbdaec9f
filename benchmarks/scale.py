"""How much driver a study needs: its searcher, records and Tune's own loop at many GPU slots.

    python -m benchmarks.scale [--slots 64 256 1024] [--seconds 60] [--rounds 2] [--jitter 0.05]
    python -m benchmarks.scale --nodes

Real: the study's searcher over random mixtures, the records on disk (fsynced), Tune's controller, its events and its
loop, wall-clock time. Simulated: the workers. A slot is an entry in a heap that answers when its trial's time is over,
because a thousand worker processes do not fit on the machine this runs on; so Ray's own cost per worker is not in the
figures. Efficiency = seconds of trials / (slots x wall seconds from the first start to the last end). A study is one
round that fills all slots `rounds` times over; `free_driver` is the efficiency of a driver that costs nothing (trials
differ in length, so the last slots wait).

`--nodes`: real raylets instead, started and stopped by Ray's autoscaler as trials ask for them, and one that is late.
Seconds count from the first pending trial. All of it runs on this machine's cores: the load average stands beside.
"""

import argparse
import heapq
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.scale_tune import DOMAINS, Workers, run_tune
from raymix.design import make_designer
from raymix.space import SearchSpace
from raymix.store import Store
from raymix.study.ledger import Ledger


def main() -> None:
    """Print one line per number of slots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--jitter", type=float, default=0.05)
    parser.add_argument("--nodes", action="store_true")
    given = parser.parse_args()
    if given.nodes:
        from benchmarks.scale_nodes import autoscale, late_node

        for row in (lambda: autoscale("v2"), lambda: autoscale("v1"), late_node):
            print(json.dumps(row()), flush=True)
        return
    for slots in given.slots:
        print(json.dumps(measure(slots, given.seconds, given.rounds, given.jitter)), flush=True)


def space(trials: int) -> SearchSpace:
    """Five domains, one rung, one round."""
    return SearchSpace.parse(
        {
            "name": "scale",
            "domains": [{"name": name, "available_tokens": 1e12} for name in DOMAINS],
            "eval_domains": [{"name": name, "own": name} for name in DOMAINS],
            "ladder": [{"n_params": 20e6, "n_tokens": 1e9}],
            "target": {"n_params": 7e9, "n_tokens": 1e12},
            "budget": {"trials": trials, "per_round": trials},
        }
    )


def measure(slots: int, seconds: float, rounds: int, jitter: float) -> dict[str, Any]:
    """One study of `slots * rounds` trials of about `seconds`, two checkpoints and an end each."""
    with tempfile.TemporaryDirectory(prefix="raymix-scale-") as folder:
        store = Store(Path(folder) / "study")
        with store.locked():
            work = space(slots * rounds)
            ledger = Ledger(work, seed=0, store=store, designer=make_designer("random", work))
            start = time.monotonic()
            ledger.ask(slots * rounds)  # the round, proposed
            proposed = time.monotonic() - start
            workers = Workers(slots, seconds, jitter, ledger)
            before = cpu_seconds()
            run_tune(workers, Path(folder))
            cpu = cpu_seconds() - before
    wall = workers.last_end - workers.first_start
    ended = ledger.count("done")
    assert ended == slots * rounds, f"{ended} of {slots * rounds} trials ended"
    return {
        "slots": slots,
        "trials": ended,
        "trial_seconds": seconds,
        "wall_seconds": round(wall, 1),
        "efficiency": round(sum(workers.durations) / (slots * wall), 4),
        "free_driver": round(sum(workers.durations) / (slots * wall_of(workers.durations, slots)), 4),
        "driver_cpu_seconds": round(cpu, 2),
        "driver_cpu_ms_per_trial": round(1e3 * cpu / ended, 2),
        "driver_share": round(cpu / wall, 4),
        "proposing_seconds": round(proposed, 2),
        "load_average": round(os.getloadavg()[0], 1),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def wall_of(durations: list[float], slots: int) -> float:
    """Seconds that these trials take if a slot gets the next one the moment it is free."""
    free = [0.0] * slots
    for seconds in durations:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def cpu_seconds() -> float:
    """CPU seconds of this process so far, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
