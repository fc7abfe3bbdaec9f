"""Many parts at a time: on the cores of this machine, or as Ray tasks where a cluster is joined that sees its files.

The parts depend on the sources alone, not on who makes them or in which order they end.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raymix.corpus import parts
from raymix.corpus.files import SMALLEST, Chunk, limited
from raymix.corpus.keys import naming, of_domain
from raymix.corpus.parts import Job, Part
from raymix.corpus.shards import CorpusError
from raymix.space import Source, SpaceError

log = logging.getLogger(__name__)

AHEAD = 2  # jobs given out per worker
BYTES_PER_TOKEN = 4  # to guess how much text a limit in tokens means
UNKNOWN = 1e8  # bytes a source counts for in the progress when nobody knows its size


@dataclass
class Feed:
    """One source: its chunks as they are needed, its parts as they come."""

    source: Source
    folder: Path
    chunks: Iterator[Chunk]
    size: float
    """Bytes, about; for the progress."""
    make_job: Callable[[Chunk, int], Job]
    parts: dict[int, Part] = field(default_factory=dict)
    given: int = 0
    running: int = 0
    exhausted: bool = False
    done_size: float = 0.0

    def next(self) -> tuple[int, Job] | None:
        """The next job, or None while no more is wanted."""
        if self.exhausted or not self._wants_more():
            return None
        chunk = next(self.chunks, None)
        if chunk is None:
            self.exhausted = True
            return None
        index, self.given, self.running = self.given, self.given + 1, self.running + 1
        return index, self.make_job(chunk, index)

    def done(self, index: int, part: Part, size: float) -> None:
        """A part has come."""
        self.running -= 1
        self.parts[index] = part
        self.done_size += size

    def in_order(self) -> list[Part]:
        """The parts up to the limit of the source."""
        kept: list[Part] = []
        for index in range(len(self.parts)):
            if index not in self.parts or self._enough(kept):
                break
            kept.append(self.parts[index])
        return kept

    def fraction(self) -> float:
        """How much of it is done, 0 to 1."""
        if self.exhausted and not self.running:
            return 1.0
        limit = self.source.max_tokens or (self.source.megabytes or 0) * 1e6
        if limit:
            have = sum(p.n_tokens if self.source.max_tokens else p.n_bytes for p in self.parts.values())
            return min(have / limit, 1.0)
        return min(self.done_size / self.size, 1.0) if self.size else len(self.parts) / (self.given + 1)

    def _wants_more(self) -> bool:
        """Whether the parts at hand and under way will not do, as far as one can guess."""
        if not limited(self.source):
            return True
        if self._enough(self.in_order()):
            return False
        if not self.running:
            return True
        n = len(self.parts)
        if not n:
            return False  # the first part says how much the others will give
        scale = (n + self.running) / n
        have = list(self.parts.values())
        return not parts.enough(
            self.source, scale * sum(p.n_tokens for p in have), scale * sum(p.n_bytes for p in have)
        )

    def _enough(self, kept: list[Part]) -> bool:
        return parts.enough(self.source, sum(p.n_tokens for p in kept), sum(p.n_bytes for p in kept))


def size_of(source: Source, listed: float) -> float:
    """Bytes a source will give, about, from the bytes of its files and its limits; 0 where nobody knows."""
    limits = [source.megabytes * 1e6] if source.megabytes is not None else []
    limits += [source.max_tokens * BYTES_PER_TOKEN] if source.max_tokens is not None else []
    limits += [listed] if listed else []
    return min(limits, default=0.0)


def make_all(feeds: dict[Any, Feed], workers: int | None, tell: Callable[[float], None], folder: Path) -> None:
    """Make the parts of every feed.

    Args:
        feeds: by a name (kind, domain) for errors.
        folder: where their parts and the tokenizer are.
        workers: processes; as many as there are cores, but none for a few megabytes, if left out.
        tell: called with the part that is done.

    Raises:
        SpaceError: a source cannot be read; the message names its domain.
        CorpusError: a worker died.
    """
    expected = sum(feed.size or UNKNOWN for feed in feeds.values())
    with executor(workers, expected, folder) as (pool, n_workers):
        running: dict[Future[Part], tuple[Any, int, Job]] = {}
        try:
            while True:
                _give_out(feeds, pool, running, AHEAD * n_workers)
                if not running:
                    return
                _take_in(feeds, running)
                tell(sum((f.size or UNKNOWN) * f.fraction() for f in feeds.values()) / max(expected, 1.0))
        except BaseException:
            for future in running:
                future.cancel()
            raise


def _give_out(feeds: dict[Any, Feed], pool: Executor, running: dict[Future[Part], Any], most: int) -> None:
    """Round and round the feeds, so that no domain is left for the end."""
    wanting = list(feeds)
    while wanting and len(running) < most:
        for name in list(wanting):
            if len(running) >= most:
                return
            with naming(name):
                job = feeds[name].next()
            if job is None:
                wanting.remove(name)
            else:
                running[pool.submit(parts.make, job[1])] = (name, *job)


def _take_in(feeds: dict[Any, Feed], running: dict[Future[Part], tuple[Any, int, Job]]) -> None:
    ended, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in [future for future in running if future in ended]:  # in the order given out: of errors the first
        name, index, job = running.pop(future)
        try:
            part = future.result()
        except BrokenProcessPool:
            raise CorpusError(
                "a worker died while it tokenised (out of memory, or a script of yours that lacks its "
                "`if __name__ == '__main__':`); what is done is kept: run the same command again"
            ) from None
        except Exception as error:
            cause = getattr(error, "cause", error)  # Ray wraps what a task raised
            if isinstance(cause, SpaceError):
                raise of_domain(name, cause) from None
            raise
        if not part.ids.is_file():
            raise CorpusError(
                f"{part.ids}: another machine made it, but it is not seen from here: put RAYMIX_CACHE on a path that "
                "every node shares"
            )
        feeds[name].done(index, part, job.chunk.size)


@contextmanager
def executor(workers: int | None, expected: float, folder: Path) -> Iterator[tuple[Executor, int]]:
    """Who makes the parts in a folder, and how many at a time."""
    if workers is None and cluster_address():
        from raymix.corpus.on_ray import ray_executor

        with ray_executor(folder) as found:
            if found is not None:
                yield found
                return
    cores = workers or min(len(os.sched_getaffinity(0)), int(expected / SMALLEST))  # one a chunk at most
    if cores <= 1:
        yield SerialExecutor(), 1
        return
    context = multiprocessing.get_context("spawn")  # threads and locks of this process stay its own
    end, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(cores, context, _start_worker, (end,))
    try:
        yield pool, cores
    except BaseException:
        ours.close()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


def cluster_address() -> str | None:
    """The cluster that RAY_ADDRESS names; none where it is empty or, in Ray's words for this machine alone, `local`."""
    named = os.environ.get("RAY_ADDRESS")
    return None if named in ("", "local") else named


def ray_folder() -> Path:
    """Where Ray keeps its logs and sockets on this machine, in a folder of its own."""
    named = os.environ.get("TMPDIR", "/tmp") if sys.platform == "linux" else "/tmp"
    return Path(os.environ.get("RAY_TMPDIR", named))


class SerialExecutor(Executor):
    """In this process, one after the other."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future that has its result already."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _start_worker(end: Any) -> None:
    """Ctrl-C is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    end_with_parent(end)


def end_with_parent(end: Any) -> None:
    """Have this process end when the other end of the pipe is closed: by the parent, or with it, however it dies."""

    def until_the_other_end_is_closed() -> None:
        end.poll(None)
        os._exit(1)

    threading.Thread(target=until_the_other_end_is_closed, daemon=True).start()
