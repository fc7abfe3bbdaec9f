"""A driver on a cluster without workers: `python -m tests.cluster.autoscaled ADDRESS` prints what happened as JSON.

All seconds count from the moment at which the first trial is pending.
"""

import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.util import placement_group_table

from raymix.study.ledger import Ledger
from tests import worlds
from tests.cluster.test_nodes import Alternating, tune_study

NEEDS = {"cpu": 0, "custom": {"fake_gpu": 1}}
DOWN_SECONDS = 120.0


class Watch(tune.Callback):  # type: ignore[misc]
    """Counts nodes, and what is asked for while there are none, from the first pending trial on."""

    def __init__(self) -> None:
        self.asked = 0
        self.nodes: list[tuple[float, int]] = []
        self.training: list[float] = []
        self._start: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its callbacks, threads and all

    def event(self, event: str, trial: Any) -> None:
        """Of the search: the first trial starts the clock."""
        if event == "started" and self._start is None:
            self._start = time.monotonic()
            self.nodes.append((0.0, workers()))
            self._thread.start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Of Tune: a trial's worker is up."""
        self.training.append(self.seconds())

    def seconds(self) -> float:
        """Since the first pending trial."""
        assert self._start is not None
        return round(time.monotonic() - self._start, 2)

    def close(self) -> None:
        """No more counting."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            now = workers()
            if not any(count for _, count in self.nodes) and not now:
                waiting = [group for group in placement_group_table().values() if group["state"] == "PENDING"]
                self.asked = max(self.asked, len(waiting))
            if now != self.nodes[-1][1]:
                self.nodes.append((self.seconds(), now))


def main(address: str) -> None:
    """A study of two rounds of four trials, each trial on a node of its own."""
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    ladder = [{"n_params": n, "n_tokens": 1e6, "resources": NEEDS} for n in (1e5, 4e5)]
    space = worlds.space(ladder=ladder, budget={"trials": 8, "per_round": 4})
    ledger = Ledger(space, seed=0, designer=Alternating(space))
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        tune_study(ledger, space, Path(folder), watch.event, [watch])
    ended = watch.seconds()
    while workers() and watch.seconds() < ended + DOWN_SECONDS:
        time.sleep(0.2)
    down = watch.seconds() - ended
    watch.close()
    said = {"asked": watch.asked, "nodes": watch.nodes, "training": watch.training, "down": round(down, 2)}
    print(json.dumps({**said, "rows": len(ledger.table().table), "left": workers()}))


def workers() -> int:
    """Nodes alive beside the head."""
    return sum(node["Alive"] and node["Resources"].get("fake_gpu", 0) > 0 for node in ray.nodes())


if __name__ == "__main__":
    main(sys.argv[1])
