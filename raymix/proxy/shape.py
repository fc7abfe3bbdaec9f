"""What a proxy is, once its recipe is resolved: architecture, schedule, cost."""

from dataclasses import dataclass

from raymix.proxy.rates import course
from raymix.proxy.task import MASKED


@dataclass(frozen=True)
class Architecture:
    """What a model looks like, and the checkpoint it comes from, if any."""

    family: str
    vocab: int
    n_layers: int
    width: int
    n_heads: int
    mlp_width: int
    init_from: str | None = None
    """The model a run starts from: a folder or hub name."""
    counted: int | None = None
    """Parameters of that model without embeddings; None where the counts above say it."""
    mask_token: int | None = None
    """An encoder's mask; None for a decoder."""


@dataclass(frozen=True, kw_only=True)
class ProxyShape(Architecture):
    """A resolved proxy: its architecture, its schedule, its cost."""

    context: int
    batch: int
    n_steps: int
    learning_rate: float
    warmup: int
    """Steps."""
    checkpoint_steps: tuple[int, ...]
    schedule: str = "constant"
    micro_batch: int | None = None
    """Sequences at once; None where it is left to the device."""
    precision: str = "auto"
    """float32 or bfloat16; auto where it is left to the device."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens trained on in one step."""
        return self.batch * self.context

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Tokens trained on at each evaluation."""
        return tuple(step * self.tokens_per_step for step in self.checkpoint_steps)

    @property
    def n_tokens(self) -> int:
        """Tokens of the whole run."""
        return self.n_steps * self.tokens_per_step

    @property
    def n_params(self) -> int:
        """Parameters without (token and position) embeddings, as the model itself counts them."""
        return self.counted or count_params(self.family, self.n_layers, self.width, self.mlp_width)

    def rate(self, step: int) -> float:
        """Learning rate at step 0, 1, ..."""
        return self.learning_rate * course(self.schedule, step, self.warmup, self.checkpoint_steps)

    @property
    def flops_per_token(self) -> float:
        """Training FLOPs: 6 per weight of body and head, 12 L C T for attention (PaLM, 2204.02311, appendix B)."""
        head = self.width * self.vocab * (1.0 if self.mask_token is None else MASKED)
        return 6.0 * (self.n_params + head) + 12.0 * self.n_layers * self.width * self.context


def count_params(family: str, n_layers: int, width: int, mlp_width: int) -> int:
    """Parameters of body and norms: matrices, biases (gpt2, bert) and norms; no embeddings, no head (it is tied).

    bert has a dense layer with a norm between body and head, which counts, and a bias per token, which does not.
    """
    if family in ("gpt2", "bert"):
        between = width**2 + 3 * width if family == "bert" else 0
        return n_layers * (4 * width**2 + 2 * width * mlp_width + mlp_width + 9 * width) + 2 * width + between
    return n_layers * (4 * width**2 + 3 * width * mlp_width + 2 * width) + width
