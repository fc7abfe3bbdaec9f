"""The same parts as Ray tasks: where RAY_ADDRESS names a cluster, its cores tokenise.

Every node has to see the sources and the cache (RAYMIX_CACHE).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

import ray

RETRIES = 3  # of a task whose node died: a part is made again, or found finished


class RayExecutor(Executor):
    """One Ray task per call, one core each."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future of the task's result."""
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(fn)
        future: Future[Any] = task.remote(*args, **kwargs).future()
        return future


@contextmanager
def ray_executor() -> Iterator[tuple[Executor, int]]:
    """The cluster, joined if it is not yet, and its number of cores."""
    ours = not ray.is_initialized()
    if ours:
        environment = {"TOKENIZERS_PARALLELISM": "false"}
        ray.init(
            address=os.environ["RAY_ADDRESS"],
            runtime_env={"env_vars": environment},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        yield RayExecutor(), max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        if ours:
            ray.shutdown()
