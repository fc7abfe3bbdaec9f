"""One run on several devices of a node: every process takes a part of each batch, and gradients are averaged.

The plan, the masks and the updates are the same everywhere, so all processes hold the same weights; the first reports
and saves. Gradients are averaged in one message after the backward pass: simpler than overlapping the two, and on one
node a few percent slower at most. Tested with gloo on CPU processes; with nccl not yet measured on a GPU.
"""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from raymix.corpus.workers import end_with_parent

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # the others wait while the first evaluates and saves


@dataclass(frozen=True)
class World:
    """Which process of how many this is."""

    rank: int = 0
    size: int = 1

    def rows(self, n_rows: int) -> slice:
        """This process's part of a batch.

        Raises:
            ValueError: the batch cannot be divided evenly.
        """
        if n_rows % self.size:
            raise ValueError(f"a batch of {n_rows} sequences cannot be divided among {self.size} devices: change it")
        part = n_rows // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def mean(self, loss: Tensor, params: Sequence[Tensor]) -> Tensor:
        """Average the gradients of `params` over all processes, in place; returns the average of `loss`."""
        if self.size == 1:
            return loss
        grads = [param.grad for param in params if param.grad is not None]
        flat = torch.cat([loss.reshape(1), *(grad.reshape(-1) for grad in grads)])
        dist.all_reduce(flat)
        flat /= self.size
        for grad, mean in zip(grads, torch.split(flat[1:], [grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view_as(grad))
        return flat[0]

    def in_turn(self, read: Callable[[], T]) -> T:
        """What `read` gives; the first process reads before the others, who find the files that it leaves."""
        if self.rank:
            dist.barrier()
        found = read()
        if not self.rank and self.size > 1:
            dist.barrier()
        return found


ALONE = World()


def across(size: int, device: str, rows: Callable[..., Iterator[Any]], **arguments: Any) -> Iterator[Any]:
    """`rows(**arguments, device=..., world=...)` in `size` processes, this one the first; yields what the first does.

    `rows` is a function of a module, and its arguments can be pickled to a process of one's own making. `device` is
    "cpu", or "cuda" for one GPU each.

    Raises:
        ValueError: there are fewer GPUs than processes.
    """
    if device == "cuda" and (seen := torch.cuda.device_count()) < size:  # the others would end, and this one wait
        raise ValueError(
            f"a trial was given {size} GPUs, and sees {seen}: of the slices of a GPU (MIG) a process sees one alone; "
            "say gpu: 1 in `resources` of the ladder"
        )
    with tempfile.TemporaryDirectory(prefix="raymix-ranks-") as folder:
        meeting = f"file://{folder}/meeting"
        context = multiprocessing.get_context("spawn")
        end, ours = context.Pipe(duplex=False)
        others = [
            context.Process(target=_other, args=(end, rank, size, meeting, device, rows, arguments), daemon=True)
            for rank in range(1, size)
        ]
        for process in others:
            process.start()
        try:
            yield from _joined(0, size, meeting, device, rows, arguments)
            for process in others:
                process.join()
        finally:
            for process in others:
                process.kill()
            ours.close()


def _other(end: Any, *arguments: Any) -> None:
    """A process beside the first: it would wait for hours, with its GPU, for one that was killed."""
    end_with_parent(end)
    torch.set_num_threads(1)
    for _ in _joined(*arguments):
        pass  # the first process has the same rows


def _joined(
    rank: int, size: int, meeting: str, device: str, rows: Callable[..., Iterator[Any]], arguments: dict[str, Any]
) -> Iterator[Any]:
    backend = "nccl" if device == "cuda" else "gloo"
    own = f"cuda:{rank}" if device == "cuda" else device
    if device == "cuda":
        torch.cuda.set_device(own)  # or pinned memory and barriers take memory of the first GPU, from every process
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield from rows(**arguments, device=own, world=World(rank, size))
    except BaseException:
        _leave()
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        Path(meeting.removeprefix("file://")).unlink(missing_ok=True)


def _leave() -> None:
    """Away without the others, who may wait for this process in a message: with nccl an orderly end waits for them.

    So it is when the first process alone is told to stop, or finds a loss that is not finite; the others are then
    killed. Not yet measured on a GPU.
    """
    if dist.get_backend() == "nccl":
        dist.distributed_c10d._abort_process_group()
