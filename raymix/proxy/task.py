"""What a model is asked on a batch: the next token everywhere, or the tokens behind a mask.

Masking is that of BERT (arXiv 1810.04805, section 3.1): 15% of the places of every sequence, of which 80% show the
mask, 10% a random token and 10% the token itself. Which ones follows from a key, (seed, step) in training and the
eval domain in evaluation: equal keys, equal masks. Where we differ: exactly 15% of each sequence, rounded, rather
than 15% on average, so that every batch has one shape.

Letters: B sequences, T places, R predicted places per sequence.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MASKED = 0.15
SHOWN = (0.8, 0.1)  # of the predicted places: mask, random token; the rest shows the token itself

Ints = NDArray[np.int64]


class Example(NamedTuple):
    """Inputs (B, T), the places (B, R) predicted or None where all are, and their tokens (B, R) or (B, T)."""

    inputs: Ints
    places: Ints | None
    targets: Ints

    def rows(self, chosen: slice) -> "Example":
        """Some of the sequences."""
        places = None if self.places is None else self.places[chosen]
        return Example(self.inputs[chosen], places, self.targets[chosen])


def example(tokens: Ints, mask_token: int | None, vocab: int, key: Sequence[int]) -> Example:
    """The example made of tokens (B, T + 1): masked where there is a mask token, else the next token.

    `vocab` bounds the random tokens; `key` decides the masks.
    """
    inputs = tokens[:, :-1]
    if mask_token is None:
        return Example(inputs, None, tokens[:, 1:])
    rng = np.random.default_rng(list(key))
    n_predicted = max(1, round(MASKED * inputs.shape[1]))
    places = np.sort(np.argsort(rng.random(inputs.shape), axis=1)[:, :n_predicted], axis=1)
    targets = np.take_along_axis(inputs, places, axis=1)
    fate = rng.random(places.shape)
    shown = np.where(fate < SHOWN[0], mask_token, targets)
    random_too = (fate >= SHOWN[0]) & (fate < sum(SHOWN))
    shown = np.where(random_too, rng.integers(vocab, size=places.shape), shown)
    masked = inputs.copy()
    np.put_along_axis(masked, places, shown, axis=1)
    return Example(masked, places, targets)
