"""Large counts as a person says them: 7B parameters, 2T tokens."""

import math
from typing import Any

UNKNOWN = "unknown"
LETTERS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def known(value: Any) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def human(value: Any) -> str:
    """A large count in three digits: 7e9 is 7B."""
    if not known(value):
        return UNKNOWN
    for size, letter in LETTERS:
        if abs(value) >= 0.9995 * size:  # what rounds up to it is written with its letter
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def scale_words(n_params: Any, n_tokens: Any) -> str:
    """A size and a length: `20M parameters, 1B tokens`."""
    return f"{human(n_params)} parameters, {human(n_tokens)} tokens"
