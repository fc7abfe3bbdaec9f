"""Model labels of the published mixing-law runs as parameters without embeddings, and their tokens per step."""

from __future__ import annotations

from raymix.formats.rows import positive
from raymix.formats.sheet import listed

TOKENS_PER_STEP = 4096 * 256  # context times batch (arXiv 2403.16952); 1,048,576 in the published tables
# 70M, 160M, 410M, 1B are Pythia's (2304.01373, table 1); 305M is the authors' own, as counted in their tables.
SIZES = {"70M": 18915328.0, "160M": 85056000.0, "305M": 201541632.0, "410M": 302311424.0, "1B": 805736448.0}


def n_params_of(label: str | float) -> float:
    """Parameters without embeddings of a size label, or the number itself.

    Raises:
        ValueError: neither a known label nor a number above 0.
    """
    if isinstance(label, str) and label in SIZES:
        return SIZES[label]
    try:
        return positive("the model size", label)
    except ValueError:
        raise ValueError(f"the model size {label!r} is no number above 0 and none of {listed([*SIZES])}") from None
