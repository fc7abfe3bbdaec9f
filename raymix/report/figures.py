"""The figures of the page as plain plotly specifications, one function each.

Colours that follow the theme are written `@name` and resolved by the page to its CSS variable `--name`; a domain
keeps one colour everywhere. Names are escaped here, because plotly renders pseudo-HTML, and never stand in a template.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from raymix.observations import Observations
from raymix.report import words
from raymix.report.trials import Trial, sizes

Spec = dict[str, Any]
# Okabe & Ito (2008), told apart with any colour vision; then the same hues darker and lighter.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#8C8C8C")
GREYS = 4  # shades `@size1` to `@size4`, from the smallest proxy to the largest
ROW = 19  # pixels per trial in the figure of mixtures
TALL = 1500  # pixels that figure may take
ABSURD = 5.0  # times the median: a loss above it would flatten an axis for all others; even untrained models lie below


def colours(names: Sequence[str]) -> dict[str, str]:
    """One fixed colour per domain, in the order of the space."""
    return {name: _shade(PALETTE[i % len(PALETTE)], (i // len(PALETTE)) % 3) for i, name in enumerate(names)}


def _shade(colour: str, step: int) -> str:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    mixed = [(c, 0.6 * c, 0.5 * c + 127)[step] for c in rgb]
    return "#" + "".join(f"{round(c):02X}" for c in mixed)


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on a colour (relative luminance, WCAG 2)."""
    linear = [(int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)]
    return "#111111" if float(np.dot(linear, (0.2126, 0.7152, 0.0722))) > 0.22 else "#FFFFFF"


def size_colour(n_params: float, all_sizes: Sequence[float]) -> str:
    """The shade of grey of a proxy size."""
    rank = all_sizes.index(n_params) if n_params in all_sizes else 0
    step = GREYS - 1 if len(all_sizes) == 1 else 1 + round((GREYS - 1) * rank / (len(all_sizes) - 1))
    return f"@size{step}"


def label(name: str, length: int = 22) -> str:
    """A name as text of a figure: shortened, and escaped for plotly's pseudo-HTML."""
    text = words.short(name, length)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def share_panel(rows: Sequence[tuple[str, float]], near: Mapping[str, Any], colour: str, limit: float) -> Spec:
    """Shares of one domain: the mixture of the study first, with its near-optimal interval, then the baselines."""
    shares, y = [100 * share for _, share in rows], list(range(len(rows)))[::-1]
    bar = {"type": "bar", "orientation": "h", "width": 0.72, "hoverinfo": "skip"}
    own = bar | {"x": shares[:1], "y": y[:1], "marker": {"color": colour, "line": {"width": 0}}}
    others = bar | {"x": shares[1:], "y": y[1:], "marker": {"color": "@bar", "line": {"width": 0}}}
    above = 0.0
    if words.known(near.get("low")) and words.known(near.get("high")):
        above, below = max(100 * near["high"] - shares[0], 0.0), max(shares[0] - 100 * near["low"], 0.0)
        own["error_x"] = {"type": "data", "array": [above], "arrayminus": [below], "symmetric": False,
                          "color": "@ink", "thickness": 1.3, "width": 3}  # fmt: skip
    ends = {
        "type": "scatter", "mode": "text", "y": y, "x": [shares[0] + above, *shares[1:]],
        "text": [" " + words.percent(share) for _, share in rows], "textposition": "middle right",
        "textfont": {"color": "@ink", "size": 12}, "cliponaxis": False, "hoverinfo": "skip",
    }  # fmt: skip
    layout = _layout(27 * len(rows) + 48, left=92, right=8)
    layout["xaxis"] = _axis("share of tokens, %", range=[0, 100 * limit * 1.24], nticks=5)
    layout["yaxis"] = _axis("", tickvals=y, ticktext=[label(name, 13) for name, _ in rows], showgrid=False,
                            range=[-0.6, len(rows) - 0.4])  # fmt: skip
    return {"data": [own, others, ends], "layout": layout}


