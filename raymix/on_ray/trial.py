"""One Tune trial: a proxy on one mixture, or a stack of them; a result per row. It goes on from its last checkpoint.

A class and not a function, because Tune runs functions in a thread, where no signal arrives: a worker that is told to
go (SIGTERM: a preempted node, a drained pod) saves its run first. One that hangs says where and dies. Whose worker died
is begun again by the searcher.
"""

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
from traceback import format_exception_only
from typing import Any

import ray
import torch
from ray import tune

from raymix.corpus import Corpus
from raymix.design.schedule import longer_rungs
from raymix.on_ray.kept import FINAL, UNSAVED, Kept
from raymix.on_ray.lost import out_of_memory
from raymix.on_ray.shards import Shards, on_this_node
from raymix.proxy import resolve
from raymix.proxy.checkpoint import Checkpoints, Interrupted
from raymix.proxy.distributed import across
from raymix.proxy.going_on import Before
from raymix.proxy.loop import Diverged
from raymix.proxy.stack_training import Job, Result, train_stacked
from raymix.proxy.train import train_proxy
from raymix.space import Scale, SearchSpace
from raymix.study.stacks import MEMBER, name_of

log = logging.getLogger(__name__)

TERMINATED = 0  # Ray takes any other for a crash, and says so at length
STDERR = 2  # of the worker: one of Ray's logs
FIRST_PAUSE = 5.0  # seconds before the first retry: what made it fail may pass; twice as long before each further one
BEFORE_THE_FIRST_STEP = 10  # times as long without a sign of life: models are loaded and compiled


class ProxyTrial(tune.Trainable):  # type: ignore[misc]
    """The trainable: a proxy that diverges reports that as its result.

    A config with other trials under `stack` trains all of them as one; each result then has its trial's id as `member`,
    and those with the status done or failed are the last of theirs.
    """

    pause_seconds = FIRST_PAUSE

    def setup(self, config: dict[str, Any], space_json: str, folder: str, shards: Shards, kept: Kept) -> None:
        """Called once per worker."""
        kept.check()
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
        members = [trial, *trial.get("stack", ())]
        self._name = name_of([member["trial_id"] for member in members])
        longer = longer_rungs(space, Scale(trial["n_params"], trial["n_tokens"]))
        goes_on = bool(longer) and trial.get("purpose") == "search"
        self._checkpoints = self._kept.of(self._name, space.recipe.checkpoint_seconds, keep_end=goes_on)
        self._retry = int(trial.get("retry", 0))
        self._patience = space.recipe.hang_seconds
        self._n_tokens = resolve(
            space.recipe, trial["n_params"], trial["n_tokens"], corpus.vocab, space.folder
        ).n_tokens
        arguments: dict[str, Any] = {
            "corpus": corpus,
            "space": space,
            **{name: trial[name] for name in ("n_params", "n_tokens")},
            "checkpoints": self._checkpoints,
            "alive": partial(watch, self._patience),
        }
        n_gpus = len(ray.get_gpu_ids())
        share = ray.get_runtime_context().get_assigned_resources().get("GPU", 1.0) if n_gpus else 1.0
        self._gpu_share = min(1.0, share)
        device = None if n_gpus else "cpu"  # one that takes no GPU uses none, also where it could see some
        if len(members) > 1:
            jobs = [Job(space.mixture(member["mixture"]), member["seed"]) for member in members]
            names = [member["trial_id"] for member in members]
            self._results = self._together(train_stacked(jobs=jobs, device=device, **arguments), names)
            return True
        arguments |= {"mixture": space.mixture(trial["mixture"]), "seed": trial["seed"]}
        if lengths := tuple(trial.get("after", ())):
            arguments["before"] = Before(lengths, self._kept.of(trial["continues"]))
        arguments["keep"] = self._checkpoints.folder / FINAL if space.recipe.keep_weights else None
        one = partial(train_proxy, device=device, gpu_share=self._gpu_share)
        several = partial(across, n_gpus, "cuda", train_proxy) if n_gpus > 1 else one
        self._results = self._alone(several(**arguments))
        return True

    def step(self) -> dict[str, Any]:
        """Train up to the next row; a trial that failed before waits first, longer each time."""
        if self._retry:
            time.sleep(pause(self._retry, self.pause_seconds))
            self._retry = 0
        self._busy = True
        watch(BEFORE_THE_FIRST_STEP * self._patience)
        try:
            row = next(self._results)
            assert self._checkpoints is not None
            while self._checkpoints.stopping and not row.get("done"):  # told while it measured: nobody may ask again
                row = next(self._results)
            return {**row, UNSAVED: trouble} if (trouble := self._checkpoints.trouble) else row
        except Interrupted as why:
            log.warning("%s", why)
            sys.exit(TERMINATED)
        except StopIteration:  # asked once more after its end, to see whether it was told to go
            sys.exit(TERMINATED)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._busy = False

    def _alone(self, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Results of one proxy."""
        last: dict[str, Any] = {}
        try:
            for row in rows:
                if row["n_tokens"] < self._n_tokens:
                    yield {**row, "status": "checkpoint" if row["n_tokens"] > 0 else "start"}
                else:
                    last = row  # there may be something left to do after it
        except (Diverged, torch.OutOfMemoryError) as error:
            yield {"status": "failed", "reason": self._reason(error), "done": True}
            return
        self._kept.copy_final(self._name)
        yield {**last, "status": "done", "done": True}

    def _together(self, results: Iterator[Result], names: list[str]) -> Iterator[dict[str, Any]]:
        """Results of a stack of trials with these ids; the last is that by which all of them have ended."""
        left = list(names)
        try:
            for proxy, row, reason in results:
                ended = bool(reason) or row["n_tokens"] >= self._n_tokens
                if ended:
                    left.remove(names[proxy])
                status = {"status": "done" if ended else "checkpoint"}
                status = {"status": "failed", "reason": reason} if reason else status
                yield {**row, **status, MEMBER: names[proxy], "done": not left}
        except torch.OutOfMemoryError as error:
            while left:
                failed = {"status": "failed", "reason": self._reason(error), MEMBER: left.pop()}
                yield {**failed, "done": not left}

    def _reason(self, error: Exception) -> str:
        """Why a trial has failed. One that shares its GPU may fit at the next attempt, when others there have ended.

        Raises:
            torch.OutOfMemoryError: it is begun again.
        """
        if not isinstance(error, torch.OutOfMemoryError):
            return str(error)
        if self._gpu_share < 1:
            raise error
        return out_of_memory(format_exception_only(error)[-1]) or str(error)

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
