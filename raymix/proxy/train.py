"""Train one proxy on one mixture and say its losses: shards + mixture -> rows of the observation table.

The loop is plain: no trainer, no scheduler objects, no logits kept. With a folder for checkpoints a run that was
killed goes on where it was last saved, and gives the rows it would have given: on a CPU to the last bit.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raymix.corpus.shards import Corpus
from raymix.proxy import model as models
from raymix.proxy.checkpoint import Checkpoints, Interrupted, Snapshot, identity
from raymix.proxy.compiled import worth_compiling
from raymix.proxy.distributed import ALONE, World
from raymix.proxy.downstream import measure
from raymix.proxy.evaluate import EvalLoss, evaluate, held_out, not_finite
from raymix.proxy.going_on import Before, planned
from raymix.proxy.loop import Diverged, Run
from raymix.proxy.plan import Batches
from raymix.proxy.recipe import resolve
from raymix.proxy.row import from_json, row_of, to_json
from raymix.proxy.shape import ProxyShape
from raymix.simplex import Array, as_mixture
from raymix.space import SearchSpace
from raymix.stages import Stage

__all__ = ["Diverged", "Interrupted", "Run", "train_proxy"]


def train_proxy(
    corpus: Corpus,
    space: SearchSpace,
    mixture: Array | Sequence[Stage],
    n_params: float,
    n_tokens: float,
    seed: int,
    device: str | None = None,
    threads: int | None = None,
    attention: str | None = None,
    checkpoints: Checkpoints | None = None,
    before: Before | None = None,
    keep: Path | None = None,
    world: World = ALONE,
    gpu_share: float = 1.0,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[dict[str, Any]]:
    """One row per checkpoint, as soon as it is reached, keyed by columns of the observation table.

    Where the recipe starts from a trained model, its losses come first, in a row at n_tokens 0. A run in stages has a
    row at the end of each, with the cumulative `mixture/<domain>` up to there (raymix/stages.py).

    Args:
        corpus: the tokens, from `raymix.corpus.prepare`.
        space: names, recipe and target.
        mixture: shares (K,) in the order of `space.domains`, sum 1; or stages, whose tokens sum to `n_tokens`.
        n_params: size asked for; the rows carry the model's real count.
        n_tokens: length of the whole run.
        seed: of weights, data and masks.
        device: "cpu", "cuda", "cuda:1"; a GPU where there is one if left out.
        threads: CPU threads; as torch finds them if left out. Sets the process's number.
        attention: one of `model.ATTENTIONS`; the fastest if left out.
        checkpoints: where to save the run and take it up again; rows reported before come again, the same. Its end is
            saved too where `checkpoints.keep_end` says so.
        before: a shorter run of this mixture, size and seed that this one goes on from. Its rows do not come again, and
            `flops` and `seconds` are what is added to it.
        keep: a folder for the trained model as it was evaluated at the end, as transformers reads it.
        world: which process of how many this is, where several train one proxy (raymix/proxy/distributed.py).
        gpu_share: of the memory of its GPU, where others train there too; decides how many sequences are read at once.
        alive: called after every step and every evaluated domain, by the first process alone.

    Raises:
        ValueError: shares or stages that are none.
        Diverged: the loss is not finite or worse than guessing; the message is the reason for the record.
        Interrupted: `checkpoints.stopping` was set, and the run is saved.
    """
    started = time.perf_counter()
    if threads is not None:
        torch.set_num_threads(threads)

    def fresh(length: float) -> Batches:
        shape = resolve(space.recipe, n_params, length, corpus.vocab, space.folder)
        return _plan(corpus, space, mixture, seed, shape)

    batches = planned(fresh, n_tokens, before.lengths if before else ())
    shape, first = batches.shape, batches.before.shape.n_steps if batches.before else 0
    run_id = identity(*_what_decides(batches), corpus.hash)
    found = world.in_turn(lambda: _taken_up(batches, corpus, checkpoints, before))
    # What decides the bits is what the run began with, not what would be chosen now.
    on = models.pick_device(device)
    compiled = found.notes["compiled"] if found else worth_compiling(space.recipe.compile, shape, on)
    run = Run(shape, seed, on, found.notes["attention"] if found else attention, compiled, world, gpu_share)
    training = Training(space, corpus, batches, run, held_out(corpus, space), started, alive)
    if found is not None:
        training.restore(found)
    yield from training.rows
    if shape.init_from is not None and not training.rows and not first and world.rank == 0:
        yield training.row(0)
    for step in range(found.step if found else 0, shape.n_steps):
        run.step(step, batches[step])
        if world.rank == 0:
            alive()
        if step + 1 in shape.checkpoint_steps:
            run.look(step)
            if world.rank == 0 and step + 1 > first:
                yield training.row(step + 1)
        if checkpoints is not None and world.rank == 0 and checkpoints.due() and step + 1 < shape.n_steps:
            checkpoints.save(run_id, training.snapshot(step + 1))
            if checkpoints.stopping:
                raise Interrupted(f"asked to stop; saved at step {step + 1} of {shape.n_steps}")
    if checkpoints is not None and checkpoints.keep_end and world.rank == 0:
        checkpoints.save(run_id, training.snapshot(shape.n_steps))
    if keep is not None and world.rank == 0:
        run.swap()
        run.model.save_pretrained(keep)
        run.swap()


def _taken_up(
    batches: Batches, corpus: Corpus, checkpoints: Checkpoints | None, before: Before | None
) -> Snapshot | None:
    """Where this run was left, else where the shorter one was, whose rows do not come again."""
    found = None if checkpoints is None else checkpoints.latest(identity(*_what_decides(batches), corpus.hash))
    if found is not None or batches.before is None or before is None or before.checkpoints is None:
        return found
    found = before.checkpoints.latest(identity(*_what_decides(batches.before), corpus.hash))
    return found and replace(found, notes={**found.notes, "rows": [], "seconds": 0.0})


def _what_decides(batches: Batches) -> list[Any]:
    """Of the weights that a run ends with, but for the corpus: a snapshot of another run must not be taken up."""
    stages = [[*stage.mixture_K, stage.n_tokens] for stage in batches.stages]
    found = [asdict(batches.shape), stages, batches.unique_K.tolist(), batches.seed]
    return found if batches.before is None else [*found, _what_decides(batches.before)]


def _plan(
    corpus: Corpus, space: SearchSpace, mixture: Array | Sequence[Stage], seed: int, shape: ProxyShape
) -> Batches:
    if isinstance(mixture, np.ndarray):
        return Batches.of(corpus, space, as_mixture(mixture, space.domain_names), seed, shape)
    stages = [Stage(as_mixture(stage.mixture_K, space.domain_names), stage.n_tokens) for stage in mixture]
    ends = np.cumsum([stage.n_tokens for stage in stages])
    if not abs(ends[-1] - shape.n_tokens) <= shape.tokens_per_step:
        raise ValueError(f"the stages have {ends[-1]:g} tokens, the run {shape.n_tokens}: they must be the same")
    steps = np.maximum(1, np.round(ends / ends[-1] * shape.n_steps)).astype(int)
    shape = replace(shape, checkpoint_steps=tuple(sorted({int(step) for step in steps})))
    return Batches.of(corpus, space, stages[0].mixture_K, seed, shape, stages)


@dataclass
class Training:
    """What a row is made of, and the rows so far."""

    space: SearchSpace
    corpus: Corpus
    batches: Batches
    run: Run
    sequences: dict[str, Any]
    started: float
    alive: Callable[[], None]
    rows: Sequence[dict[str, Any]] = ()

    def row(self, n_steps: int) -> dict[str, Any]:
        """Evaluate after `n_steps` steps."""
        ended = n_steps == self.run.shape.n_steps
        losses, metrics = self._measured(downstream=ended)
        row = row_of(self.space, self.corpus, self.batches, n_steps, losses) | metrics
        row["seconds"] = time.perf_counter() - self.started
        self.rows = [*self.rows, row]
        return row

    def snapshot(self, step: int) -> Snapshot:
        """Everything that decides how the run goes on."""
        seconds = time.perf_counter() - self.started
        notes: dict[str, Any] = {"rows": [to_json(row) for row in self.rows], "seconds": seconds}
        notes |= {"attention": self.run.attention, "compiled": self.run.compiled}
        return Snapshot(step, self.run.named, self.run.state(), notes)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from there; the seconds go on too."""
        self.run.restore(snapshot.weights, snapshot.rest)
        self.rows = [from_json(row) for row in snapshot.notes["rows"]]
        self.started -= snapshot.notes["seconds"]

    def _measured(self, downstream: bool) -> tuple[dict[str, EvalLoss], dict[str, float]]:
        """Losses, and with `downstream` the metrics that are tasks."""
        run = self.run
        run.swap()
        with torch.compiler.set_stance("force_eager"):  # other shapes than the step's: compiled anew, to no use
            found = evaluate(run.model, self.sequences, run.device, run.dtype, run.shape.mask_token, self.alive)
            if (why := not_finite(found)) is not None:
                raise Diverged(why)
            metrics = (
                measure(self.space, self.corpus, run.model, run.device, run.dtype, self.alive) if downstream else {}
            )
        run.swap()
        return found, metrics
