"""The search space: what a user writes, checked once.

Frozen pydantic models. Unknown keys are errors with the nearest valid name; the hash of the resolved space
identifies a study. A mixture has no class: inside it is an array in the order of `space.domains`, at the
edges a `dict[str, float]`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from raymix import simplex
from raymix.simplex import Array, Polytope
from raymix.yaml12 import SpaceError, apply_settings, explain, read_yaml

__all__ = ["Domain", "EvalDomain", "Scale", "SearchSpace", "SpaceError"]


class Scale(NamedTuple):
    """One point on the scale axes: parameters without embeddings, tokens trained on."""

    n_params: float
    n_tokens: float


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Frozen):
    """Where the text of a domain comes from: exactly one of `files`, `dataset`, `builtin`."""

    files: str | tuple[str, ...] | None = None
    """Glob(s) of .jsonl, .parquet, .txt or other text files; relative to the file of the space."""
    dataset: str | None = None
    """A Hugging Face dataset: a hub name or a local dataset repository."""
    builtin: str | None = None
    """A part of the corpus that is present wherever raymix is installed: see raymix/corpus/builtin.py."""
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    text: str = "text"
    """The field of a record that holds the text."""
    megabytes: float | None = Field(default=None, gt=0)
    """Take at most this much text."""

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        given = [kind for kind in ("files", "dataset", "builtin") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a source names exactly one of files, dataset, builtin; this one names {given}")
        return self


class Domain(_Frozen):
    """A training domain: a source of text with bounds on its share."""

    name: str = Field(min_length=1)
    source: Source | None = None
    available_tokens: float | None = Field(default=None, gt=0)
    """Unique tokens at hand for the target run; counted from the source if left out."""
    prior: float | None = Field(default=None, ge=0)
    """Share in the mixture used today; proportional to available tokens if left out."""
    min_share: float = Field(default=0.0, ge=0, le=1)
    max_share: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Domain:
        if self.min_share > self.max_share:
            raise ValueError(f"domain {self.name!r}: min_share {self.min_share} > max_share {self.max_share}")
        return self


class EvalDomain(_Frozen):
    """What a proxy is evaluated on: text held out from a training domain (`own`), or a source of its own."""

    name: str = Field(min_length=1)
    own: str | None = None
    source: Source | None = None


class Objective(_Frozen):
    """What to minimise: losses over eval domains, weighted, by mean or by the worst."""

    weights: dict[str, float] | None = None
    """Weight per eval domain, normalised to sum 1; all equal if left out."""
    reduce: Literal["mean", "worst"] = "mean"
    guardrails: dict[str, float] = Field(default_factory=dict)
    """Nats by which the loss of an eval domain may exceed that of the prior mixture: `{exams: 0.0}`."""
    pull: float = Field(default=0.0, ge=0)
    """Strength of a pull to the prior: nats of objective per nat of KL divergence (Olmix, 2602.12237: .05 to .1)."""


class Group(_Frozen):
    """A bound on the summed share of several domains."""

    domains: tuple[str, ...]
    min: float = Field(default=0.0, ge=0, le=1)
    max: float = Field(default=1.0, ge=0, le=1)


class Constraints(_Frozen):
    """Linear constraints beyond the bounds of each domain."""

    groups: tuple[Group, ...] = ()


class Rung(_Frozen):
    """A proxy scale on the ladder."""

    n_params: float = Field(gt=0)
    n_tokens: float = Field(gt=0)

    @property
    def scale(self) -> Scale:
        """As a plain pair."""
        return Scale(self.n_params, self.n_tokens)


class Target(Rung):
    """The run the mixture is chosen for."""

    max_epochs: float | None = Field(default=4.0, gt=0)
    """No domain may be repeated more often than this (Muennighoff, 2305.16264: up to 4 costs little)."""


class Budget(_Frozen):
    """What the search may spend."""

    trials: int = Field(default=24, ge=1)
    per_round: int = Field(default=8, ge=1)
    """Trials proposed together; the law is refitted between rounds."""
    replicates: int = Field(default=2, ge=0)
    """Trials of the first round that repeat the prior mixture under another seed, to measure the noise."""


class Recipe(_Frozen):
    """How a proxy of a given size is trained; all else follows from `n_params` (raymix/proxy/recipe.py)."""

    family: Literal["gpt2", "llama"] = "gpt2"
    context: int = Field(default=128, ge=8)
    batch: int = Field(default=8, ge=1)
    """Sequences per step."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate; from the width of the model if left out."""
    checkpoints: int = Field(default=3, ge=1)
    """Evaluations per trial, evenly in log tokens, the last at the end."""
    eval_tokens: int = Field(default=8192, ge=1)
    """Held-out tokens per eval domain."""
    simulated_epochs: bool = True
    """Give a proxy only so many unique tokens of a domain that it repeats them as often as the target would."""


