"""Numbers and findings as a person would say them. Plain text: escaping is the template's work."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raymix.counts import UNKNOWN
from raymix.counts import human as human
from raymix.counts import known as known
from raymix.space import SearchSpace
from raymix.target.held_out import SOME_ORDER
from raymix.target.objective import NATS
from raymix.target.objective import unit as objective_unit

MINUS, ELLIPSIS = "\u2212", "\u2026"
TURNING = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # bidi controls
SUPERSCRIPT = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
UNION = "losses fall as powers of parameters and of tokens, each scaled by what the mixture exposes"
HEDGES = ", in the forms that these runs leave open"
GOOD_ORDER = 0.8  # rank correlation at which the wording changes, as at SOME_ORDER


def power(value: Any) -> str:
    """A number too large for a letter: 3.2e18 as 3.2 x 10 to the 18."""
    if not known(value):
        return UNKNOWN
    if abs(value) < 1e6:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa} \u00d7 10{str(int(exponent)).translate(SUPERSCRIPT)}"


def duration(seconds: Any) -> str:
    """Seconds in the largest unit that fits."""
    if not known(seconds):
        return UNKNOWN
    for size, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"


def percent(share: Any) -> str:
    """A share: one decimal where it matters."""
    if not known(share):
        return UNKNOWN
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{100 * share:.1f}%" if share < 0.0995 and round(1000 * share) % 10 else f"{100 * share:.0f}%"


def epochs(value: Any) -> str:
    """Passes over the unique tokens of a domain at the target."""
    if not known(value):
        return "epochs unknown"
    if 0 < value < 0.01:
        return "<0.01 epochs"
    text = f"{value:.2f}" if value < 1 else f"{value:.1f}"
    return f"{text.rstrip('0').rstrip('.')} epochs" if value else "not used"


def number(value: Any, decimals: int = 3, sign: bool = False) -> str:
    """A loss or a difference of losses in nats per token."""
    if not known(value):
        return UNKNOWN
    rounded = round(value, decimals) or 0.0  # no sign before a zero
    return f"{rounded:{'+' if sign and rounded else ''}.{decimals}f}".replace("-", MINUS)


def interval(part: Mapping[str, Any], decimals: int = 3, sign: bool = False) -> str:
    """`low to high`, or nothing where there is no interval."""
    low, high = part.get("low"), part.get("high")
    return f"{number(low, decimals, sign)} to {number(high, decimals, sign)}" if known(low) and known(high) else ""


def decimals_for(values: Sequence[Any]) -> int:
    """Decimals that show two digits of the largest of some small differences: 3 to 5."""
    largest = max((abs(v) for v in values if known(v)), default=0.0)
    return min(5, max(3, 1 - math.floor(math.log10(largest)))) if largest > 0 else 3


def short(name: str, length: int = 22) -> str:
    """A name that fits beside a figure, without the characters that would turn the text around it."""
    name = " ".join("".join(c for c in name if c not in TURNING).split())
    return name if len(name) <= length else name[: length - 1] + ELLIPSIS


def apart(names: Sequence[str], length: int = 22) -> dict[str, str]:
    """Names that fit and are still told apart: where cutting ends makes some alike, their common beginning goes."""
    found = {name: short(name, length) for name in names}
    alike: dict[str, list[str]] = {}
    for name, cut in found.items():
        alike.setdefault(cut, []).append(name)
    for group in alike.values():
        first, last = min(group), max(group)
        common = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
        begin = max((i + 1 for i, c in enumerate(first[:common]) if not c.isalnum()), default=common)
        found |= {name: short(ELLIPSIS + name[begin:], length) for name in group if len(group) > 1}
    return found


def count(n: int, thing: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def fitted(space: SearchSpace, name: str) -> str:
    """An eval domain by its name; a metric where high is better by what is minimised, the rest up to its best."""
    best = {metric.name: metric.best for metric in space.metrics if metric.better == "high"}
    return f"{best[name]:g} {MINUS} {name}" if name in best else name


def unit(space: SearchSpace) -> str:
    """Of the objective."""
    metrics = {name: fitted(space, name) for name in space.metric_names}
    return _per_token(objective_unit(space.eval_names, space.weights_M, metrics))


def loss_unit(eval_names: Sequence[str]) -> str:
    """Of the losses on these eval domains."""
    return _per_token(objective_unit(eval_names, np.ones(len(eval_names)), {}))


def _per_token(unit: str) -> str:
    return "nats per token" if unit == NATS else unit


def objective(space: SearchSpace) -> str:
    """How the objective is one number."""
    n = int((space.weights_M > 0).sum())
    if n == 1:
        return f"of {space.eval_names[int(space.weights_M.argmax())]}"
    how = "largest" if space.objective.reduce == "worst" else "weighted mean"
    return f"{how} of {n} {'losses and metrics' if space.metrics else 'eval domains'}"


def law_words(name: str) -> str:
    """What a law of this name says, for who has not read its source; nothing of one that a study does not read."""
    return f"{UNION}{HEDGES if name == 'hedged_union' else ''}; " if name in ("union", "hedged_union") else ""


def change(mixture: Mapping[str, float], reference: Mapping[str, float], name: str) -> str:
    """The largest moves from a reference mixture, in percentage points."""
    moves = {d: 100 * (share - reference.get(d, 0.0)) for d, share in mixture.items()}
    ranked = sorted((d for d in moves if abs(moves[d]) >= 0.5), key=lambda d: moves[d])
    if not ranked:
        return f"Within half a percentage point of {name} in every domain."
    called = apart(list(mixture))
    more = [f"{called[d]} (+{moves[d]:.0f})" for d in ranked[::-1] if moves[d] > 0][:3]
    less = [f"{called[d]} ({MINUS}{-moves[d]:.0f})" for d in ranked if moves[d] < 0][:3]
    parts = [f"{word} {', '.join(names)}" for word, names in (("more", more), ("less", less)) if names]
    return f"Against {name}, in percentage points: {'; '.join(parts)}."


def trust(order: float) -> str:
    """What the rank correlation within scales says about the law, as the verdict counts it."""
    if not known(order):
        return "Too few held-out trials of one scale to say whether the law gets the order of mixtures right."
    if order >= GOOD_ORDER:
        return "On mixtures it has not seen, the law gets the order right."
    if order >= SOME_ORDER:
        return "On mixtures it has not seen, the law gets the order roughly right: trust only large differences."
    return "On mixtures it has not seen, the law hardly gets the order right: do not lean on its ranking."
