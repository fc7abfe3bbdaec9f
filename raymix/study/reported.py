"""What a result in Tune's flat form says beside its losses: how far its trial got, and whose weights they are of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from raymix.study.trial import Trial

WHOLE = 0.95  # of the tokens proposed: a trial that ends with fewer was stopped
STOPPED = "stopped before its last token by Tune or the trainer"
CONFIG_ID = "config/trial_id"  # the trial whose config a worker has
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


def taken_over(result: Mapping[str, Any], ids: Collection[str]) -> str | None:
    """Why losses are not of a mixture: what a worker has been told since is not one of `ids`; None where it is."""
    if CONFIG_ID not in result or result[CONFIG_ID] in ids:
        return None
    return (
        f"its worker went on with config and weights of trial {result[CONFIG_ID]}, as population-based training has "
        "it: a loss is of the mixture that was trained on; use another scheduler"
    )
