"""What a person sees of money and of what a budget resolves, below a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from raymix.counts import human
from raymix.screens.screen import Screen


def show_costs(
    screen: Screen, money: Mapping[str, Any] | None, budgets: Sequence[Mapping[str, Any]], noise: str, unit: str
) -> None:
    """Tables of `Money.to_json()` and of `Budgeted.to_json()`; `unit` is that of the objective."""
    if money is not None:
        title = f"Money: {money['workers']} x {money['instance']}, {money['cloud']} {money['region']}"
        table = Table("rung", "trials", "hours", "on demand", "spot", "preemptions", title=title)
        for rung in money["rungs"]:
            costs = (f"{money['currency']} {rung[kind]:.2f}" for kind in ("on_demand", "spot"))
            size, hours = human(rung["n_params"]), f"{rung['hours']:.2f}"
            table.add_row(size, str(rung["trials"]), hours, *costs, f"{rung['preemptions']:.2f}")
        screen.console.print(table)
        total = f"{money['currency']} {money['on_demand']:.2f} on demand, {money['spot']:.2f} on spot, head included"
        hours = (
            f"{money['hours']:.1f} {'GPU' if money['gpu'] else 'machine'} hours, {money['wall_hours']:.1f} on the clock"
        )
        source = f"prices of {money['date']}, see {money['source']}; spot prices move"
        screen.say(f"{total}; {hours} ({money['basis']}; {source}).")
    table = Table("trials of the search", f"resolve a gain of ({unit}, 90%)", title=f"What a budget resolves ({noise})")
    for budget in budgets:
        table.add_row(Text(str(budget["trials"])), f"{budget['resolves']:.4f}")
    screen.console.print(table)
