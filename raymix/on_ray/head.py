"""A head of Ray that is gone is said in our words: after a minute Ray ends this process, in its own and without remedy.

Looked for from a thread: Tune's own loop may wait for that very head.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raymix.corpus.on_ray import reach

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0  # between two looks, and for one: of a machine that is gone no answer comes at all
MISSED = 3  # looks in a row: one may be lost on the way
GONE = (
    "the head of Ray at {} does not answer; if it stays away Ray ends this process within a minute. What is recorded "
    "is safe, and trials go on from their checkpoints: start the cluster again, then continue with: {}"
)


def answers(address: str) -> bool:
    """Whether the head of Ray at HOST:PORT is there."""
    try:
        reach(address, LOOK_SECONDS)
    except OSError:
        return False
    return True


@contextmanager
def watched(
    address: str, command: str, every: float = LOOK_SECONDS, say: Callable[[str], None] = log.error
) -> Iterator[None]:
    """Meanwhile `say` once that the head at this address is gone, if it is; `command` continues the study."""
    over = threading.Event()

    def look() -> None:
        missed = 0
        while missed < MISSED and not over.wait(every):
            missed = 0 if answers(address) else missed + 1
        if missed == MISSED and not over.is_set():
            say(GONE.format(address, command))

    thread = threading.Thread(target=look, name="raymix-head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
