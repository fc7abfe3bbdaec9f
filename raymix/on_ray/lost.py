"""Why a trial's worker is gone. Tune tells its scheduler, which may read it, and its searcher only that it is."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.tune.schedulers import FIFOScheduler

FRAME = re.compile(r'\s+File "')  # of a traceback: what was raised stands after the last, not indented
DEAD = re.compile(r"is dead because|died because|was killed")  # Ray's own sentence, where no Python raised
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
WHERE = re.compile(r"\b(?:ip|IP)[=:] ?([0-9a-f.:]+)")
LONGEST = 400  # characters
LOW = re.compile(r"running low on memory.*?\bwas ([\d.]+ ?GB.*?[\d.]+ ?GB)", re.DOTALL)  # of a node, as Ray says it
FULL = re.compile(r"^torch\.\S*OutOfMemoryError: (?:CUDA out of memory\. )?(.*?)(?: of which|$)", re.MULTILINE)
NODE = (
    "out of memory: its node had {} and Ray killed it; let fewer trials share a node (more `cpu` in `resources` of the "
    "ladder), or take nodes with more memory"
)
GPU = (
    "out of memory on its GPU ({}); lower recipe.micro_batch (the sequences at once) or `stack`, give a trial more of "
    "its GPU (`gpu` in `resources` of the ladder), or take larger GPUs: the same study continues"
)


class Hearing(FIFOScheduler):  # type: ignore[misc]
    """Trials in the order in which they were asked for; `hear(Tune's trial id, why)` as soon as one fails."""

    def __init__(self, hear: Callable[[str, str], None]) -> None:
        super().__init__()
        self._hear = hear

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Called before anything of a trial happens."""
        count_as_deaths(getattr(tune_controller, "_actor_manager", None))

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Called before the searcher's `on_trial_complete`."""
        if trial.error_file:
            self._hear(trial.trial_id, sentence(Path(trial.error_file).read_text(errors="replace")))


def count_as_deaths(manager: Any) -> None:
    """Have Tune take every error with which Ray ends a worker for the end of that worker.

    It knows two kinds, and all trials end at any other: that of Ray's memory monitor, say (seen with Ray 2.60).
    Where a later Ray has no such method, its own way stays.
    """
    failed = getattr(manager, "_actor_task_failed", None)
    if failed is None or "_actor_task_failed" in vars(manager):  # of every trial again
        return

    def told(tracked_actor_task: Any, exception: Exception) -> None:
        known = isinstance(exception, RayActorError | RayTaskError)
        failed(tracked_actor_task, exception if known else RayActorError(error_msg=str(exception)))

    manager._actor_task_failed = told


def sentence(text: str) -> str:
    """What Tune kept of a failure on one line: the error that was raised, else what Ray says, and on which node."""
    last = COLOUR.sub("", text).rpartition("Failure # ")[2]
    lines = [line.rstrip() for line in last.splitlines()[1:] if line.strip()] or ["no reason given"]
    frames = [i for i, line in enumerate(lines) if FRAME.match(line)]
    raised = [line for line in lines[frames[-1] :] if not line[0].isspace()] if frames else []
    found = (raised or [line for line in lines if DEAD.search(line)] or lines)[0].strip()
    where = WHERE.search(last)
    return (out_of_memory(last) or found[:LONGEST]) + (f" (on {where[1]})" if where else "")


def out_of_memory(text: str) -> str | None:
    """What happened and what to do, where a node's memory or a GPU's was full; None where it was not."""
    if low := LOW.search(text):
        return NODE.format(low[1])
    full = FULL.search(text)
    return GPU.format(full[1][:150]) if full else None
