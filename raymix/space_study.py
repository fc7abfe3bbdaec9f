"""The parts of a search space that say how a study is run: what it may spend, confirm, and take from others."""

import json
import math
from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from raymix.space_parts import Frozen, Limit, Metric, ProxyRung, Rung
from raymix.space_recipe import Recipe

DEFAULT_TRIALS = 24
LIMITS = ("trials", "flops", "gpu_hours", "hours")  # of a budget
TABLES = (".csv", ".tsv", ".gz", ".parquet")
Published = Literal["prior", "uniform", "proportional", "temperature 2", "unimax"]
PROPOSAL = "proposal"  # what a confirmation calls the mixture that the study proposes


class Budget(Frozen):
    """What a study may spend, confirmation included: any of the first four; the first exhausted ends the search."""

    trials: int | None = Field(default=None, ge=1)
    """24 if nothing else is given."""
    flops: Limit | None = None
    """Training FLOPs, as the recipe counts them; 6 N D for a trainer of somebody else."""
    gpu_hours: Limit | None = None
    """Hours of trials, summed, each times the GPUs (or the part of one) that `resources` of its rung name; once where
    they name none."""
    hours: Limit | None = None
    """Hours for which the study ran, over all its runs."""
    per_round: int = Field(default=8, ge=1)
    """Trials proposed together; the law is refitted between rounds."""
    replicates: int = Field(default=2, ge=0)
    """Trials of the first round that repeat the prior mixture under another seed, to measure the noise."""
    stop_early: bool = True
    """End the search when the law expects less from more trials than the noise in the mean of those it has."""
    stop_poor: bool = False
    """End a trial at a checkpoint where it is clearly worse than those of completed rounds."""

    def limits(self) -> dict[str, float]:
        """The limits that hold, by name; trials where none is given."""
        return self._finite() or {"trials": float(DEFAULT_TRIALS)}

    @property
    def given(self) -> bool:
        """Whether any limit was set; ask and tell have none otherwise."""
        return bool(self._finite())

    def _finite(self) -> dict[str, float]:
        values = {name: getattr(self, name) for name in LIMITS}
        return {name: float(value) for name, value in values.items() if value is not None and value < math.inf}


class Confirm(Frozen):
    """The last part of the budget: the proposal and baselines trained side by side, on the same seeds."""

    seeds: int = Field(default=3, ge=1)
    """Runs of each mixture."""
    baselines: tuple[Published, ...] = ("prior",)
    mixtures: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Baselines of your own by name, `{domain: share}`: another method's answer, say."""
    scale: Rung | None = None
    """The largest that the rest of the budget pays for if left out: raymix/study/confirm.py."""
    share: float = Field(default=0.25, gt=0, lt=1)
    """Part of a budget in FLOPs or hours that is kept for it; of a budget in trials it takes as many as it needs."""

    @property
    def runs(self) -> int:
        """Trials it takes."""
        return self.seeds * (1 + len(self.baselines) + len(self.mixtures))

    @model_validator(mode="after")
    def _has_baselines(self) -> Self:
        if not self.baselines or len(set(self.baselines)) < len(self.baselines):
            raise ValueError("confirm.baselines names at least one baseline, and none twice")
        if taken := sorted(set(self.mixtures) & {*get_args(Published), PROPOSAL}):
            raise ValueError(f"confirm.mixtures: {taken[0]!r} is the name of another: choose one of your own")
        return self


class Reuse(Frozen):
    """Observations of another study or table, and how its domains became those of this space."""

    study: str | None = None
    """A study directory; relative to the file of the space."""
    table: str | None = None
    """A file in the exchange form."""
    rename: dict[str, str] = Field(default_factory=dict)
    """Old domain: new domain. Also says that two domains of one name are the same text."""
    split: dict[str, tuple[str, ...] | dict[str, float]] = Field(default_factory=dict)
    """Old domain: the new ones it was cut into, with their shares of it, or in proportion to their tokens."""
    merge: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """New domain: the old ones that were put together in it."""
    rename_evals: dict[str, str] = Field(default_factory=dict)
    """Old eval domain: new eval domain."""
    drop_below: float = Field(default=0.01, ge=0, lt=0.5)
    """A row counts where domains that are no more had less than this share in all; the rest is scaled up."""

    @property
    def source(self) -> str:
        """The path."""
        return self.study or self.table or ""

    @property
    def key(self) -> str:
        """What identifies this entry in the records of a study: all that it says."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.study is None) == (self.table is None):
            raise ValueError("an entry of `from` names either a study or a table")
        for kind, all_parts in (("split", self.split), ("merge", self.merge)):
            for name, parts in all_parts.items():
                if not parts:
                    raise ValueError(f"{kind}: {name!r} names no parts")
                twice = [part for part in parts if list(parts).count(part) > 1]
                if twice:
                    raise ValueError(f"{kind}: {name!r} names {twice[0]!r} twice")
        for name, shares in ((n, parts) for n, parts in self.split.items() if isinstance(parts, dict)):
            for part, share in shares.items():
                if share < 0:
                    raise ValueError(f"split: the share of {part!r} in {name!r} is {share:g}, it must be 0 or more")
            if not sum(shares.values()):
                raise ValueError(f"split: the shares of {name!r} are all 0")
        return self


def alone_because(
    rung: ProxyRung, ladder: Sequence[ProxyRung], recipe: Recipe, budget: Budget, metrics: Sequence[Metric]
) -> str | None:
    """What keeps trials of a rung from being trained as a stack; None where nothing does."""
    gpus = rung.resources.gpu if rung.resources else 0
    tasks = [metric.name for metric in metrics if metric.task is not None]
    longer = any(other.n_params == rung.n_params and other.n_tokens > rung.n_tokens for other in ladder)
    reasons = {
        "recipe.family is bert, and only decoders are stacked": recipe.family == "bert",
        "recipe.init_from is given, and only proxies from scratch are stacked": recipe.init_from is not None,
        "recipe.micro_batch is given, and a stack takes whole batches": recipe.micro_batch is not None,
        "recipe.compile is always, and a stack is not compiled": recipe.compile == "always",
        "recipe.keep_weights is true, and a stack keeps none": recipe.keep_weights,
        f"metrics name a task ({', '.join(tasks)}), and a stack measures none": bool(tasks),
        "budget.stop_poor is true, and a stack ends as one": budget.stop_poor,
        "a longer run of its size may go on (recipe.promote), and a stack leaves no single one": longer
        and recipe.promotes,
        f"resources.gpu is {gpus:g}, and a stack takes one GPU at most": gpus > 1,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def check_stacks(ladder: Sequence[ProxyRung], recipe: Recipe, budget: Budget, metrics: Sequence[Metric]) -> None:
    """No stack is asked for that cannot be; else ValueError with its number, and why."""
    for rung in ladder:
        why = alone_because(rung, ladder, recipe, budget, metrics)
        if rung.stack not in ("auto", 1) and why is not None:
            raise ValueError(f"ladder: stack is {rung.stack}, but {why}: say stack: 1, or change that")


def confirm_by_word(value: Any) -> Any:
    """Yes as a confirmation by its defaults, no as none."""
    return ({} if value else None) if isinstance(value, bool) else value


def reuse_by_path(value: Any) -> Any:
    """A plain path in `from` as an entry: a table by its ending, else a study."""
    entries = value if isinstance(value, list | tuple) else [value]
    return [
        {"table" if entry.endswith(TABLES) else "study": entry} if isinstance(entry, str) else entry
        for entry in entries
    ]
