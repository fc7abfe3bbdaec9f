"""What is recorded of a row that a trial reported: plain JSON values, with the trial's own scale, seed and mixture."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from raymix.exchange import NUMBERS, SUM_ERROR, readable
from raymix.space import SearchSpace
from raymix.study.drawn import mixture_drawn, tokens_drawn
from raymix.study.trial import Trial

ON_THE_WAY = ("checkpoint", "start")  # of a trial that has not ended: metrics may be missing
WITHOUT_RESULT = ("failed", "stopped")
PREFIXES = ("loss/", "metric/", "tokens/", "unique/", "loss_se/", "bpb/")
BY_DOMAIN = ("mixture/", "tokens/", "unique/")
COUNTS = ("seconds", "flops", "tokens/", "unique/")  # what a budget is reckoned with, and a law reads
OTHER_UNIT = 100  # sizes and tokens realised differ from those proposed, but not as millions or steps do
LONGEST_REASON = 2000
NO_REASON = "no reason given"
FAR_SCALE = 2.0  # realised sizes differ from nominal ones, but not by this factor


class NotReportedError(ValueError):
    """A row without a loss or metric. In a Ray job the trial has failed; whoever tells by hand can still give it."""


@contextmanager
def told_by_hand() -> Iterator[None]:
    """Say what to do about a number that is missing: refused, for an empty cell is rather a slip than a failure."""
    try:
        yield
    except NotReportedError as error:
        raise NotReportedError(
            f"{error}: tell it too, or tell the trial as failed if it will not be measured"
        ) from None


def record(space: SearchSpace, trial: Trial, row: Mapping[str, Any]) -> dict[str, Any]:
    """What to record of a reported row: with its losses, or as a failure where one is not positive and finite.

    Columns that the exchange form does not know are left out. Nothing that could not be read again gets through.

    Raises:
        NotReportedError: a column of the objective is missing.
        ValueError: a column of the objective is no number, a metric is above its best, a size or token count
            is not above 0 or in another unit, seconds, FLOPs or tokens are below 0, or the status is unknown.
    """
    status = str(row.get("status") or "done")
    if status in WITHOUT_RESULT:
        return without_result(trial, status, row.get("reason"))
    if status not in ("done", *ON_THE_WAY):
        known = ", ".join(("done", *ON_THE_WAY, *WITHOUT_RESULT))
        raise ValueError(f"trial {trial.trial_id}: status {status!r} is not one of {known}")
    kept = {key: _number(trial, key, value) for key, value in row.items() if key.startswith(PREFIXES) or key in NUMBERS}
    drawn = tokens_drawn(space, trial, kept)
    if drawn is not None and kept.get("n_tokens") is None and not trial.after:
        # One that goes on may count what it added.
        kept["n_tokens"] = sum(drawn.values())
    losses = _losses(space, trial.trial_id, kept, status)
    body = {key: _plain(value) for key, value in {**kept, **losses}.items()}
    for key in ("n_params", "n_tokens"):
        body[key] = getattr(trial, key) if kept.get(key) is None else body[key]
        if not (is_above_0(body[key]) or (key == "n_tokens" and status == "start" and body[key] == 0)):
            raise ValueError(f"trial {trial.trial_id}: {key} is {kept.get(key)}, it must be above 0")
        far = max(body[key], getattr(trial, key)) > OTHER_UNIT * min(body[key], getattr(trial, key))
        smaller = status == "done" and space.names_proxies  # else the trainer's own proxies
        if far and (smaller or body[key] > getattr(trial, key)):
            raise ValueError(
                f"trial {trial.trial_id}: {key} is {body[key]:g}, but {getattr(trial, key):g} was proposed: "
                "is it in another unit?"
            )
    for key, value in body.items():
        if key.startswith(COUNTS) and value is not None and value < 0:
            raise ValueError(f"trial {trial.trial_id}: {key} is {value:g}, it must not be below 0")
    bad = [name for name, value in losses.items() if not is_above_0(value)]
    if bad:
        return without_result(trial, "failed", f"{bad[0]} is {losses[bad[0]]}")
    if row.get("reason"):
        body["reason"] = readable(row["reason"])[:LONGEST_REASON]
    shares, _ = mixture_drawn(space, trial, body, body["n_tokens"])
    return body | {"trial_id": trial.trial_id, "seed": trial.seed, "status": status} | _mixture(shares)


def check_columns(space: SearchSpace, row: Mapping[str, Any]) -> None:
    """Whether what a row says by domain is of domains that the space has.

    Raises:
        ValueError: of another.
    """
    for key in row:
        prefix, _, name = key.partition("/")
        if f"{prefix}/" in BY_DOMAIN and name not in space.domain_names:
            raise ValueError(f"{key} is not a domain of this study ({', '.join(space.domain_names)})")


def check_mixture(trial: Trial, row: Mapping[str, Any]) -> None:
    """Whether a row that names its mixture names the trial's own.

    Raises:
        ValueError: it names another.
    """
    for name, share in trial.mixture.items():
        told = _number(trial, f"mixture/{name}", row.get(f"mixture/{name}"))
        if told is not None and not abs(told - share) <= SUM_ERROR:
            raise ValueError(
                f"trial {trial.trial_id}: mixture/{name} is {told:g}, but {share:g} was proposed; "
                "results of another mixture come in by `from:` in the space"
            )


def unlike(space: SearchSpace, trial: Trial, body: Mapping[str, Any]) -> str | None:
    """What a record says of another size, length or mixture than was proposed, as a sentence; None if nothing."""
    if body["status"] in WITHOUT_RESULT:
        return None
    return far_scale(space, trial, body) or mixture_drawn(space, trial, body, body["n_tokens"])[1]


def far_scale(space: SearchSpace, trial: Trial, body: Mapping[str, Any]) -> str | None:
    """What a record says of a size or length more than twice or less than half of what was proposed; None if neither.

    It is the truth of whoever trained, and the law is fitted to it; but it may be a slip of units. Where the space
    names no proxies the target was proposed, and smaller is what is meant; but runs of confirmation are of one scale.
    """
    for key in NUMBERS[:2]:
        told, proposed = body[key], getattr(trial, key)
        short = told < proposed / FAR_SCALE and not (key == "n_tokens" and body["status"] in ON_THE_WAY)
        short = short and (space.names_proxies or trial.purpose == "confirm")
        if short or told > proposed * FAR_SCALE:
            return f"trial {trial.trial_id}: {key} is {told:.3g}, but {proposed:.3g} was proposed; it counts as told"
    return None


def _losses(space: SearchSpace, trial_id: str, row: Mapping[str, Any], status: str) -> dict[str, Any]:
    losses = space.losses_of(row)
    if status in ON_THE_WAY:
        late = {f"loss/{name}" for name in space.metric_names}
        losses = {column: value for column, value in losses.items() if value is not None or column not in late}
    missing = [column.removeprefix("loss/") for column, value in losses.items() if value is None]
    if missing:
        kind = "metric" if missing[0] in space.metric_names else "loss"
        raise NotReportedError(f"trial {trial_id}: {kind}/{missing[0]} was not reported")
    return losses


def _number(trial: Trial, key: str, value: Any) -> Any:
    """A number as it is, text that is one as that number; an empty cell is None."""
    value = str(value) if isinstance(value, bool | np.bool_) else value  # Python takes True for 1
    if value is None or isinstance(value, int | float | np.number):
        return value
    try:
        return float(value) if value != "" else None
    except (TypeError, ValueError):
        raise ValueError(f"trial {trial.trial_id}: {key} is {value!r}, it must be a number") from None


def is_above_0(value: Any) -> bool:
    """Whether it is a positive finite number, as a loss, a size and a token count are."""
    return isinstance(value, int | float | np.number) and math.isfinite(value) and bool(value > 0)


def without_result(trial: Trial, status: str, reason: object) -> dict[str, Any]:
    """The record of a trial that ended without a result; a reason is often an error, or nothing."""
    words = readable(reason or NO_REASON)[:LONGEST_REASON]
    body = {"trial_id": trial.trial_id, "seed": trial.seed, "status": status, "reason": words}
    return body | {"n_params": trial.n_params, "n_tokens": trial.n_tokens} | _mixture(trial.mixture)


def _mixture(shares: Mapping[str, float]) -> dict[str, float]:
    return {f"mixture/{name}": share for name, share in shares.items()}


def _plain(value: Any) -> Any:
    """JSON values only; a number that is not finite has no place in a record and becomes null."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
