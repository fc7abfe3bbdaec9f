"""How proxies of a search space are trained, and the tokenizer of their text."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raymix.space_parts import Frozen


class StagePart(Frozen):
    """A part of every run: its share of the tokens, and its mixture."""

    tokens: float = Field(gt=0, le=1)
    """Share of the run's tokens; the parts sum to 1."""
    mixture: dict[str, float] | None = None
    """Fixed for all trials; the trial's own mixture if left out."""


class Recipe(Frozen):
    """How a proxy of a given size is trained; all else follows from `n_params` (raymix/proxy/recipe.py)."""

    family: Literal["gpt2", "llama", "bert"] = "gpt2"
    """bert: an encoder with masked language modelling; the others are decoders."""
    init_from: str | None = None
    """Go on from this model: a folder (relative to the file of the space) or hub name with safetensors weights. Its
    architecture replaces `family`, and its losses before training are a row at n_tokens 0."""
    context: int = Field(default=128, ge=8)
    batch: Annotated[int, Field(ge=1)] | Literal["auto"] = 8
    """Sequences per step; auto: from the rule named by `rates`, rounded to a power of two."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Sequences at once, their gradients summed; what the memory of a GPU is likely to hold if left out."""
    rates: Literal["width", "step-law", "deepseek"] = "width"
    """Where learning rate and an automatic batch come from (raymix/proxy/rates.py)."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate; from `rates` if left out."""
    schedule: Literal["constant", "wsd", "cosine"] = "constant"
    """constant: weights averaged before each checkpoint; wsd: a decay before each; cosine: one checkpoint, the end."""
    checkpoints: int = Field(default=3, ge=1)
    """Evaluations per trial, evenly in log tokens, the last at the end."""
    eval_tokens: int = Field(default=8192, ge=1)
    """Held-out tokens per eval domain."""
    simulated_epochs: bool = True
    """Give a proxy only so many unique tokens of a domain that it repeats them as often as the target would."""
    stages: tuple[StagePart, ...] = ()
    """A mixture per part of the run; such a run is evaluated at its end alone."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations and matrix products (weights stay in float32); auto: bfloat16 where the hardware computes in it.
    Name one where some machines of a cluster do and others do not."""
    compile: Literal["auto", "always", "never"] = "auto"
    """torch.compile and CUDA graphs; auto: where the trial is long enough to earn their cost back."""
    checkpoint_seconds: float = Field(default=60.0, gt=0)
    """Time between two saves of an unfinished trial."""
    hang_seconds: float = Field(default=600.0, gt=0)
    """A trial without a step for so long writes its stack to Ray's logs and is tried again; ten times as long at first,
    when it may have to compile."""
    keep_weights: bool = False
    """Leave the trained model in the study: checkpoints/<trial_id>/final, as transformers reads it."""
    promote: bool = True
    """Let a trial go on from an ended one of its mixture, size and seed with fewer tokens, where that is possible."""

    @property
    def promotes(self) -> bool:
        """Whether trials may go on: a run is the beginning of a longer one where nothing depends on its length."""
        fixed = self.rates == "width" or (self.learning_rate is not None and self.batch != "auto")
        return self.promote and fixed and self.schedule != "cosine" and not self.stages

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch == "auto" and self.rates == "width":
            raise ValueError("batch: auto needs a rule for it: rates: step-law or rates: deepseek")
        if self.stages and abs(sum(part.tokens for part in self.stages) - 1) > 1e-6:
            raise ValueError(f"stages: their tokens sum to {sum(p.tokens for p in self.stages):.4g}, not to 1")
        if self.stages and all(part.mixture is not None for part in self.stages):
            raise ValueError("stages: every mixture is fixed, so there is nothing to search: leave one out")
        return self


class TrainTokenizer(Frozen):
    """Train a byte-level BPE on the domains' own text."""

    vocab: int = Field(default=4096, ge=300)


class Tokenizer(Frozen):
    """A tokenizer trained here (`train`), or one of transformers by hub name or local path (`name`)."""

    name: str | None = None
    train: TrainTokenizer | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.name is None) == (self.train is None):
            raise ValueError("a tokenizer has either a name or {train: {vocab: ...}}")
        return self


def tokenizer_by_name(value: Any) -> Any:
    """A plain name as a tokenizer."""
    return {"name": value} if isinstance(value, str) else value