def heldout_panel(column: Mapping[str, Sequence[Any]], noise: Any, unit: str) -> Spec:
    """Predicted against observed objective of held-out trials of one scale, with y = x and the noise around it."""
    dots = _heldout_dots(column)
    error = dots["error_y"]
    tops = [y + up for y, up in zip(dots["y"], error["array"], strict=True)]
    bottoms = [y - down for y, down in zip(dots["y"], error["arrayminus"], strict=True)]
    most = _most([*dots["x"], *dots["y"]])
    low = min(*bottoms, *dots["x"], math.inf)
    high = max((value for value in (*tops, *dots["x"]) if value <= most), default=most)
    pad = 0.05 * (high - low) or 0.01
    low, high = low - pad, high + pad
    line = {"type": "scatter", "mode": "lines", "x": [low, high], "y": [low, high], "hoverinfo": "skip",
            "line": {"color": "@muted", "width": 1, "dash": "dot"}}  # fmt: skip
    layout = _layout(330, left=60, right=10)
    both = {"range": [low, high], "dtick": _step(high - low), "tick0": 0}
    layout["xaxis"] = _axis(f"observed objective, {label(unit)}", **both)
    layout["yaxis"] = _axis(f"predicted objective, {label(unit)}", **both)
    layout["annotations"] = _beyond(max(at) for at in zip(dots["x"], dots["y"], strict=True) if max(at) > most)
    if words.known(noise):
        path = f"M{low},{low - noise}L{high},{high - noise}L{high},{high + noise}L{low},{low + noise}Z"
        band = {"type": "path", "path": path, "fillcolor": "@band", "line": {"width": 0}, "layer": "below"}
        layout["shapes"] = [band]
    return {"data": [line, dots], "layout": layout}


def _heldout_dots(column: Mapping[str, Sequence[Any]]) -> Spec:
    up = [max(h - p, 0.0) if _finite(h) else 0.0 for h, p in zip(column["high"], column["predicted"], strict=True)]
    down = [max(p - w, 0.0) if _finite(w) else 0.0 for w, p in zip(column["low"], column["predicted"], strict=True)]
    return {
        "type": "scatter", "mode": "markers", "x": column["observed"], "y": column["predicted"],
        "marker": {"color": "@ink", "size": 8, "line": {"color": "@paper", "width": 1}},
        "error_y": {"type": "data", "array": up, "arrayminus": down, "symmetric": False, "width": 0, "thickness": 1,
                    "color": "@muted"},
        "text": [label(str(t)) for t in column["trial_id"]],
        "hovertemplate": "%{text}<br>observed %{x:.4f}<br>predicted %{y:.4f}<extra></extra>",
    }  # fmt: skip


def loss_panel(observations: Observations, trials: Sequence[Trial], column: int, best: Trial | None, unit: str) -> Spec:
    """Losses of one eval domain over tokens: a thin line per trial, the best trial on top."""
    all_sizes = sizes(list(trials))
    data = []
    for size in all_sizes:
        group = [t for t in trials if t.n_params == size and t is not best]
        data.append(_loss_lines(observations, group, column, size_colour(size, all_sizes), 1.1))
    if best is not None:
        data.append(_loss_lines(observations, [best], column, "@accent", 2.6))
    layout = _layout(232, left=44, right=12)
    layout["xaxis"] = _axis("tokens trained on", type="log", **_log_ticks(observations.scale_B2[:, 1]))
    layout["yaxis"] = _axis(label(unit), nticks=5, automargin=True)
    losses = [y for line in data for y in line["y"] if y is not None]
    most = _most(losses)
    if any(y > most for y in losses):
        low, high = min(losses), max(y for y in losses if y <= most)
        pad = 0.05 * (high - low) or 0.01
        layout["yaxis"] |= {"range": [low - pad, high + pad]}
        layout["annotations"] = _beyond(y for y in losses if y > most)
    return {"data": [d for d in data if d["x"]], "layout": layout}


