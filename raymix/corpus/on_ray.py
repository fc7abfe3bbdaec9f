"""The same parts as Ray tasks: where RAY_ADDRESS names a cluster whose nodes see the cache, its cores tokenise.

Otherwise (RAYMIX_CACHE is a folder of this machine alone, or no worker is up yet) this machine does: its parts would be
found by nobody else, and a cluster that starts from nothing would pay for GPUs that tokenise.
"""

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import LocalRayletDiedError, NodeDiedError, OutOfMemoryError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raymix.corpus.places import in_short
from raymix.corpus.shards import CorpusError
from raymix.yaml12 import SpaceError

log = logging.getLogger(__name__)

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # in Ray's words: what a job was submitted with
LOST = (OutOfMemoryError, WorkerCrashedError, NodeDiedError, LocalRayletDiedError)  # the worker's fault, or its node's
PAUSES = (5.0, 10.0, 20.0, 40.0)  # seconds before a lost task is begun again; then it fails
REACH_SECONDS = 15.0
ANSWER_SECONDS = 120.0  # a node may have to start a worker first


class RayExecutor(Executor):
    """One Ray task per call, one core each. One that is lost is begun again: a part is made anew, or found finished.

    Not by Ray, which retries what its memory monitor kills without end.
    """

    def __init__(self) -> None:
        self._task = ray.remote(num_cpus=1, max_retries=0)(_after)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future of the task's result; a CorpusError where it was lost too often."""
        answer: Future[Any] = Future()
        answer.set_running_or_notify_cancel()
        self._begin(answer, partial(fn, *args, **kwargs), 0)
        return answer

    def _begin(self, answer: Future[Any], call: Callable[[], Any], losses: int) -> None:
        pause = PAUSES[losses - 1] if losses else 0.0
        self._task.remote(pause, call).future().add_done_callback(partial(self._ended, answer, call, losses))

    def _ended(self, answer: Future[Any], call: Callable[[], Any], losses: int, ended: Future[Any]) -> None:
        error = ended.exception()
        if error is None:
            answer.set_result(ended.result())
        elif not isinstance(error, LOST):
            answer.set_exception(error)
        elif losses < len(PAUSES):
            log.warning("a worker died while it tokenised (%s); its part is begun again", type(error).__name__)
            try:
                self._begin(answer, call, losses + 1)
            except Exception as failure:  # Ray's thread would drop it, and the answer never come
                answer.set_exception(failure)
        else:
            answer.set_exception(CorpusError(_given_up(error)))


def _after(pause: float, call: Callable[[], Any]) -> Any:
    """The result of a call; while it waits it holds its core, so that fewer tasks share the memory of the node."""
    time.sleep(pause)
    return call()


def _given_up(error: BaseException) -> str:
    why = f"its worker died ({type(error).__name__}): look at the nodes"
    if isinstance(error, OutOfMemoryError):
        why = (
            "the memory of its node was full: take nodes with more memory, start them with fewer cores (each tokenises "
            "a part of its own), or cut what is very long (a document, a row group)"
        )
    tries = f"a part was tokenised {len(PAUSES) + 1} times, and each time {why}"
    return f"{tries}; what is done is kept: run the same command again"


class NoClusterError(ValueError):
    """The cluster that RAY_ADDRESS names cannot be joined."""


def join(environment: Mapping[str, str]) -> None:
    """Join the cluster that RAY_ADDRESS names; its workers get these variables.

    Raises:
        SpaceError: it is no address for a driver.
        NoClusterError: nobody answers there, or one of another version.
    """
    address = os.environ["RAY_ADDRESS"]
    if "://" in address:
        raise SpaceError(
            f"RAY_ADDRESS={address}: a study runs on a node of its cluster, where RAY_ADDRESS is HOST:6379; from "
            "elsewhere: raymix submit SPACE.yaml --cluster http://127.0.0.1:8265 --storage URI"
        )
    env = {"env_vars": {name: value for name, value in environment.items() if name not in _of_the_job()}}
    try:
        reach(address)
        with own_signals():
            ray.init(address=address, runtime_env=env, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:  # the last of Ray: no address at all
        raise NoClusterError(
            f"RAY_ADDRESS={address}: cannot be joined ({in_short(error)}); is it up, and is this machine one of its "
            "nodes? Without RAY_ADDRESS a study runs on this machine alone"
        ) from error


@contextmanager
def own_signals() -> Iterator[None]:
    """Start or join Ray within it: what a signal does here stays as it is (Ray's SIGTERM prints stacks and aborts).

    What is started ignores that the terminal closes (SIGHUP): this process ends it, when all is saved.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal can be set here
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        try:
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:  # it was not Python's own
                    signal.signal(number, handler)
    except SystemExit as why:
        if why.code == signal.SIGTERM:  # Ray's answer to one, while it started
            signal.raise_signal(signal.SIGTERM)
        raise


def reach(address: str, seconds: float = REACH_SECONDS) -> None:
    """Nothing, if somebody listens at the address of a cluster: of one that is gone Ray itself asks for minutes.

    `auto` is whichever Ray finds here: one that runs, else the last that was started, which may be long gone.

    Raises:
        OSError: nobody does, or `auto` finds none.
    """
    where = address
    if address == "auto":
        try:
            from ray._private.services import canonicalize_bootstrap_address
        except ImportError:  # private to Ray, and may move: then Ray asks, for as long as it likes
            return
        where = canonicalize_bootstrap_address(address)
    host, _, port = where.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except OSError as error:
        raise OSError(f"{where}: {error}" if where != address else str(error)) from None


def _of_the_job() -> dict[str, str]:
    """Variables that whoever submitted the Ray job gave it: they count, and Ray takes none of them twice."""
    job = json.loads(os.environ.get(JOB, "{}"))
    return dict((job.get("runtime_env") or {}).get("env_vars") or {})


@contextmanager
def ray_executor(folder: Path) -> Iterator[tuple[Executor, int] | None]:
    """The cluster, joined if it is not yet, and its number of cores; None unless every node sees the folder."""
    ours = not ray.is_initialized()
    if ours:
        join({"TOKENIZERS_PARALLELISM": "false"})
    try:
        cores = int(ray.cluster_resources().get("CPU", 0))
        yield (RayExecutor(), cores) if cores and _all_see(folder) else None
    finally:
        if ours:
            ray.shutdown()


def _all_see(folder: Path) -> bool:
    """Whether a file that is written here now is there on every node that has cores."""
    probe = folder / f".{uuid4().hex[:8]}.probe"
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    look = ray.remote(num_cpus=0, max_retries=0)(os.path.exists)
    probe.touch()
    try:
        where = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
        seen: list[bool] = ray.get(
            [look.options(scheduling_strategy=one).remote(str(probe)) for one in where], timeout=ANSWER_SECONDS
        )
    except ray.exceptions.RayError as error:
        log.warning("this machine tokenises alone: a node does not answer (%s)", type(error).__name__)
        return False
    finally:
        probe.unlink(missing_ok=True)
    if not all(seen):
        log.warning(
            "this machine tokenises alone: %d of %d nodes do not see %s; put RAYMIX_CACHE on a path that all share to "
            "use them too", seen.count(False), len(seen), folder
        )  # fmt: skip
    return all(seen)
