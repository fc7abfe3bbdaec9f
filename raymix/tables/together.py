"""The runs of several tables as one, such as the imports of one sweep at several sizes: `raymix fit A B`."""

from collections.abc import Sequence
from pathlib import Path

from raymix.observations import Observations
from raymix.sheet import listed


def together(tables: Sequence[tuple[Path, Observations]]) -> Observations:
    """One table of all rows, domains in the order of the first; what another alone has measured is NaN in the rest.

    Raises:
        ValueError: other domains, runs of one name that are not one run, or a number that is a metric here and a loss
            there; names the tables.
    """
    (path, first), *others = tables
    for other, table in others:
        for name in sorted(set(first.domains) ^ set(table.domains))[:1]:
            has, lacks = (path, other) if name in first.domains else (other, path)
            raise ValueError(f"{lacks}: there is no column mixture/{name}, which {has} has: tables that are fitted "
                             "together have the same domains; add it, with 0 where a mixture has none")  # fmt: skip
    if not others:
        return first
    eval_domains = dict.fromkeys(name for _, table in tables for name in table.eval_domains)
    metrics = dict.fromkeys(name for _, table in tables for name in table.metrics)
    _check_metrics(tables)
    rows = [row for _, table in tables for row in table.table.to_pylist()]
    try:
        return Observations.from_rows(rows, first.domains, tuple(eval_domains), tuple(metrics))
    except ValueError as error:
        raise ValueError(f"{listed([path for path, _ in tables], 3)}: {error}") from None


def _check_metrics(tables: Sequence[tuple[Path, Observations]]) -> None:
    """Nothing, if no number is a metric in one table and a loss in another: there it would not be read."""
    with_loss = {name: path for path, table in tables for name in table.eval_domains}
    for path, table in tables:
        for name in table.metrics:
            if name in with_loss and name not in table.eval_domains:
                raise ValueError(f"{path}: metric/{name} has no loss/{name} beside it, which {with_loss[name]} has: "
                                 f"let all have the metric alone, and say --metric {name}=high or =low")  # fmt: skip
