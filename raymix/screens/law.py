"""What the commands on tables show, `raymix import` to `autoscale`: tables for people, one JSON object for machines."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from raymix.counts import human
from raymix.observations import Observations
from raymix.screens.screen import Screen, figure, named
from raymix.tables.law_file import LawFile
from raymix.tables.two_scales import Carried, OptimumAtScale
from raymix.target.continual import AtTokens, CriticalShare
from raymix.target.objective import with_unit
from raymix.target.recommend import Recommendation


def show_table(screen: Screen, table: Observations, out: Path) -> None:
    """An imported table."""
    usable = table.usable()
    facts = {
        "table": str(out),
        "rows": len(table),
        "usable": len(usable),
        "trials": len(set(table.trial_ids)),
        "domains": list(table.domains),
        "eval_domains": list(table.eval_domains),
    }
    if screen.as_json:
        return print(json.dumps(facts))
    losses = f"{len(usable)} with losses" if table.eval_domains else "no losses: queries"
    screen.say(
        f"{out}: {facts['trials']} trials, {len(table)} rows ({losses}), {len(table.domains)} domains, "
        f"{len(table.eval_domains)} eval domains"
    )


def show_fit(screen: Screen, found: LawFile, own: Mapping[str, str], out: Path) -> None:
    """A fitted law: what was chosen and how sure one may be."""
    assert found.trained is not None
    trained, scores = found.trained, found.choice["scores"]
    if screen.as_json:
        facts = {"law": str(out), "name": found.law.name, **found.choice, "notes": found.notes, "own": own}
        return print(json.dumps(facts | {"rows": trained.rows, "trials": trained.runs, "mixtures": trained.mixtures}))
    if scores:
        screen.console.print(_score_table(scores, found.law.name))
    screen.say(f"{out}: {found.law.name}; {found.choice['why']}.")
    sizes = ", ".join(human(size) for size in trained.n_params)
    low, high = (human(tokens) for tokens in trained.n_tokens)
    screen.say(f"Fitted to {trained.rows} rows of {trained.runs} trials and {trained.mixtures} mixtures: {sizes} "
               f"parameters, {low if low == high else f'{low} - {high}'} tokens; {len(own)} of "
               f"{len(found.eval_domains)} eval domains have a training domain of their name.")  # fmt: skip
    screen.notes(found.notes)


def show_predictions(screen: Screen, found: LawFile, rows: int, notes: Sequence[str], out: Path) -> None:
    """A table of predictions."""
    notes = [*found.notes, *notes]
    if screen.as_json:
        return print(json.dumps({"predictions": str(out), "rows": rows, "name": found.law.name, "notes": notes}))
    screen.say(f"{out}: {rows} rows, {len(found.eval_domains)} losses each with 90% intervals, by {found.law.name}")
    screen.notes(notes)


def show_optimum(screen: Screen, found: Recommendation, out: Path) -> None:
    """A recommendation."""
    if screen.as_json:
        return print(json.dumps({"recommendation": str(out), **found.to_json()}))
    proof, why = found.certificate, found.law["why"] or found.law["name"]
    if proof["convex"] or "polish" in proof:
        within = with_unit(f"{proof['gap']:.0e}", found.unit)
        best = f"Optimum within {within} ({proof['method']})"
    else:
        best = f"Best of the optima found ({proof['method']}), without proof: {found.law['name']} is not convex"
    screen.answer(found, f"{best}; {why}.")
    screen.say(str(out))


def show_critical_share(screen: Screen, found: CriticalShare, original: str, facts: dict[str, Any]) -> None:
    """The share by tokens of continual training."""
    if screen.as_json:
        return print(json.dumps(facts, allow_nan=False))
    table = Table("tokens trained", named(f"share of {original} that must stay"), "90%")
    for at in found.steps:
        table.add_row(human(at.n_tokens), _share(at.share), _interval(at))
    screen.console.print(table)
    screen.notes(found.notes)


def show_carried(screen: Screen, found: Carried, seen: tuple[OptimumAtScale, OptimumAtScale], out: Path) -> None:
    """The mixtures of the two scales and of the larger one."""
    if screen.as_json:
        return print(json.dumps({"recommendation": str(out), **found.to_json()}))
    tokens_3K = np.stack([*(at.ordered(found.domains).tokens_K for at in seen), found.tokens_K])
    total_3 = tokens_3K.sum(axis=1)
    table = Table(named("domain"), *(f"at {human(total)} tokens" for total in total_3), title="AutoScale")
    share_3K = tokens_3K / total_3[:, None]
    for name, *share_3 in zip(found.domains, *share_3K, strict=True):
        table.add_row(Text(name), *(f"{share:.1%}" for share in share_3))
    screen.console.print(table)
    screen.notes(found.notes)
    screen.say(str(out))


def _score_table(scores: Sequence[Mapping[str, Any]], chosen: str) -> Table:
    columns = ("law", "held out", "error", "objective", "rank", "R2")
    table = Table(*columns, title="Predictions of what was held out (laws are compared by error + objective)")
    for score in scores:
        ended = "" if score["folds"] == max(s["folds"] for s in scores if s["held_out"] == score["held_out"]) else " *"
        table.add_row(
            Text(score["name"] + ended, style="bold" if score["name"] == chosen else ""),
            score["held_out"],
            f"{score['error']:.2%}",
            f"{score['weighted_error']:.2%}",
            figure(score["rank_correlation_within_size"]),
            figure(score["contrast_r2"]),
        )
    if any(row.endswith(" *") for row in (str(cell) for cell in table.columns[0].cells)):
        table.caption = "* dropped early, far behind in the folds it had: its errors are of those alone"
    return table


def _share(share: float) -> str:
    return "none is enough" if np.isinf(share) else "?" if np.isnan(share) else f"{share:.1%}"


def _interval(at: AtTokens) -> str:
    return "?" if np.isnan(at.low) else f"{_share(at.low)} - {_share(at.high)}"
