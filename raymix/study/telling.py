"""What a trainer of one's own tells, before it is recorded: results by name as a row, rows of a file one by one."""

from collections.abc import Mapping, Sequence
from typing import Any

from raymix.space import SearchSpace
from raymix.study.ledger import Ledger
from raymix.study.row import ON_THE_WAY, check_columns, told_by_hand


def told_row(
    space: SearchSpace,
    losses: Mapping[str, float],
    metrics: Mapping[str, float] | None = None,
    tokens_seen: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Losses by eval domain, metrics by name and tokens by domain as columns of a row.

    Raises:
        ValueError: an eval domain, metric or domain that the space has not.
    """
    known = [eval_domain.name for eval_domain in space.eval_domains]
    for kind, given, names in (("eval domain", losses, known), ("metric", metrics or {}, space.metric_names)):
        for name in sorted(set(given) - set(names)):
            article = "an" if kind[0] == "e" else "a"
            raise ValueError(f"{name!r} is not {article} {kind} of this study ({', '.join(names)})")
    if tokens_seen is not None and not isinstance(tokens_seen, Mapping):
        raise ValueError(f"tokens_seen is {tokens_seen!r}, it must be tokens by domain; n_tokens is their sum")
    row: dict[str, Any] = {f"loss/{name}": loss for name, loss in losses.items()}
    row |= {f"metric/{name}": value for name, value in (metrics or {}).items()}
    row |= {f"tokens/{name}": tokens for name, tokens in (tokens_seen or {}).items()}
    check_columns(space, row)
    return row


def check_rows(ledger: Ledger, rows: Sequence[Mapping[str, Any]]) -> None:
    """Whether all of some rows could be recorded.

    Raises:
        ValueError: one could not; the message begins with the row.
    """
    names = ledger.space.eval_names
    columns = {f"loss/{name}" for name in names}
    for number, row in enumerate(rows, 1):
        unknown = sorted(key for key in row if key.startswith("loss/") and key not in columns)
        if unknown:
            raise ValueError(f"row {number}: {unknown[0]} is not an eval domain of this study ({', '.join(names)})")
        if "trial_id" not in row:
            raise ValueError(f"row {number}: the trial_id is missing")
        try:
            with told_by_hand():
                ledger.check(str(row["trial_id"]), row)
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from None


def told_again(ledger: Ledger, rows: Sequence[Mapping[str, Any]]) -> int:
    """How many of some rows are of trials that have ended, before or in a row above."""
    ended, again = {trial_id for trial_id in ledger.trials if ledger.status(trial_id)}, 0
    for row in rows:
        again += str(row["trial_id"]) in ended
        if row.get("status") not in ON_THE_WAY:
            ended.add(str(row["trial_id"]))
    return again