def _loss_lines(observations: Observations, trials: Sequence[Trial], column: int, colour: str, width: float) -> Spec:
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial in trials:
        rows = [row for row in trial.rows if np.isfinite(observations.loss_BM[row, column])]
        if rows:  # a gap ends each line: one trace per size stays fast with hundreds of trials
            x += [*(float(observations.scale_B2[row, 1]) for row in rows), None]
            y += [*(float(observations.loss_BM[row, column]) for row in rows), None]
            text += [label(trial.trial_id)] * (len(rows) + 1)
    return {
        "type": "scatter", "mode": "lines+markers", "x": x, "y": y, "text": text,
        "line": {"color": colour, "width": width}, "marker": {"color": colour, "size": 2.2 * width + 0.8},
        "hovertemplate": "%{text}<br>%{y:.4f} at %{x:.3s} tokens<extra></extra>",
    }  # fmt: skip


def _most(values: Iterable[float]) -> float:
    """The largest value that an axis is stretched for; infinite without values."""
    known = [value for value in values if _finite(value)]
    return ABSURD * float(np.median(known)) if known else math.inf


def _beyond(values: Iterable[float]) -> list[Spec]:
    """A note in the corner that names the values above the axis; none without."""
    above = sorted(values, reverse=True)
    if not above:
        return []
    text = f"{words.count(len(above), 'value')} above, up to {above[0]:.3g}"
    font = {"size": 11, "color": "@warn"}
    return [_note(text, 1, 1, xref="paper", yref="paper", xanchor="right", yanchor="top", font=font)]


