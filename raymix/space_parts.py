"""The parts of a search space: frozen pydantic models, a sentence under each field that needs one."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PERFECT = 1e-3  # of the range of a metric: what is left to gain at its best value


class Scale(NamedTuple):
    """One point on the scale axes: parameters without embeddings, tokens trained on."""

    n_params: float
    n_tokens: float


class Frozen(BaseModel):
    """Unknown keys are errors and so are infinite numbers where no `Limit` is meant, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Between(Frozen):
    """A range of numbers, both ends included."""

    min: float | None = None
    max: float | None = None


Plain = bool | int | float | str
Limit = Annotated[float, Field(gt=0, allow_inf_nan=True)]  # .inf is none


class Source(Frozen):
    """Where the text of a domain comes from: exactly one of `files`, `dataset`, `builtin`, `tokens`."""

    files: str | tuple[str, ...] | None = None
    """Names, globs or URLs (s3://, gs://, hf://, ...) of .jsonl, .parquet, .arrow or text files, also .gz, .zst, .bz2.

    Relative to the file of the space. A text file is one document.
    """
    dataset: str | None = None
    """A Hugging Face dataset: a hub name or a local dataset repository."""
    builtin: str | None = None
    """A part of the corpus that is present wherever raymix is installed: see raymix/corpus/builtin.py."""
    tokens: str | tuple[str, ...] | None = None
    """Names or globs of token files: Megatron's .idx or its prefix, .npy arrays, or raw arrays of `dtype`."""
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    streaming: bool = True
    """Read a hub dataset over the network as far as it is needed; if false, download all of it first."""
    text: str = "text"
    """The field of a record that holds the text; `a.b` lies inside `a`."""
    where: dict[str, Plain | tuple[Plain, ...] | Between] = Field(default_factory=dict)
    """Fields a record must have: `{language: en, license: [mit, bsd], score: {min: 3}}`."""
    origin: str | None = None
    """The field that says what a record came from (a url, a repository): records of one are held out together."""
    dtype: Literal["uint16", "uint32"] | None = None
    """Of raw token files."""
    document_starts: str | None = None
    """Ending of the .npy file beside raw token files with the first token's place of each document; else they are
    split at the end-of-text token."""
    tokenizer: str | None = None
    """The tokenizer that made `tokens`: has to be the space's own."""
    vocab: int | None = Field(default=None, gt=0)
    """Its number of ids, checked where given."""
    megabytes: float | None = Field(default=None, gt=0)
    """Take at most about this much text: the document that reaches it is the last."""
    max_tokens: float | None = Field(default=None, gt=0)
    """Take at most about this many tokens: the document that reaches them is the last."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in ("files", "dataset", "builtin", "tokens") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a source names exactly one of files, dataset, builtin, tokens; this one names {given}")
        self._check_keys(given[0])
        for name in (*several(self.files), *several(self.tokens)):
            if "@" in name.partition("://")[2].partition("/")[0]:
                raise ValueError("a URL carries no user or password: give credentials by the environment")
        return self

    def _check_keys(self, kind: str) -> None:
        """A key that would have no effect is a mistake."""
        belongs = {
            "config": ("dataset",), "split": ("dataset",), "revision": ("dataset",), "streaming": ("dataset",),
            "text": ("dataset", "files"), "where": ("dataset", "files"), "origin": ("dataset", "files"),
            "dtype": ("tokens",), "document_starts": ("tokens",), "tokenizer": ("tokens",), "vocab": ("tokens",),
        }  # fmt: skip
        for key, kinds in belongs.items():
            default = type(self).model_fields[key].get_default(call_default_factory=True)
            if getattr(self, key) != default and kind not in kinds:
                raise ValueError(f"{key} belongs to a source of {' or '.join(kinds)}, this one has {kind}")
        if kind == "tokens" and self.tokenizer is None:
            raise ValueError("a source of tokens says what made them: tokenizer: <name or path>, the space's own")


def several(names: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """One name, several or none, as several."""
    return (names,) if isinstance(names, str) else names or ()


class Domain(Frozen):
    """A training domain: a source of text with bounds on its share."""

    name: str = Field(min_length=1)
    source: Source | None = None
    available_tokens: Limit | None = None
    """Unique tokens at hand for the target run; counted from the source if left out."""
    prior: float | None = Field(default=None, ge=0)
    """Share in the mixture used today; proportional to available tokens if left out."""
    min_share: float = Field(default=0.0, ge=0, le=1)
    max_share: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_share > self.max_share:
            raise ValueError(f"domain {self.name!r}: min_share {self.min_share} > max_share {self.max_share}")
        return self


class EvalDomain(Frozen):
    """What a proxy is evaluated on: text held out from a training domain (`own`), or a source of its own."""

    name: str = Field(min_length=1)
    own: str | None = None
    source: Source | None = None


class Metric(Frozen):
    """A number beside the losses: a column `metric/<name>` that an objective or guardrail may name as an eval domain.

    Laws are of positive quantities that are to be low. Where high is better they are fitted to `best` - value, which
    of an accuracy is the zero-one loss.
    """

    name: str = Field(min_length=1)
    better: Literal["low", "high"] = "low"
    best: float = 1.0
    """The largest value there is, where high is better; 100 for one in per cent."""
    task: str | None = None
    """What measures it on our proxies at the end of a trial: the name of a task of lm-evaluation-harness (extra
    `downstream`; raymix/proxy/downstream.py). Without one it is reported by a trainer of yours."""
    measure: str = "acc"
    """Which of the numbers that the task lists: acc, acc_norm, brier_score (low is better), bits_per_byte (low), ..."""
    shots: int | None = Field(default=None, ge=0)
    """Solved examples before each question; as the task says if left out."""
    limit: int | None = Field(default=None, ge=1)
    """Ask the first so many questions alone."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key in ("measure", "shots", "limit"):
            if self.task is None and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"metric {self.name!r}: {key} belongs to a task, and none is named")
        if self.better == "low" and self.best != 1.0:
            raise ValueError(f"metric {self.name!r}: best belongs to better: high")
        return self

    def loss(self, value: float) -> float:
        """What is minimised; a perfect score is one miss in a thousand, which has a log; ValueError above `best`."""
        value = float(value)
        if self.better == "low":
            return value
        if value > self.best:
            raise ValueError(f"metric/{self.name} is {value:g}, above its best, {self.best:g}: say best in the space")
        return max(self.best - value, PERFECT * self.best)


