"""Train a stack of proxies: shards + several mixtures -> the rows that each of them would have had alone.

The stack has one clock, one checkpoint and one sign of life. A proxy that diverges has a last result that says why; its
place in the stack stays, so that the numbers of the others are the same whatever becomes of it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from raymix.corpus.shards import Corpus
from raymix.proxy import model as models
from raymix.proxy.checkpoint import Checkpoints, Interrupted, Snapshot, identity
from raymix.proxy.evaluate import evaluate, held_out, not_finite
from raymix.proxy.loop import LOOK_EVERY
from raymix.proxy.plan import Batches
from raymix.proxy.recipe import resolve
from raymix.proxy.row import from_json, row_of, to_json
from raymix.proxy.stacked import Stack
from raymix.simplex import Array, as_mixture
from raymix.space import SearchSpace


class Job(NamedTuple):
    """One proxy of a stack."""

    mixture_K: Array
    seed: int


class Result(NamedTuple):
    """A row of a proxy's table, or why it has none."""

    proxy: int
    """Its place among the jobs."""
    row: dict[str, Any]
    reason: str = ""


def train_stacked(
    corpus: Corpus,
    space: SearchSpace,
    jobs: Sequence[Job],
    n_params: float,
    n_tokens: float,
    device: str | None = None,
    threads: int | None = None,
    attention: str | None = None,
    checkpoints: Checkpoints | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """The rows that `train_proxy` would give for each of `jobs`, trained together; arguments as there.

    `seconds` of a row are those of the stack up to there, divided by the number of jobs: over all jobs they sum to what
    was spent. With checkpoints, results reported before come again, the same.

    Raises:
        ValueError: the recipe is of an encoder, or starts from a trained model.
        Interrupted: `checkpoints.stopping` was set, and the stack is saved.
    """
    started = time.perf_counter()
    if threads is not None:
        torch.set_num_threads(threads)
    shape = resolve(space.recipe, n_params, n_tokens, corpus.vocab, space.folder)
    if shape.mask_token is not None or shape.init_from is not None:
        raise ValueError("only decoders from scratch are stacked: train the others one by one")
    mixtures = [as_mixture(job.mixture_K, space.domain_names) for job in jobs]
    plans = [Batches.of(corpus, space, mix_K, job.seed, shape) for mix_K, job in zip(mixtures, jobs, strict=True)]
    about = [[mix_K.tolist(), job.seed] for mix_K, job in zip(mixtures, jobs, strict=True)]
    run_id = identity("stack", asdict(shape), about, plans[0].unique_K.tolist(), corpus.hash)
    found = checkpoints.latest(run_id) if checkpoints is not None else None
    attention = found.notes["attention"] if found else attention
    stack = Stack(shape, [job.seed for job in jobs], models.pick_device(device), attention)
    training = Training(space, corpus, plans, stack, held_out(corpus, space), started, alive)
    if found is not None:
        training.restore(found)
    yield from training.results
    for step in range(found.step if found else 0, shape.n_steps):
        if not training.left:
            return
        stack.step(step, np.stack([plan[step] for plan in plans]))
        alive()
        checkpoint = step + 1 in shape.checkpoint_steps
        if checkpoint or (step + 1) % LOOK_EVERY == 0:
            yield from training.look(step)
        if checkpoint:
            yield from training.rows(step + 1)
        if checkpoints is not None and checkpoints.due() and step + 1 < shape.n_steps:
            checkpoints.save(run_id, training.snapshot(step + 1))
            if checkpoints.stopping:
                raise Interrupted(f"asked to stop; saved at step {step + 1} of {shape.n_steps}")


@dataclass
class Training:
    """What results are made of, and the results so far."""

    space: SearchSpace
    corpus: Corpus
    plans: Sequence[Batches]
    stack: Stack
    sequences: dict[str, Any]
    started: float
    alive: Callable[[], None]
    results: list[Result] = field(default_factory=list)

    @property
    def left(self) -> list[int]:
        """The proxies that have not diverged."""
        gone = {result.proxy for result in self.results if result.reason}
        return [proxy for proxy in range(len(self.plans)) if proxy not in gone]

    def look(self, step: int) -> Iterator[Result]:
        """Those that have diverged since the last look."""
        found, left = self.stack.diverged(step), self.left
        for proxy in left:
            if proxy in found:
                yield self._kept(Result(proxy, {}, found[proxy]))

    def rows(self, n_steps: int) -> Iterator[Result]:
        """Evaluate each after `n_steps` steps."""
        stack = self.stack
        for proxy in self.left:
            model = stack.member(proxy)
            losses = evaluate(model, self.sequences, stack.device, stack.dtype, alive=self.alive)
            if (why := not_finite(losses)) is not None:
                yield self._kept(Result(proxy, {}, why))
                continue
            row = row_of(self.space, self.corpus, self.plans[proxy], n_steps, losses)
            row["seconds"] = (time.perf_counter() - self.started) / len(self.plans)
            yield self._kept(Result(proxy, row))

    def snapshot(self, step: int) -> Snapshot:
        """Everything that decides how the stack goes on."""
        results = [[result.proxy, to_json(result.row), result.reason] for result in self.results]
        notes = {"results": results, "seconds": time.perf_counter() - self.started, "attention": self.stack.attention}
        return Snapshot(step, self.stack.named, self.stack.state(), notes)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from there; the seconds go on too."""
        self.stack.restore(snapshot.weights, snapshot.rest)
        self.results = [Result(proxy, from_json(row), why) for proxy, row, why in snapshot.notes["results"]]
        self.started -= snapshot.notes["seconds"]

    def _kept(self, result: Result) -> Result:
        self.results.append(result)
        return result
