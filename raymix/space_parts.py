"""The parts of a search space: frozen pydantic models, a sentence under each field that needs one."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Scale(NamedTuple):
    """One point on the scale axes: parameters without embeddings, tokens trained on."""

    n_params: float
    n_tokens: float


class Frozen(BaseModel):
    """Unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Frozen):
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


class Domain(Frozen):
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


class EvalDomain(Frozen):
    """What a proxy is evaluated on: text held out from a training domain (`own`), or a source of its own."""

    name: str = Field(min_length=1)
    own: str | None = None
    source: Source | None = None


class Objective(Frozen):
    """What to minimise: losses over eval domains, weighted, by mean or by the worst."""

    weights: dict[str, float] | None = None
    """Weight per eval domain, normalised to sum 1; all equal if left out."""
    reduce: Literal["mean", "worst"] = "mean"
    guardrails: dict[str, float] = Field(default_factory=dict)
    """Nats by which the loss of an eval domain may exceed that of the prior mixture: `{exams: 0.0}`."""
    pull: float = Field(default=0.0, ge=0)
    """Strength of a pull to the prior: nats of objective per nat of KL divergence (Olmix, 2602.12237: .05 to .1)."""


class Group(Frozen):
    """A bound on the summed share of several domains."""

    domains: tuple[str, ...]
    min: float = Field(default=0.0, ge=0, le=1)
    max: float = Field(default=1.0, ge=0, le=1)


class Constraints(Frozen):
    """Linear constraints beyond the bounds of each domain."""

    groups: tuple[Group, ...] = ()


class Rung(Frozen):
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


class Budget(Frozen):
    """What the search may spend."""

    trials: int = Field(default=24, ge=1)
    per_round: int = Field(default=8, ge=1)
    """Trials proposed together; the law is refitted between rounds."""
    replicates: int = Field(default=2, ge=0)
    """Trials of the first round that repeat the prior mixture under another seed, to measure the noise."""


class Recipe(Frozen):
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


class TrainTokenizer(Frozen):
    """Train a byte-level BPE on the domains' own text."""

    vocab: int = Field(default=4096, ge=300)


class Tokenizer(Frozen):
    """A tokenizer trained here (`train`), or one of transformers by hub name or local path (`name`)."""

    name: str | None = None
    train: TrainTokenizer | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Tokenizer:
        if (self.name is None) == (self.train is None):
            raise ValueError("a tokenizer has either a name or {train: {vocab: ...}}")
        return self