def _step(span: float) -> float:
    """A round distance between about four ticks."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= span / 4.5)


def _log_ticks(values: Any) -> Spec:
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return {}
    low, high = math.log10(values.min()), math.log10(values.max())
    steps = (1, 2, 5) if high - low < 1.3 else (1, 3) if high - low < 2.3 else (1,)
    ticks = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in steps]
    pad = 0.06 * (high - low) or 0.1
    kept = [t for t in ticks if low - pad <= math.log10(t) <= high + pad]
    if len(kept) < 2:  # one tick alone says nothing of how far apart two checkpoints are
        kept = sorted({float(values.min()), float(values.max())})
    return {"tickvals": kept, "ticktext": [words.human(t) for t in kept], "range": [low - pad, high + pad]}


def trials_figure(
    trials: Sequence[Trial], names: Sequence[str], order: Sequence[str], best: Trial | None, unit: str
) -> Spec:
    """Mixtures tried: a stacked bar per trial from the top down, its objective beside it.

    Failed trials are hatched, and stopped ones pale like them.
    """
    y, notes = _places(trials)
    colour_of, bars, called = colours(names), [], words.apart(names)
    ids = words.apart([t.trial_id for t in trials], 9)
    fate = ["failed" if t.failed else "stopped" if t.stopped else "" for t in trials]
    hover = [
        label(t.trial_id) + (f" {f}: {label(t.reason, 60)}" if f else "") for t, f in zip(trials, fate, strict=True)
    ]
    for name in order:
        shares = [100 * float(trial.mix_K[names.index(name)]) for trial in trials]
        bars.append({
            "type": "bar", "orientation": "h", "x": shares, "y": y, "width": 0.82,
            "text": hover, "textposition": "none", "meta": label(called[name]),
            "hovertemplate": "%{text}<br>%{meta} %{x:.1f}%<extra></extra>",
            "marker": {"color": colour_of[name], "opacity": [0.3 if f else 1.0 for f in fate],
                       "pattern": {"shape": ["/" if t.failed else "" for t in trials], "size": 5, "solidity": 0.3},
                       "line": {"width": 0}},
        })  # fmt: skip
    row = min(float(ROW), TALL / (max(y, default=0) + 1))
    layout = _layout(round(row * (max(y, default=0) + 1.4)) + 62, left=64, right=10) | {"barmode": "stack"}
    layout["margin"]["b"] = 56
    layout["annotations"] = notes + [
        _note(f, 0, at, xref="x2 domain", xanchor="left", font={"size": min(11, row - 3), "color": "@warn"})
        for f, at in zip(fate, y, strict=True) if f and row > 8
    ]  # fmt: skip
    shown_at = [(t.objective, at) for t, at in zip(trials, y, strict=True) if np.isfinite(t.objective) and t.whole]
    most = _most(value for value, _ in shown_at)
    layout["annotations"] += [
        _note(f"{value:.3g} \u2192", 1, at, xref="x2 domain", xanchor="right", font={"size": 11, "color": "@warn"})
        for value, at in shown_at if value > most
    ]  # fmt: skip
    layout["xaxis"] = _axis("share of tokens, %", range=[0, 100], domain=[0, 0.64], nticks=5, showgrid=False)
    layout["xaxis2"] = _axis(f"objective,<br>{label(unit)}", domain=[0.71, 1], nticks=4, anchor="y")
    layout["xaxis2"]["visible"] = bool(shown_at)
    shown = row > 11
    layout["yaxis"] = _axis("", range=[max(y, default=0) + 0.7, -0.7], showgrid=False, tickvals=y if shown else [],
                            automargin=True,
                            ticktext=[label(ids[t.trial_id], 9) for t in trials] if shown else [])  # fmt: skip
    if not shown:
        layout["yaxis"]["title"] = {"text": "trials, first at the top", "font": {"size": 12, "color": "@muted"}}
    return {"data": [*bars, _objective_dots(trials, y, best, row, most)], "layout": layout}


def _objective_dots(trials: Sequence[Trial], y: Sequence[int], best: Trial | None, row: float, most: float) -> Spec:
    all_sizes = sizes(list(trials))
    shown = [(t, at) for t, at in zip(trials, y, strict=True) if t.objective <= most and t.whole]  # not NaN
    colour = ["@accent" if t is best else size_colour(t.n_params, all_sizes) for t, _ in shown]
    dot = [max(3.0, min(9.0, 0.5 * row)) * (1.35 if t is best else 1) for t, _ in shown]
    return {
        "type": "scatter", "mode": "markers", "xaxis": "x2", "x": [t.objective for t, _ in shown],
        "y": [at for _, at in shown], "marker": {"color": colour, "opacity": 1, "size": dot},
        "text": [f"{label(t.trial_id)}, {words.human(t.n_params)} parameters" for t, _ in shown],
        "hovertemplate": "%{text}<br>objective %{x:.4f}<extra></extra>", "cliponaxis": False,
    }  # fmt: skip


def _places(trials: Sequence[Trial]) -> tuple[list[int], list[Spec]]:
    """The row of each trial, with a free row that carries a label where a round begins."""
    y: list[int] = []
    notes: list[Spec] = []
    place, before = 0, None
    for trial in trials:
        if trial.round is not None and trial.round != before:
            notes.append(_note(f"round {trial.round + 1}", 0, place, xref="x domain", xanchor="left",
                               font={"size": 11, "color": "@muted"}))  # fmt: skip
            place += 1
        y.append(place)
        place, before = place + 1, trial.round
    return y, notes


def _note(text: str, x: float, y: float, **more: Any) -> Spec:
    return {"text": text, "x": x, "y": y, "showarrow": False, "borderpad": 0} | more


def _layout(height: int, left: int, right: int) -> Spec:
    return {
        "height": height, "margin": {"l": left, "r": right, "t": 6, "b": 42, "pad": 2}, "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "dragmode": False, "hovermode": "closest",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "@ink"},
        "hoverlabel": {"bgcolor": "@paper", "bordercolor": "@rule", "font": {"color": "@ink", "size": 12}},
    }  # fmt: skip


def _axis(title: str, **more: Any) -> Spec:
    return {
        "title": {"text": title, "font": {"size": 12, "color": "@muted"}, "standoff": 8}, "fixedrange": True,
        "gridcolor": "@rule", "gridwidth": 1, "zeroline": False, "showline": False, "ticks": "",
        "tickfont": {"size": 12, "color": "@muted"},
    } | more  # fmt: skip


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
