"""The search space: what a user writes, checked once.

Frozen pydantic models. Unknown keys are errors with the nearest valid name; the hash of the resolved space
identifies a study. A mixture has no class: inside it is an array in the order of `space.domains`, at the
edges a `dict[str, float]`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from raymix import simplex
from raymix.simplex import Array, Polytope
from raymix.space_checks import check_confirm, check_ladder, check_names, check_prior, check_sources
from raymix.space_parts import (
    Constraints,
    Domain,
    EvalDomain,
    Frozen,
    Metric,
    Objective,
    ProxyRung,
    Rung,
    Scale,
    Source,
    Target,
    at_target,
    by_name,
)
from raymix.space_polytope import allowed
from raymix.space_recipe import Recipe, Tokenizer, TrainTokenizer, tokenizer_by_name
from raymix.space_study import Budget, Confirm, Reuse, check_stacks, confirm_by_word, reuse_by_path
from raymix.yaml12 import SpaceError, apply_settings, explain, read_yaml

__all__ = [
    "Domain", "EvalDomain", "Metric", "Recipe", "Rung", "Scale", "SearchSpace", "Source", "SpaceError", "Target",
    "Tokenizer",
]  # fmt: skip

NAMED = 5  # shares of the one mixture that is allowed, the largest first
# Of a recipe:
HOW_IT_IS_RUN = ("micro_batch", "compile", "checkpoint_seconds", "hang_seconds", "keep_weights", "promote")


class SearchSpace(Frozen):
    """Everything a study needs to know, in the order in which it is read."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: str = Field(min_length=1)
    domains: tuple[Domain, ...] = Field(min_length=1)
    eval_domains: tuple[EvalDomain, ...] = Field(min_length=1)
    metrics: tuple[Metric, ...] = ()
    """Numbers beside the losses: downstream tasks, or whatever a trainer of yours reports."""
    objective: Objective = Objective()
    constraints: Constraints = Constraints()
    ladder: tuple[ProxyRung, ...] = Field(min_length=1)
    target: Target
    budget: Budget = Budget()
    confirm: Confirm | None = None
    reuse: tuple[Reuse, ...] = Field(default=(), alias="from")
    """Other studies and tables whose observations the law sees too."""
    recipe: Recipe = Recipe()
    tokenizer: Tokenizer = Tokenizer(train=TrainTokenizer())
    allow_eval_overlap: bool = False
    """Accept eval documents that also stand in the training text."""

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @classmethod
    def load(cls, path: str | Path, settings: Sequence[str] = ()) -> Self:
        """Read a YAML file; `settings` are `dotted.key=value` strings that win over it.

        Raises:
            SpaceError: the file is missing, not YAML, or not a valid space; the message names the culprit.
        """
        path = Path(path)
        return cls.parse(apply_settings(read_yaml(path), settings), folder=path.resolve().parent)

    @classmethod
    def parse(cls, raw: Mapping[str, Any], folder: Path | None = None) -> Self:
        """Check plain data; `folder` is where relative file names start (default: the working directory)."""
        try:
            space = cls.model_validate(raw)
        except ValidationError as error:
            raise SpaceError(explain(error, cls)) from None
        if folder is not None:
            space._folder = folder
        return space

    @property
    def folder(self) -> Path:
        """Where relative file names of sources start."""
        return self._folder

    # What may be written shorter:
    _domains = field_validator("domains", "eval_domains", mode="before")(by_name)
    _tokenizer = field_validator("tokenizer", mode="before")(tokenizer_by_name)
    _confirm = field_validator("confirm", mode="before")(confirm_by_word)
    _reuse = field_validator("reuse", mode="before")(reuse_by_path)
    _ladder = model_validator(mode="before")(at_target)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for check in (check_names, check_sources, check_prior, check_ladder, check_confirm):
            check(self)
        check_stacks(self.ladder, self.recipe, self.budget, self.metrics)
        self.polytope()  # raises where nothing is feasible
        return self

    @property
    def domain_names(self) -> tuple[str, ...]:
        """The order of every mixture."""
        return tuple(domain.name for domain in self.domains)

    @property
    def eval_names(self) -> tuple[str, ...]:
        """The order of every row of losses: eval domains, then metrics."""
        return (*(eval_domain.name for eval_domain in self.eval_domains), *self.metric_names)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Columns `metric/<name>` of a row."""
        return tuple(metric.name for metric in self.metrics)

    @property
    def own_M(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """For each eval domain the index of the domain it is held out from, or -1, as for a metric."""
        names = self.domain_names
        own = [-1 if e.own is None else names.index(e.own) for e in self.eval_domains]
        return np.asarray([*own, *(-1 for _ in self.metrics)], dtype=np.int64)

    @property
    def weights_M(self) -> Array:
        """Weights of the objective over eval domains and metrics, sum 1."""
        given = self.objective.weights
        if given is None:
            return np.repeat([1 / len(self.eval_domains), 0.0], [len(self.eval_domains), len(self.metrics)])
        return simplex.normalise(np.asarray([given.get(name, 0.0) for name in self.eval_names]))

    @property
    def available_K(self) -> Array:
        """Unique tokens per domain; infinite where unknown."""
        return np.asarray([d.available_tokens or np.inf for d in self.domains])

    @property
    def trains_proxies(self) -> bool:
        """Whether the space names text to train on (else somebody else trains: ask and tell)."""
        return self.domains[0].source is not None

    @property
    def names_proxies(self) -> bool:
        """Whether the ladder says what is trained; not where it is the target alone, and somebody else trains."""
        return self.trains_proxies or [rung.scale for rung in self.ladder] != [self.target.scale]

    def prior_K(self) -> Array:
        """The mixture used today: as given, else proportional to available tokens, else uniform."""
        if self.domains[0].prior is not None:
            return simplex.normalise(np.asarray([d.prior or 0.0 for d in self.domains]))
        if np.isfinite(self.available_K).all():
            return simplex.normalise(self.available_K)
        return np.full(len(self.domains), 1 / len(self.domains))

    def polytope(self, target: Rung | None = None) -> Polytope:
        """The mixtures allowed: bounds, groups, and epoch caps at the target scale.

        Raises:
            ValueError: nothing is feasible; the message says which constraints clash.
        """
        target = target or self.target
        max_epochs = getattr(target, "max_epochs", None) or self.target.max_epochs
        return allowed(self.domains, self.constraints.groups, self._fixed(), max_epochs, target.n_tokens)

    def check_choice(self) -> None:
        """Refuse to search where there is nothing to choose.

        Raises:
            SpaceError: one mixture alone is allowed.
        """
        polytope = self.polytope()
        if polytope.is_point:
            only = self.shares(simplex.vertex_along(polytope, np.zeros(len(self.domains))))
            largest = sorted(only, key=lambda name: -only[name])[:NAMED]
            said = ", ".join(f"{name} {only[name]:.4g}" for name in largest) + (", ..." if len(only) > NAMED else "")
            raise SpaceError(
                f"{self.name}: only one mixture is allowed ({said}), so there is nothing to search: widen min_share, "
                "max_share, constraints.groups or target.max_epochs"
            )

    def seen_K(self, mix_K: Array) -> Array:
        """Shares (K,) in the whole of a run on `mix_K`: its stages with a mixture of their own count too."""
        fixed_K, free = self._fixed()
        return np.asarray(fixed_K + free * mix_K)

    def _fixed(self) -> tuple[Array, float]:
        """The share of a run that stages fix for each domain (K,), and that left to the trial's own mixture."""
        parts = [(part.tokens, self.mixture(part.mixture)) for part in self.recipe.stages if part.mixture is not None]
        fixed_K = sum((tokens * mix_K for tokens, mix_K in parts), np.zeros(len(self.domains)))
        return fixed_K, 1 - sum(tokens for tokens, _ in parts)

    def mixture(self, shares: Mapping[str, float]) -> Array:
        """A `{domain: share}` mapping as a checked array (K,); domains left out are 0.

        Raises:
            ValueError: an unknown domain, a negative or non-finite share, or a sum other than 1.
        """
        for name in shares:
            if name not in self.domain_names:
                raise ValueError(f"{name!r} is not a domain of {self.name!r} ({', '.join(self.domain_names)})")
        return simplex.as_mixture([shares.get(name, 0.0) for name in self.domain_names], self.domain_names)

    def losses_of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns `loss/<name>` of a reported row, None where it has none; of a metric from `metric/<name>`.

        Raises:
            ValueError: a metric is above its best.
        """
        found = {f"loss/{name}": row.get(f"loss/{name}") for name in self.eval_names}
        given = ((metric, row.get(f"metric/{metric.name}")) for metric in self.metrics)
        return found | {f"loss/{metric.name}": metric.loss(value) for metric, value in given if value is not None}

    def shares(self, mix_K: Array) -> dict[str, float]:
        """An array (K,) as `{domain: share}`."""
        return {name: float(share) for name, share in zip(self.domain_names, mix_K, strict=True)}

    def plain(self) -> dict[str, Any]:
        """As plain data that `parse` reads back, without what is left out."""
        raw = self.model_dump(mode="json", exclude_none=True)
        raw["target"]["max_epochs"] = self.target.max_epochs  # none is no cap, left out it is 4
        return raw

    def with_available(self, available: Mapping[str, float]) -> Self:
        """The resolved space: counted tokens filled in where the user gave none."""
        raw = self.plain()
        for domain in raw["domains"]:
            domain.setdefault("available_tokens", float(available[domain["name"]]))
        return self.parse(raw, folder=self._folder)

    def hash(self) -> str:
        """sha256 over what changes the meaning of an observation: all but objective, constraints and how it is run."""
        left_out: dict[str, Any] = dict.fromkeys(("budget", "objective", "constraints", "confirm", "reuse"), True)
        recipe = {*HOW_IT_IS_RUN, *(("precision",) if self.recipe.precision == "auto" else ())}
        left_out = {**left_out, "recipe": recipe, "ladder": {"__all__": {"resources", "stack"}}}
        kept = self.model_dump(mode="json", exclude=left_out | ({} if self.metrics else {"metrics": True}))
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