class Objective(Frozen):
    """What to minimise: losses over eval domains, weighted, by mean or by the worst."""

    weights: dict[str, float] | None = None
    """Weight per eval domain or metric, normalised to sum 1; if left out all eval domains equally, and no metric."""
    reduce: Literal["mean", "worst"] = "mean"
    guardrails: dict[str, float] = Field(default_factory=dict)
    """Nats by which the loss of an eval domain may exceed that of the prior mixture: `{exams: 0.0}`; of a metric by how
    much it may be worse, in its own unit. Below 0, by how much it must be better, if a mixture can."""
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


class Resources(Frozen):
    """What one trial takes of a cluster; of several shares of a GPU, that many trials run on it."""

    cpu: float = Field(default=1, ge=0)
    gpu: float = Field(default=0, ge=0)
    accelerator: str | None = None
    """Ray's name of a GPU type: L4, A100, H100, ..."""
    custom: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Resources that nodes were started with by name: `{fast_disk: 1}`."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.gpu > 1 and self.gpu != int(self.gpu):
            raise ValueError(f"resources: gpu {self.gpu} is neither below 1 nor whole")
        if not (self.cpu or self.gpu or self.custom):
            raise ValueError("resources: a trial takes something; give it cpu or gpu")
        return self


class ProxyRung(Rung):
    """A rung of the ladder: a proxy scale, and where its trials run."""

    resources: Resources | None = None
    """By what the cluster has if left out. Not part of the space's hash: it changes no result."""
    stack: int | Literal["auto"] = "auto"
    """How many trials of a round are trained as one (raymix/proxy/stacked.py). auto: as many as were measured to be the
    fastest on a GPU (raymix/on_ray/stacking.py), and 1 on CPUs. A stack of several takes a whole GPU where `resources`
    do not say. Not part of the hash: results are the same up to rounding."""

    @field_validator("stack", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            return value
        raise ValueError(f"a stack is a whole number of trials from 1 on, or auto, and not {value!r}")


class Target(Rung):
    """The run the mixture is chosen for."""

    max_epochs: Limit | None = 4.0
    """No domain may be repeated more often than this (Muennighoff, 2305.16264: up to 4 costs little)."""


def by_name(value: Any) -> Any:
    """Domains of which some are a name alone, all as mappings."""
    listed = isinstance(value, list | tuple)
    return [{"name": each} if isinstance(each, str) else each for each in value] if listed else value


def at_target(raw: Any) -> Any:
    """A space without a ladder whose domains have no text: whoever trains says at which scale, the target's if not."""
    if not isinstance(raw, Mapping) or "ladder" in raw or not isinstance(raw.get("target"), Mapping):
        return raw
    domains = raw.get("domains")
    if not isinstance(domains, list | tuple) or any(isinstance(d, Mapping) and d.get("source") for d in domains):
        return raw  # proxies of ours have sizes that somebody chose
    return {**raw, "ladder": [{key: raw["target"][key] for key in ("n_params", "n_tokens") if key in raw["target"]}]}
