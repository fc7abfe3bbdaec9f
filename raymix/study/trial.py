"""A trial: a proposal with its identity."""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raymix.space import Scale, SearchSpace

MOST_NAMED = 12  # ids in a message
GOING_ON = ("continues", "after")  # not recorded of a trial that starts anew


@dataclass(frozen=True)
class Trial:
    """A proposal with its identity: the same mixture, scale, seed and space always have the same id."""

    trial_id: str
    mixture: dict[str, float]
    n_params: float
    n_tokens: float
    seed: int
    purpose: str = "search"
    """search, or confirm: a run of raymix/study/confirm.py."""
    round: int = 0
    """Trials proposed together have the same."""
    continues: str = ""
    """The trial of this mixture, size and seed that this one goes on from; empty where it starts anew."""
    after: Sequence[float] = ()
    """Tokens of that trial and of those that it goes on from, fewest first."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "after", tuple(self.after))  # a list, as recorded, is the same trial

    @property
    def scale(self) -> Scale:
        """Size and tokens at its end."""
        return Scale(self.n_params, self.n_tokens)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as recorded."""
        found = dict(vars(self))
        return found | {"after": list(self.after)} if self.after else {k: found[k] for k in found if k not in GOING_ON}

    def shown(self) -> dict[str, Any]:
        """The same for whoever trains: a share of 0.5 is not 0.49999999999999994."""
        return self.to_json() | {"mixture": _rounded(self.mixture)}


def trial_identity(
    mixture: Mapping[str, float], scale: Scale, seed: int, space: SearchSpace | str, after: Sequence[float] = ()
) -> str:
    """A hash of what determines a trial's result: mixture, scale, seed, data and recipe (of a space, or its hash), and
    the lengths after which it goes on."""
    key: list[Any] = [_rounded(mixture), *map(float, scale), seed, space if isinstance(space, str) else space.hash()]
    key += [list(map(float, after))] if after else []
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def _rounded(mixture: Mapping[str, float]) -> dict[str, float]:
    """Shares as far as two mixtures are told apart; they still sum to 1 within 1e-9."""
    return {name: round(share, 12) for name, share in mixture.items()}


def unknown_trial(trial_id: str, known: Iterable[str], pending: Sequence[str]) -> str:
    """What to say of an id that no trial has: the one it may be, else those that are still to be told."""
    near = difflib.get_close_matches(trial_id, list(known), n=1)
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif pending:
        more = f", ... ({len(pending)})" if len(pending) > MOST_NAMED else ""
        hint = f"asked and not told yet: {', '.join(pending[:MOST_NAMED])}{more}"
    else:
        hint = "all that it proposed has been told; raymix ask proposes more"
    return (f"trial {trial_id!r} was never proposed by this study; {hint} "
            "(runs that no study proposed: from: [{table: FILE}] in its space)")  # fmt: skip
