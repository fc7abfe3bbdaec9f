"""A driver on a cluster without workers: `python -m tests.cluster.autoscaled ADDRESS` prints what happened as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import ray

from raymix.study.ledger import Ledger
from tests import worlds
from tests.cluster.test_nodes import Alternating, tune_study

NEEDS = {"cpu": 0, "custom": {"fake_gpu": 1}}
DOWN_SECONDS = 120.0


def main(address: str) -> None:
    """A study of two rounds of four trials, each trial on a node of its own."""
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    ladder = [{"n_params": n, "n_tokens": 1e6, "resources": NEEDS} for n in (1e5, 4e5)]
    space = worlds.space(ladder=ladder, budget={"trials": 8, "per_round": 4})
    ledger = Ledger(space, seed=0, designer=Alternating(space))
    seen: list[tuple[float, int]] = [(0.0, workers())]
    start = time.monotonic()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            if (now := workers()) != seen[-1][1]:
                seen.append((time.monotonic() - start, now))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        tune_study(ledger, space, Path(folder))
    until = time.monotonic() + DOWN_SECONDS
    while workers() and time.monotonic() < until:
        time.sleep(0.2)
    stop.set()
    watcher.join()
    print(json.dumps({"seen": seen, "rows": len(ledger.table().table), "left": workers()}))


def workers() -> int:
    """Nodes alive beside the head."""
    return sum(node["Alive"] and node["Resources"].get("fake_gpu", 0) > 0 for node in ray.nodes())


if __name__ == "__main__":
    main(sys.argv[1])
