"""The page of results and the curves, from stored runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search_methods import DEFAULT, METHODS
from benchmarks.search_scores import GOAL, ONE_SCALE, SHOWN, Regrets, by_method, cell, duels, quarter, trials_to_goal
from benchmarks.worlds.base import SINGLE, World

ORDER = (DEFAULT, ONE_SCALE, *(m.name for m in METHODS if m.name != DEFAULT))


def grouped(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Regrets]]:
    """World -> method -> regrets."""
    names = dict.fromkeys(str(record["world"]) for record in records)
    return {name: by_method(r for r in records if r["world"] == name) for name in names}


def page(records: Sequence[Mapping[str, Any]], worlds: Mapping[str, World], head: Sequence[str]) -> str:
    """Markdown: a summary at 64, then a table and the verdict for every world."""
    found = grouped(records)
    singles = {name: methods for name, methods in found.items() if name.startswith(SINGLE)}
    others = {name: methods for name, methods in found.items() if name not in singles}
    parts = ["# Searchers, measured", "", *head, "", *summary(others), "", *losses(others), "", *one_loss(singles)]
    for name, methods in others.items():
        parts += [f"## {name}", "", about(worlds[name]) if name in worlds else "", "", table(methods), ""]
        parts += [*(f"- {line}" for line in verdict(methods)), ""]
    errors = [r for r in records if r.get("error")]
    if errors:
        parts += ["## Runs that ended in an error", ""]
        parts += [f"- {r['world']}, {r['method']}, seed {r['seed']}: {r['error']}" for r in errors]
    return "\n".join(parts) + "\n"


def summary(found: Mapping[str, Mapping[str, Regrets]], budget: int = 64) -> list[str]:
    """Mean regret at one budget, methods by worlds."""
    methods = [m for m in ORDER if any(m in found[w] for w in found)]
    lines = [
        f"Mean regret (%) after {budget} trials:",
        "",
        f"| | {' | '.join(found)} |",
        "|---" * (len(found) + 1) + "|",
    ]
    for method in methods:
        cells = [cell(found[w].get(method, {}), budget) for w in found]
        lines.append(f"| {method} | " + " | ".join("" if c is None else f"{c.mean:.0f}" for c in cells) + " |")
    return lines


def one_loss(found: Mapping[str, Mapping[str, Regrets]]) -> list[str]:
    """The worlds of a single loss each, one line each, with means over them."""
    if not found:
        return []
    methods = [m for m in ORDER if any(m in found[w] for w in found)]
    columns = [
        (method, budget)
        for budget in SHOWN
        for method in methods
        if any(budget in w.get(method, {}) for w in found.values())
    ]
    lines = [
        "## Single losses", "",
        "Each other loss of the simulator alone, shares up to 15 times the prior. Mean regret (%), standard error.",
        "", "| loss | " + " | ".join(f"{method} {budget}" for method, budget in columns) + " | seeds |",
        "|---" * (len(columns) + 2) + "|",
    ]  # fmt: skip
    cells = {w: [cell(found[w].get(m, {}), budget) for m, budget in columns] for w in found}
    for world, row in cells.items():
        seeds = dict.fromkeys(str(c.seeds) for c in row if c)
        shown = " | ".join("" if c is None else c.words() for c in row)
        lines.append(f"| {world.removeprefix(SINGLE)} | {shown} | {' / '.join(seeds)} |")
    means = [[row[i].mean for row in cells.values() if row[i]] for i in range(len(columns))]
    lines.append("| mean | " + " | ".join(f"{np.mean(mean):.1f}" for mean in means) + " | |")
    return [*lines, "", *losses(found), ""]


def losses(found: Mapping[str, Mapping[str, Regrets]]) -> list[str]:
    """Where another method is better than the default by more than the standard error, and how often not."""
    fought = [(world, duel) for world, methods in found.items() for duel in duels(methods)]
    if not fought:
        return []
    lost = [f"- {world}, {duel.words()}" for world, duel in fought if duel.beaten]
    count = f"{len(lost)} of {len(fought)} comparisons (a world at 32, 64 or 128 trials)"
    return [f"Another method is better than `{DEFAULT}` by more than the standard error in {count}:", "", *lost]


def about(world: World) -> str:
    """What a world is, and what was measured of it."""
    facts = [f"the gap (100%) is {world.gap:.3f} nats"]
    noise = float(np.sqrt(world.space.weights_M @ world.noise_MM @ world.space.weights_M))
    if noise:
        level = float(world.values(world.natural_K)[0])
        facts.append(
            f"noise of the objective in one run {noise * level:.4f} nats ({100 * noise * level / world.gap:.0f}% of it)"
        )
    if world.scale_aware:
        facts.append(f"the optimum of the smallest rung has a regret of {world.stale:.0f}% at the target")
    facts += [f"{name} {value:.3f}" for name, value in world.facts.items()]
    return f"{world.about}. " + "; ".join(facts) + "."


def table(methods: Mapping[str, Regrets]) -> str:
    """Methods by budgets, mean and standard error."""
    lines = [
        "| method | " + " | ".join(map(str, SHOWN)) + f" | trials to {GOAL:g}% | seeds |",
        "|---" * (len(SHOWN) + 3) + "|",
    ]
    for name in [m for m in ORDER if m in methods]:
        cells = [cell(methods[name], budget) for budget in SHOWN]
        needed = trials_to_goal(methods[name])
        counts = [str(c.seeds) for c in cells if c]
        seeds = counts[0] if len(set(counts)) == 1 else " / ".join(counts)
        most = f"> {max(methods[name], default=0)}"
        shown = " | ".join("" if c is None else c.words() for c in cells)
        lines.append(f"| {name} | {shown} | {most if needed is None else needed} | {seeds} |")
    return "\n".join(lines)


def verdict(methods: Mapping[str, Regrets]) -> list[str]:
    """Whether any method beats the default, per budget; what one scale costs; trials to the goal."""
    lines = [duel.words() for duel in duels(methods)]
    if ONE_SCALE in methods:
        lines += [line for budget in SHOWN for line in ladder_pays(methods, budget)]
    if DEFAULT in methods:
        lines.append(f"trials to {GOAL:g}%: {quarter(methods)}")
    return lines


def ladder_pays(methods: Mapping[str, Regrets], budget: int) -> list[str]:
    """The default with its ladder beside the best method at one scale, itself at one scale among them."""
    scores = {name: cell(regrets, budget) for name, regrets in methods.items()}
    own = scores.pop(DEFAULT, None)
    known = {name: score for name, score in scores.items() if score is not None}
    if own is None or not known:
        return []
    best = min(known, key=lambda name: known[name].mean)
    beside = f"best at one scale {best} {known[best].words()}"
    ratio = f"ratio {own.mean / known[best].mean:.2f}, " if known[best].mean else ""
    goal = "reached" if own.mean <= 0.5 * known[best].mean else "missed"
    return [f"{budget} equivalents: {own.words()} with the ladder, {beside} ({ratio}half: {goal})"]


def curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Mean regret against trials with standard errors, a panel per world, as an HTML page."""
    import plotly.colors
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    found = {name: methods for name, methods in grouped(records).items() if not name.startswith(SINGLE)}
    columns = 2
    rows = -(-len(found) // columns)
    figure = make_subplots(rows, columns, subplot_titles=list(found), vertical_spacing=0.35 / max(rows, 1))
    palette = plotly.colors.qualitative.Dark24
    for i, methods in enumerate(found.values()):
        for name in [m for m in ORDER if m in methods]:
            budgets = sorted(methods[name])
            cells = [cell(methods[name], budget) for budget in budgets]
            figure.add_trace(
                go.Scatter(
                    x=budgets, y=[c.mean for c in cells if c], name=name, legendgroup=name, showlegend=i == 0,
                    error_y={"array": [c.error for c in cells if c], "thickness": 0.8, "width": 2},
                    line={"color": palette[ORDER.index(name) % len(palette)], "width": 4 if name == DEFAULT else 1.5},
                ),
                row=i // columns + 1, col=i % columns + 1,
            )  # fmt: skip
    figure.update_xaxes(type="log", title_text="trials (of the cheapest rung)", tickvals=[8, 16, 32, 64, 128])
    figure.update_yaxes(title_text="regret, %", range=[0, 150])
    figure.update_layout(
        height=380 * rows, width=1200, template="plotly_white", title="Regret of the recommended mixture"
    )
    path.parent.mkdir(exist_ok=True, parents=True)
    figure.write_html(path, include_plotlyjs=True)