class TrainTokenizer(_Frozen):
    """Train a byte-level BPE on the domains' own text."""

    vocab: int = Field(default=4096, ge=300)


class Tokenizer(_Frozen):
    """A tokenizer trained here (`train`), or one of transformers by hub name or local path (`name`)."""

    name: str | None = None
    train: TrainTokenizer | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Tokenizer:
        if (self.name is None) == (self.train is None):
            raise ValueError("a tokenizer has either a name or {train: {vocab: ...}}")
        return self


class SearchSpace(_Frozen):
    """Everything a study needs to know, in the order in which it is read."""

    name: str = Field(min_length=1)
    domains: tuple[Domain, ...] = Field(min_length=1)
    eval_domains: tuple[EvalDomain, ...] = Field(min_length=1)
    objective: Objective = Objective()
    constraints: Constraints = Constraints()
    ladder: tuple[Rung, ...] = Field(min_length=1)
    target: Target
    budget: Budget = Budget()
    recipe: Recipe = Recipe()
    tokenizer: Tokenizer = Tokenizer(train=TrainTokenizer())
    allow_eval_overlap: bool = False
    """Accept eval documents that also stand in the training text."""

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @classmethod
    def load(cls, path: str | Path, settings: Sequence[str] = ()) -> SearchSpace:
        """Read a YAML file; `settings` are `dotted.key=value` strings that win over it.

        Raises:
            SpaceError: the file is missing, not YAML, or not a valid space; the message names the culprit.
        """
        path = Path(path)
        return cls.parse(apply_settings(read_yaml(path), settings), folder=path.resolve().parent)

    @classmethod
    def parse(cls, raw: Mapping[str, Any], folder: Path | None = None) -> SearchSpace:
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

    @field_validator("tokenizer", mode="before")
    @classmethod
    def _tokenizer_by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> SearchSpace:
        if len(self.domains) == 1:
            raise ValueError("there is only one domain, so there is nothing to search: name at least two")
        for kind, names in (("domains", self.domain_names), ("eval_domains", self.eval_names)):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{kind}: {twice[0]!r} is named twice")
        self._check_references()
        self._check_sources()
        self._check_prior()
        self.polytope()  # raises where nothing is feasible
        return self

    def _check_references(self) -> None:
        for eval_domain in self.eval_domains:
            if eval_domain.own is not None and eval_domain.own not in self.domain_names:
                raise ValueError(
                    f"eval domain {eval_domain.name!r}: own {eval_domain.own!r} is not a domain "
                    f"({', '.join(self.domain_names)})"
                )
        for group in self.constraints.groups:
            for name in group.domains:
                if name not in self.domain_names:
                    raise ValueError(f"constraints.groups: {name!r} is not a domain")
        for name in self.objective.guardrails:
            if name not in self.eval_names:
                raise ValueError(f"objective.guardrails: {name!r} is not an eval domain ({', '.join(self.eval_names)})")
        weights = self.objective.weights
        if weights is not None:
            for name, weight in weights.items():
                if name not in self.eval_names:
                    raise ValueError(
                        f"objective.weights: {name!r} is not an eval domain ({', '.join(self.eval_names)})"
                    )
                if not weight >= 0:
                    raise ValueError(f"objective.weights: the weight of {name!r} is {weight}, it must be >= 0")
            if sum(weights.values()) <= 0:
                raise ValueError("objective.weights: at least one weight must be above 0")

    def _check_sources(self) -> None:
        with_source = [d.name for d in self.domains if d.source is not None]
        if not with_source:
            return
        for domain in self.domains:
            if domain.source is None:
                raise ValueError(f"domain {domain.name!r} has no source, the others have: give it one")
        for eval_domain in self.eval_domains:
            if eval_domain.own is None and eval_domain.source is None:
                raise ValueError(
                    f"eval domain {eval_domain.name!r} needs `own` (the domain it is held out from) or a `source`"
                )

    def _check_prior(self) -> None:
        given = [d for d in self.domains if d.prior is not None]
        if given and len(given) < len(self.domains):
            missing = next(d.name for d in self.domains if d.prior is None)
            raise ValueError(f"domain {missing!r} has no prior, others have: give all of them one, or none")
        if given and sum(d.prior or 0.0 for d in given) <= 0:
            raise ValueError("the priors are all 0: at least one must be above 0")

    @property
    def domain_names(self) -> tuple[str, ...]:
        """The order of every mixture."""
        return tuple(domain.name for domain in self.domains)

    @property
    def eval_names(self) -> tuple[str, ...]:
        """The order of every row of losses."""
        return tuple(eval_domain.name for eval_domain in self.eval_domains)

    @property
    def own_M(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """For each eval domain the index of the domain it is held out from, or -1."""
        names = self.domain_names
        return np.asarray([-1 if e.own is None else names.index(e.own) for e in self.eval_domains], dtype=np.int64)

    @property
    def weights_M(self) -> Array:
        """Weights of the objective over eval domains, sum 1."""
        given = self.objective.weights
        if given is None:
            return np.full(len(self.eval_domains), 1 / len(self.eval_domains))
        return simplex.normalise(np.asarray([given.get(name, 0.0) for name in self.eval_names]))

    @property
    def available_K(self) -> Array:
        """Unique tokens per domain; infinite where unknown."""
        return np.asarray([d.available_tokens or np.inf for d in self.domains])

    @property
    def trains_proxies(self) -> bool:
        """Whether the space names text to train on (else somebody else trains: ask and tell)."""
        return self.domains[0].source is not None

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
        lower_K = np.asarray([d.min_share for d in self.domains])
        upper_K = np.asarray([d.max_share for d in self.domains])
        max_epochs = getattr(target, "max_epochs", None) or self.target.max_epochs
        if max_epochs is not None:
            upper_K = np.minimum(upper_K, max_epochs * self.available_K / target.n_tokens)
        self._check_feasible(lower_K, upper_K, max_epochs, target.n_tokens)
        rows, limits = [], []
        for group in self.constraints.groups:
            member_K = np.asarray([float(name in group.domains) for name in self.domain_names])
            rows += [member_K, -member_K]
            limits += [group.max, -group.min]
        rows_GK = np.asarray(rows) if rows else np.zeros((0, len(self.domains)))
        polytope = Polytope(lower_K, upper_K, rows_GK, np.asarray(limits))
        try:
            simplex.vertex_along(polytope, np.zeros(len(self.domains)))
        except ValueError:
            raise ValueError(
                "constraints.groups: no mixture satisfies these groups and the bounds of the domains"
            ) from None
        return polytope

    def _check_feasible(self, lower_K: Array, upper_K: Array, max_epochs: float | None, n_tokens: float) -> None:
        if lower_K.sum() > 1 + 1e-9:
            raise ValueError(f"the min_share values sum to {lower_K.sum():.4g}, more than 1: lower some")
        for domain, low, high in zip(self.domains, lower_K, upper_K, strict=True):
            if low > high + 1e-12:
                raise ValueError(
                    f"domain {domain.name!r}: min_share {low:.4g} needs more than {max_epochs:g} epochs of its "
                    f"{domain.available_tokens:.4g} tokens at the target (at most {high:.4g}): lower min_share, "
                    "raise target.max_epochs, or shrink target.n_tokens"
                )
        if upper_K.sum() < 1 - 1e-9:
            raise ValueError(
                f"the largest allowed shares sum to {upper_K.sum():.4g}, less than 1: raise max_share, or, where "
                f"epochs bind ({max_epochs or 0:g} passes over the available tokens for {n_tokens:.3g} target tokens), "
                "raise target.max_epochs or lower target.n_tokens"
            )

    def mixture(self, shares: Mapping[str, float]) -> Array:
        """A `{domain: share}` mapping as a checked array (K,); domains left out are 0.

        Raises:
            ValueError: an unknown domain, a negative or non-finite share, or a sum other than 1.
        """
        for name in shares:
            if name not in self.domain_names:
                raise ValueError(f"{name!r} is not a domain of {self.name!r} ({', '.join(self.domain_names)})")
        return simplex.as_mixture([shares.get(name, 0.0) for name in self.domain_names], self.domain_names)

    def shares(self, mix_K: Array) -> dict[str, float]:
        """An array (K,) as `{domain: share}`."""
        return {name: float(share) for name, share in zip(self.domain_names, mix_K, strict=True)}

    def with_available(self, available: Mapping[str, float]) -> SearchSpace:
        """The resolved space: counted tokens filled in where the user gave none."""
        raw = self.model_dump(mode="json", exclude_none=True)
        for domain in raw["domains"]:
            domain.setdefault("available_tokens", float(available[domain["name"]]))
        return SearchSpace.parse(raw, folder=self._folder)

    def hash(self) -> str:
        """sha256 over what changes the meaning of an observation: all but budget, objective and constraints."""
        kept = self.model_dump(mode="json", exclude={"budget", "objective", "constraints"})
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
