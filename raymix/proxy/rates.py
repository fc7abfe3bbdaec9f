"""Learning rate and batch size as functions of N and D, and the learning rate's course over a run.

N counts parameters without embeddings, D tokens of the whole run; a batch is in tokens.
"""

import math
from bisect import bisect_left

LR_AT_WIDTH_64 = 6e-3  # measured with 8 x 128 tokens a step; three times as much diverges
LR_FLOOR = 3e-4  # peak learning rate of Llama 7B (arXiv 2302.13971, table 2)
DECAY = 0.1  # of the tokens before a checkpoint: enough for all of the gain (MiniCPM, 2404.06395, section 4)
LOWEST = 0.1  # of the peak, at the end of a decay (Chinchilla, 2203.15556, section 3.1)


def peak_rate(rule: str, n_params: float, n_tokens: float, width: int) -> float:
    """Peak learning rate of AdamW.

    width: falls with the width, whatever the length, so that a short run is the beginning of a long one.
    step-law: 1.79 N^-.713 D^.307 (Step Law, 2503.04715).
    deepseek: .3118 C^-.125 with C = 6 N D (2401.02954, equation 1, there with its own count of C).
    """
    if rule == "step-law":
        return float(1.79 * n_params**-0.713 * n_tokens**0.307)
    if rule == "deepseek":
        return float(0.3118 * (6 * n_params * n_tokens) ** -0.125)
    return max(LR_AT_WIDTH_64 * 64 / width, LR_FLOOR)


def batch_tokens(rule: str, n_params: float, n_tokens: float) -> float:
    """Tokens per step; the sources are those of `peak_rate` (.58 D^.571, and .2920 C^.3271)."""
    if rule == "step-law":
        return float(0.58 * n_tokens**0.571)
    if rule == "deepseek":
        return float(0.2920 * (6 * n_params * n_tokens) ** 0.3271)
    raise ValueError(f"the rule {rule!r} says nothing about the batch: give recipe.batch a number")


def course(schedule: str, step: int, warmup: int, checkpoint_steps: tuple[int, ...]) -> float:
    """Learning rate at step 0, 1, ... as a share of the peak.

    constant: after the warmup, 1. The weights are averaged before a checkpoint instead.
    wsd: falls in a straight line to `LOWEST` over the last `DECAY` before every checkpoint and starts again at the
        peak after it (WSD-S, 2410.05192), so that every checkpoint is a finished run.
    cosine: half a cosine down to `LOWEST` at the end (2203.15556): only the last checkpoint is a finished run.
    """
    warm = min(1.0, (step + 1) / warmup)
    if schedule == "wsd":
        end = checkpoint_steps[bisect_left(checkpoint_steps, step + 1)]
        falling = max(1, round(DECAY * end))
        return warm * max(LOWEST, 1 - (1 - LOWEST) * max(0, step + 1 - (end - falling)) / falling)
    if schedule == "cosine":
        progress = max(0, step + 1 - warmup) / max(1, checkpoint_steps[-1] - warmup)
        return warm * (LOWEST + (1 - LOWEST) * 0.5 * (1 + math.cos(math.pi * progress)))
    return warm
