"""Why a trial's worker is gone. Tune tells its scheduler, which may read it, and its searcher only that it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler

FRAME = re.compile(r'\s+File "')  # of a traceback: what was raised stands after the last, not indented
DEAD = re.compile(r"is dead because|died because|was killed")  # Ray's own sentence, where no Python raised
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
WHERE = re.compile(r"\bip[=:] ?([0-9a-f.:]+)")
LONGEST = 400  # characters


class Hearing(FIFOScheduler):  # type: ignore[misc]
    """Trials in the order in which they were asked for; `hear(Tune's trial id, why)` as soon as one fails."""

    def __init__(self, hear: Callable[[str, str], None]) -> None:
        super().__init__()
        self._hear = hear

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Called before the searcher's `on_trial_complete`."""
        if trial.error_file:
            self._hear(trial.trial_id, sentence(Path(trial.error_file).read_text(errors="replace")))


def sentence(text: str) -> str:
    """What Tune kept of a failure on one line: the error that was raised, else what Ray says, and on which node."""
    last = COLOUR.sub("", text).rpartition("Failure # ")[2]
    lines = [line.rstrip() for line in last.splitlines()[1:] if line.strip()] or ["no reason given"]
    frames = [i for i, line in enumerate(lines) if FRAME.match(line)]
    raised = [line for line in lines[frames[-1] :] if not line[0].isspace()] if frames else []
    found = (raised or [line for line in lines if DEAD.search(line)] or lines)[0].strip()
    where = WHERE.search(last)
    return found[:LONGEST] + (f" (on {where[1]})" if where else "")
