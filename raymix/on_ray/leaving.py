"""Ctrl-C, SIGTERM or a terminal that closes: trials save where they are before the driver goes.

Tune kills their workers at once, and up to a minute of each would be lost. The signal is therefore only noted, and at
the next turn of Tune's loop every worker is told to go (SIGTERM), as a preempted node does: it saves its run and ends.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raymix.corpus.places import in_short
from raymix.on_ray.head import answers

log = logging.getLogger(__name__)

Process = tuple[str, int]
"""A node of Ray and a process id there."""
SAVE_SECONDS = 60.0  # for a step and a checkpoint; whoever will not wait signals again
HEAD_SECONDS = 1.0  # between two looks whether the head of Ray is there
POLL = 0.05


class Leaving(tune.Callback):  # type: ignore[misc]
    """`with leaving.listening():` around Tune, and this among its callbacks."""

    def __init__(self) -> None:
        self._why: BaseException | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """What handlers of signals raise is kept until the trials are saved; a second signal raises at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # no signal arrives here
            return
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        before: dict[int, Any] = {number: handler for number, handler in found.items() if callable(handler)}

        def note(number: int, frame: FrameType | None) -> None:
            try:
                before[number](number, frame)
            except BaseException as why:
                if self._why is not None:
                    raise
                self._why = why

        try:
            for number in before:
                signal.signal(number, note)
            yield
            if self._why is not None:  # in the last turn of all
                raise self._why
        finally:
            for number, handler in before.items():
                if signal.getsignal(number) is note:  # else the handler has set another
                    signal.signal(number, handler)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called at every turn of Tune's loop."""
        if self._why is not None:
            saving = threading.Thread(target=save, args=[trials], daemon=True)
            saving.start()
            head = ray.get_runtime_context().gcs_address
            while saving.is_alive() and answers(head):  # else it would wait for ever, and its trials were told as well
                saving.join(HEAD_SECONDS)
            raise self._why


def save(trials: Sequence[Any]) -> None:
    """Have Tune's trials saved. What is asked for their workers is private to Ray: where it moves, they end unsaved."""
    handles = [trial.temporary_state.ray_actor for trial in trials if trial.status == "RUNNING"]
    try:
        save_all([handle for handle in handles if handle is not None])
    except Exception as error:
        log.warning("the trials under way go on from their last checkpoints, not saved now (%s)", in_short(error))


def save_all(handles: Sequence[Any], seconds: float = SAVE_SECONDS) -> None:
    """Tell the workers behind these actors to go; returns when they have, or after so many seconds."""
    names = [handle._actor_id.hex() for handle in handles]
    workers = {name: process for name in names if (process := process_of(name))}
    if not workers:
        return
    log.warning("the trials under way are saved first; once more to end at once")
    tell(workers.values())
    for handle in handles:
        handle.train.remote()  # between two results a worker does not even hear the signal, and Tune asks for no more
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(map(process_of, workers)):
        time.sleep(POLL)


def process_of(actor: str) -> Process | None:
    """Where an actor is alive; None where it is not (yet, or any more)."""
    from ray._private.state import actors

    about = actors(actor_id=actor)
    return (about["Address"]["NodeID"], about["Pid"]) if about.get("State") == "ALIVE" else None


def tell(processes: Iterable[Process]) -> None:
    """Send SIGTERM to processes; to those of other nodes by a task there."""
    by_node: dict[str, list[int]] = {}
    for node, process in processes:
        by_node.setdefault(node, []).append(process)
    terminate(by_node.pop(ray.get_runtime_context().get_node_id(), ()))
    task = ray.remote(num_cpus=0, max_retries=0)(terminate)
    for node, there in by_node.items():
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(there)


def terminate(processes: Sequence[int]) -> None:
    """Send SIGTERM to processes of this node."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
