"""How a proxy of a given size is shaped and trained: one dial, `n_params`, and all else follows.

Depth L and width C obey N = 12 L C^2 with C / L growing as the square root of L, from 32 at two layers to 128 at
32 layers (Llama 7B, arXiv 2302.13971). The learning rate is constant after a short warmup that depends on the
size alone, and weights are averaged over the last tenth before a checkpoint. So every checkpoint is what a run
of its own of that length would have given: one trial yields several scales.
"""

from __future__ import annotations

from dataclasses import dataclass

from raymix.space import Recipe

WIDTH_AT_TWO_LAYERS = 64
LR_AT_WIDTH_64 = 6e-3  # measured with 8 x 128 tokens a step; three times as much diverges
LR_FLOOR = 3e-4  # peak learning rate of Llama 7B (arXiv 2302.13971, table 2)
LARGEST_SPAN = 16  # the first checkpoint lies at no less than 1/16 of the run


@dataclass(frozen=True)
class ProxyShape:
    """A resolved proxy: its architecture, its schedule, its cost."""

    family: str
    vocab: int
    n_layers: int
    width: int
    n_heads: int
    mlp_width: int
    context: int
    batch: int
    n_steps: int
    learning_rate: float
    warmup: int
    """Steps."""
    checkpoint_steps: tuple[int, ...]

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
        return count_params(self.family, self.n_layers, self.width, self.mlp_width)

    @property
    def flops_per_token(self) -> float:
        """Training FLOPs: 6 per weight of body and head, 12 L C T for attention (PaLM, 2204.02311, appendix B)."""
        head = self.width * self.vocab
        return 6.0 * (self.n_params + head) + 12.0 * self.n_layers * self.width * self.context


def resolve(recipe: Recipe, n_params: float, n_tokens: float, vocab: int) -> ProxyShape:
    """The proxy of about `n_params` parameters (without embeddings), trained for about `n_tokens` tokens."""
    n_layers, width = depth_and_width(recipe.family, n_params)
    n_steps = max(1, round(n_tokens / (recipe.batch * recipe.context)))
    warmup_tokens = n_params / 5  # short, and the same however long the run
    return ProxyShape(
        family=recipe.family,
        vocab=vocab,
        n_layers=n_layers,
        width=width,
        n_heads=width // _head_width(width),
        mlp_width=_mlp_width(recipe.family, width),
        context=recipe.context,
        batch=recipe.batch,
        n_steps=n_steps,
        learning_rate=recipe.learning_rate or max(LR_AT_WIDTH_64 * 64 / width, LR_FLOOR),
        warmup=max(1, min(round(warmup_tokens / (recipe.batch * recipe.context)), n_steps // 10)),
        checkpoint_steps=_checkpoint_steps(n_steps, recipe.checkpoints),
    )


def depth_and_width(family: str, n_params: float) -> tuple[int, int]:
    """Layers and width whose count is nearest to `n_params`, near the usual proportions."""
    ideal_layers = 2 * (n_params / (24 * WIDTH_AT_TWO_LAYERS**2)) ** 0.25  # 12 L (32 L sqrt(L / 2))^2 = N
    depths = range(max(1, round(ideal_layers) - 1), round(ideal_layers) + 2)
    candidates = [(n_layers, width) for n_layers in depths for width in _widths(n_layers, n_params)]

    def misfit(candidate: tuple[int, int]) -> float:
        n_layers, width = candidate
        count = count_params(family, n_layers, width, _mlp_width(family, width))
        return _log_distance(count, n_params) + 0.2 * _log_distance(n_layers, ideal_layers)

    return min(candidates, key=misfit)


def count_params(family: str, n_layers: int, width: int, mlp_width: int) -> int:
    """Parameters of body and final norm: matrices, biases (gpt2) and norms; no embeddings, no head (it is tied)."""
    if family == "gpt2":
        return n_layers * (4 * width**2 + 2 * width * mlp_width + mlp_width + 9 * width) + 2 * width
    return n_layers * (4 * width**2 + 3 * width * mlp_width + 2 * width) + width


def _widths(n_layers: int, n_params: float) -> list[int]:
    exact = (n_params / (12 * n_layers)) ** 0.5
    step = 16 if exact < 64 else 32 if exact < 512 else 64 if exact < 2048 else 128
    below = int(exact // step) * step
    return [width for width in (below, below + step) if width > 0]


def _head_width(width: int) -> int:
    """32 up to width 512, then 64, from 1024 on 128; 16 only where nothing else divides the width."""
    return next(head for head in (128, 64, 32, 16) if width % head == 0 and (head <= 32 or width >= 8 * head))


def _mlp_width(family: str, width: int) -> int:
    """4 C, or for Llama's three matrices 8/3 C, so that a layer has 12 C^2 weights either way."""
    return 4 * width if family == "gpt2" else round(8 * width / 3 / 32) * 32


def _checkpoint_steps(n_steps: int, n_checkpoints: int) -> tuple[int, ...]:
    """Even in log tokens, by halves while that spans no more than a factor of 16; the last at the end."""
    ratio = 2.0 if n_checkpoints <= 5 else LARGEST_SPAN ** (1 / (n_checkpoints - 1))
    steps = {max(1, round(n_steps / ratio**back)) for back in range(n_checkpoints)}
    return tuple(sorted(steps))


def _log_distance(a: float, b: float) -> float:
    return abs(a / b - 1) if a > b else abs(b / a - 1)
