"""One Tune trial: a proxy on one mixture, a result per row. It goes on from its last checkpoint when it is restarted.

A class and not a function, because Tune runs functions in a thread, where no signal arrives: a worker that is told to
go (SIGTERM: a preempted node, a drained pod) saves its run first. One that hangs says where and dies. Whose worker died
is begun again by the searcher.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import ray
from ray import tune

from raymix.corpus import Corpus
from raymix.design.schedule import longer_rungs
from raymix.on_ray.kept import FINAL, Kept
from raymix.on_ray.shards import Shards, on_this_node
from raymix.proxy import Checkpoints, Diverged, Interrupted, resolve, train_proxy
from raymix.proxy.distributed import across
from raymix.proxy.going_on import Before
from raymix.space import Scale, SearchSpace

log = logging.getLogger(__name__)

TERMINATED = 128 + signal.SIGTERM
STDERR = 2  # of the worker: one of Ray's logs
FIRST_PAUSE = 5.0  # seconds before the first retry: what made it fail may pass; twice as long before each further one
BEFORE_THE_FIRST_STEP = 10  # times as long without a sign of life: models are loaded and compiled


class ProxyTrial(tune.Trainable):  # type: ignore[misc]
    """The trainable: a proxy that diverges reports that as its result."""

    pause_seconds = FIRST_PAUSE

    def setup(self, config: dict[str, Any], space_json: str, folder: str, shards: Shards, kept: Kept) -> None:
        """Called once per worker."""
        self._opened = (shards, space_json, folder)
        self._kept = kept
        self._checkpoints: Checkpoints | None = None
        self._busy = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._told_to_go)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next trial, in the same worker."""
        space, corpus = _opened(*self._opened)
        trial = new_config
        self._trial_id = trial["trial_id"]
        scale = Scale(trial["n_params"], trial["n_tokens"])
        goes_on = trial.get("purpose") == "search" and bool(longer_rungs(space, scale))
        self._checkpoints = self._kept.of(self._trial_id, space.recipe.checkpoint_seconds, keep_end=goes_on)
        lengths = tuple(trial.get("after", ()))
        self._retry = int(trial.get("retry", 0))
        self._patience = space.recipe.hang_seconds
        self._n_tokens = resolve(
            space.recipe, trial["n_params"], trial["n_tokens"], corpus.vocab, space.folder
        ).n_tokens
        arguments: dict[str, Any] = {
            "corpus": corpus,
            "space": space,
            "mixture": space.mixture(trial["mixture"]),
            **{name: trial[name] for name in ("n_params", "n_tokens", "seed")},
            "checkpoints": self._checkpoints,
            "before": Before(lengths, self._kept.of(trial["continues"])) if lengths else None,
            "alive": partial(watch, self._patience),
            "keep": self._checkpoints.folder / FINAL if space.recipe.keep_weights else None,
        }
        n_gpus = len(ray.get_gpu_ids())
        several = partial(across, n_gpus, "cuda", train_proxy) if n_gpus > 1 else train_proxy
        self._rows: Iterator[dict[str, Any]] = several(**arguments)
        return True

    def step(self) -> dict[str, Any]:
        """Train up to the next row; a trial that failed before waits first, longer each time."""
        if self._retry:
            time.sleep(pause(self._retry, self.pause_seconds))
            self._retry = 0
        self._busy = True
        watch(BEFORE_THE_FIRST_STEP * self._patience)
        try:
            row = next(self._rows)
            if row["n_tokens"] < self._n_tokens:
                return {**row, "status": "checkpoint" if row["n_tokens"] > 0 else "start"}
            next(self._rows, None)  # whatever is left to do after the last row
            self._kept.copy_final(self._trial_id)
            return {**row, "status": "done", "done": True}
        except Diverged as error:
            return {"status": "failed", "reason": str(error), "done": True}
        except Interrupted as why:
            log.warning("%s", why)
            sys.exit(TERMINATED)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._busy = False

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing, where Tune asks (a pause, say): the run is saved in the study, by its own clock."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the run finds its own checkpoint."""

    def _told_to_go(self, signum: int, frame: Any) -> None:
        if self._checkpoints is None or self._checkpoints.stopping or not self._busy:  # told twice, or at rest
            sys.exit(TERMINATED)
        self._checkpoints.stopping = True


def pause(retry: int, first: float = FIRST_PAUSE) -> float:
    """Seconds to wait before a retry, the first being 1: twice as long each time."""
    return float(first * 2 ** (retry - 1))


def watch(seconds: float) -> None:
    """Unless called again or cancelled within so many seconds, this process says where all its threads are and ends."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)


@lru_cache(maxsize=2)
def _opened(shards: Shards, space_json: str, folder: str) -> tuple[SearchSpace, Corpus]:
    """Opened once per worker: a reused actor trains many trials."""
    return SearchSpace.parse(json.loads(space_json), folder=Path(folder)), on_this_node(shards)
