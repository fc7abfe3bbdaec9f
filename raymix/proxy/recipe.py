"""How a proxy of a given size is shaped and trained: one dial, `n_params`, and all else follows.

Depth L and width C obey N = 12 L C^2 with C / L growing as the square root of L, from 32 at two layers to 128 at
32 layers (Llama 7B, arXiv 2302.13971). By default the learning rate is constant after a short warmup that depends
on the size alone, and weights are averaged over the last tenth before a checkpoint. So every checkpoint is what a
run of its own of that length would have given: one trial yields several scales. Other rules: raymix/proxy/rates.py.
"""

import math
from pathlib import Path

from raymix.proxy.rates import batch_tokens, peak_rate
from raymix.proxy.shape import Architecture, ProxyShape, count_params
from raymix.space import Recipe, SpaceError

WIDTH_AT_TWO_LAYERS = 64
LARGEST_SPAN = 16  # the first checkpoint lies at no less than 1/16 of the run
NEAR = 0.15  # a size asked for may be off the checkpoint it starts from by this much


def resolve(recipe: Recipe, n_params: float, n_tokens: float, vocab: int, folder: Path | None = None) -> ProxyShape:
    """The proxy of about `n_params` parameters (without embeddings), trained for about `n_tokens` tokens.

    `folder` is where a relative `recipe.init_from` starts.

    Raises:
        SpaceError: `recipe.init_from` is no model that can be gone on from, or not of this size.
    """
    body = _architecture(recipe, n_params, vocab, folder)
    batch = _batch(recipe, n_params, n_tokens)
    n_steps = max(1, round(n_tokens / (batch * recipe.context)))
    warmup_tokens = n_params / 5  # short, and the same however long the run
    only_the_end = recipe.schedule == "cosine" or recipe.stages
    return ProxyShape(
        **vars(body),
        context=recipe.context,
        batch=batch,
        n_steps=n_steps,
        learning_rate=recipe.learning_rate or peak_rate(recipe.rates, n_params, n_tokens, body.width),
        warmup=max(1, min(round(warmup_tokens / (batch * recipe.context)), n_steps // 10)),
        checkpoint_steps=(n_steps,) if only_the_end else _checkpoint_steps(n_steps, recipe.checkpoints),
        schedule=recipe.schedule,
        micro_batch=recipe.micro_batch,
        precision=recipe.precision,
    )


def _architecture(recipe: Recipe, n_params: float, vocab: int, folder: Path | None) -> Architecture:
    if recipe.init_from is None:
        n_layers, width = depth_and_width(recipe.family, n_params)
        heads, mlp_width = width // _head_width(width), _mlp_width(recipe.family, width)
        if recipe.family == "bert":  # it has a token more than the text: the mask
            return Architecture("bert", vocab + 1, n_layers, width, heads, mlp_width, mask_token=vocab)
        return Architecture(recipe.family, vocab, n_layers, width, heads, mlp_width)
    from raymix.proxy.pretrained import architecture_of  # loads torch, which a plan can do without

    found = architecture_of(recipe.init_from, folder, vocab, recipe.context)
    if _log_distance(found.counted or 0, n_params) > NEAR:
        raise SpaceError(
            f"ladder: n_params {n_params:g} is asked for, but recipe.init_from {recipe.init_from} has {found.counted} "
            "parameters without embeddings: write that"
        )
    return found


def _batch(recipe: Recipe, n_params: float, n_tokens: float) -> int:
    """Sequences per step."""
    if recipe.batch != "auto":
        return recipe.batch
    sequences = batch_tokens(recipe.rates, n_params, n_tokens) / recipe.context
    return int(2 ** max(0, round(math.log2(sequences))))


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
    return round(8 * width / 3 / 32) * 32 if family == "llama" else 4 * width


def _checkpoint_steps(n_steps: int, n_checkpoints: int) -> tuple[int, ...]:
    """Even in log tokens, by halves while that spans no more than a factor of 16; the last at the end."""
    ratio = 2.0 if n_checkpoints <= 5 else LARGEST_SPAN ** (1 / (n_checkpoints - 1))
    steps = {max(1, round(n_steps / ratio**back)) for back in range(n_checkpoints)}
    return tuple(sorted(steps))


def _log_distance(a: float, b: float) -> float:
    return abs(a / b - 1) if a > b else abs(b / a - 1)
