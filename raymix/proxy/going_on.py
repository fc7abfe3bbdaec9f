"""A longer run that goes on from a shorter one of the same mixture, size and seed: what a promoted trial trains.

Where learning rate and batch do not depend on the length, a run of D2 tokens begins with the run of D1: only the rest
is to be paid for. What is trained is fixed by the lengths alone. The state that the shorter run has left behind saves
time, and where it is lost the run begins anew and ends with the same weights (on a CPU to the last bit).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from raymix.proxy.checkpoint import Checkpoints
from raymix.proxy.loop import AVERAGED
from raymix.proxy.plan import Batches
from raymix.proxy.shape import ProxyShape


class Before(NamedTuple):
    """The run that a trial goes on from."""

    lengths: tuple[float, ...]
    """Tokens asked for of this run and those before it, shortest first."""
    checkpoints: Checkpoints | None = None
    """Where it has left its state."""


def going_on(shape: ProxyShape, before: ProxyShape) -> ProxyShape:
    """A run of `shape` that begins with one of `before`: its warmup and checkpoints, then those that lie behind it.

    Raises:
        ValueError: the shorter run is not the beginning of the longer.
    """
    as_long = replace(before, n_steps=shape.n_steps, checkpoint_steps=shape.checkpoint_steps)
    if replace(shape, warmup=before.warmup) != as_long or shape.schedule == "cosine" or shape.n_steps <= before.n_steps:
        raise ValueError(
            f"a run of {before.n_tokens:g} tokens is not the beginning of one of {shape.n_tokens:g}: size, batch and "
            "learning rate must be the same, and the schedule constant or wsd"
        )
    later = [step for step in shape.checkpoint_steps if step - int(AVERAGED * step) > before.n_steps]
    end = {shape.n_steps}  # also where its last tenth begins before the shorter run's end
    steps = tuple(sorted({*before.checkpoint_steps, *later, *end}))
    return replace(shape, warmup=before.warmup, checkpoint_steps=steps)


def planned(plan: Callable[[float], Batches], n_tokens: float, lengths: Sequence[float] = ()) -> Batches:
    """The batches of a run of `n_tokens`, by those of fresh runs (`plan`), after shorter ones of these lengths.

    Raises:
        ValueError: one of them is not the beginning of the next.
    """
    found: Batches | None = None
    for length in (*lengths, n_tokens):
        fresh = plan(length)
        if lengths and len(fresh.stages) > 1:
            raise ValueError("a run in stages is not the beginning of a longer one")
        found = fresh if found is None else fresh.after(found, going_on(fresh.shape, found.shape))
    assert found is not None
    return found
