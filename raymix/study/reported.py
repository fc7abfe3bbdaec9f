"""What a result of Tune says of how far its trial got, and what is said where it does not say it."""

from collections.abc import Mapping
from typing import Any

from raymix.study.trial import Trial

WHOLE = 0.95  # of the tokens proposed: a trial that ends with fewer was stopped
STOPPED = "stopped before its last token by Tune or the trainer"
REPEATED = "MixtureSearch cannot be wrapped in a Repeater, which keeps the losses: it repeats mixtures itself"
NO_TOKENS = (
    "a trainer reports more than once and no n_tokens: each result counts as at its trial's last token, also that of a "
    "trial which a scheduler stops; report n_tokens"
)


def falls_short(result: Mapping[str, Any], trial: Trial) -> bool:
    """Whether a trial ended before the tokens it was proposed with; one that does not say is whole."""
    try:
        return float(result["n_tokens"]) < WHOLE * trial.n_tokens
    except (KeyError, TypeError, ValueError):
        return False
