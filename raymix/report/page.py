"""The page: what stands in it, and how it is written.

Everything that comes from a study (names, reasons, commands) is hostile until escaped: jinja2 autoescapes, JSON has
no `<`, figure labels are escaped for plotly, and a Content-Security-Policy admits only the scripts and the style
whose hashes are computed here, and no request to anywhere.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from raymix.counts import scale_words
from raymix.observations import REUSED, Observations
from raymix.report import figures, words
from raymix.report.heldout import Columns, by_scale, judged
from raymix.report.trials import Trial, best_trial, list_trials, sizes
from raymix.space import Scale, SearchSpace
from raymix.study.gain import Guard
from raymix.target.reading import epochs_of, stage_notes

PANELS = 24  # domains or eval domains that get a panel of their own; tables name all
MANY = 12  # domains up to which each stands under the bar, however small its share
FOREIGN_STYLE = r'getElementById\("([0-9a-f]{64})"\)'  # the bundle adds a map's style unless this id is taken
SMALL = 0.005  # share below which one of many domains is only in the table


def render(
    space: SearchSpace,
    observations: Observations,
    recommendation: Mapping[str, Any] | None,
    heldout: Mapping[str, Any] | None,
    state: Mapping[str, Any],
    confirmed: Mapping[str, Any] | None = None,
) -> str:
    """The page of a study: one self-contained HTML document that opens offline.

    Args:
        recommendation: as in recommendation.json, or None where there is none to give; a positive gain means that
            the objective of the baseline is that much higher.
        heldout: columns trial_id, n_params, n_tokens, observed, predicted, low, high of the objective, or None.
        state: study, command, seed, versions, space_hash, created; optionally `rounds` as {trial_id: 0, 1, ...}.
        confirmed: as in confirmation.json, where runs were made to confirm.
    """
    found = dict(recommendation or {})
    trials = list_trials(space, observations, state.get("rounds"))
    shares = found.get("mixture") or {}
    order = sorted(space.domain_names, key=lambda name: -shares.get(name, 0.0))
    groups = by_scale(heldout, {t.trial_id for t in trials if not t.whole})
    every = by_scale(heldout, {t.trial_id for t in trials if t.failed})
    best = best_trial(trials)
    drawn = _figures(space, observations, found, groups, trials, order)
    bundle = get_plotlyjs()
    template = _environment().from_string(_asset("page.html"))
    return template.render(
        space=space, found=found, state=state, trials=trials, best=best, order=order, panels=PANELS,
        colour=figures.colours(space.domain_names), sizes=_sizes(trials), called=words.apart(space.domain_names, 30),
        titled=words.apart([*space.domain_names, *observations.eval_domains], 60), stages=stage_notes(space),
        verdict=_verdict(found, trials), bars=_bars(space, found, order), reference=_reference(found), own=_own(found),
        baselines=_baselines(found), confirmed=confirmed, confirmed_gains=_confirmed(confirmed),
        heldout=judged(groups, every), replicated=_replicated(trials),
        evidence=_evidence(found, observations, trials),
        reasons=_reasons([t for t in trials if t.failed]), stops=_reasons([t for t in trials if t.stopped]),
        loss_unit=words.loss_unit([each.name for each in space.eval_domains]),
        unit=words.unit(space), objective=words.objective(space), worst=space.objective.reduce == "worst",
        fitted={name: words.fitted(space, name) for name in space.eval_names},
        weights=dict(zip(space.eval_names, space.weights_M.tolist(), strict=True)),
        loss_panels=[(f"loss-{i}", n) for i, n in enumerate(observations.eval_domains) if f"loss-{i}" in drawn],
        figures=drawn, data=_safe_json(drawn), plotly=Markup(bundle),
        foreign_styles=re.findall(FOREIGN_STYLE, bundle),
        style=Markup(_asset("page.css")),
    )  # fmt: skip


def _asset(name: str) -> str:
    return resources.files("raymix.report").joinpath(name).read_text(encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    for say in (words.human, words.power, words.duration, words.percent, words.number, words.interval, words.epochs,
                words.count, words.change, words.trust, words.short, words.decimals_for,
                words.law_words):  # fmt: skip
        environment.filters[say.__name__] = say
    environment.filters["csp_hash"] = _csp_hash
    environment.tests["known"] = words.known
    environment.tests["broken"] = lambda guard: Guard(**guard).broken
    environment.globals["scale_words"] = scale_words
    return environment


def _csp_hash(text: str) -> str:
    digest = hashlib.sha256(str(text).replace("\r\n", "\n").encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _safe_json(value: Any) -> Markup:
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _figures(
    space: SearchSpace, observations: Observations, found: Mapping[str, Any], groups: Sequence[tuple[Scale, Columns]],
    trials: list[Trial], order: Sequence[str],
) -> dict[str, figures.Spec]:  # fmt: skip
    drawn, unit = _share_panels(space, found, order), words.unit(space)
    for i, (_, columns) in enumerate(groups):
        drawn[f"heldout-{i}"] = figures.heldout_panel(columns, (found.get("law") or {}).get("noise"), unit)
    for column in range(min(len(observations.eval_domains), PANELS)):
        name = observations.eval_domains[column]
        axis = words.fitted(space, name) if name in space.metric_names else words.loss_unit([name])
        spec = figures.loss_panel(observations, trials, column, best_trial(trials), axis)
        if spec["data"]:
            drawn[f"loss-{column}"] = spec
    if trials and set(observations.domains) == set(space.domain_names):
        drawn["trials"] = figures.trials_figure(trials, observations.domains, order, best_trial(trials), unit)
    return drawn


def _share_panels(space: SearchSpace, found: Mapping[str, Any], order: Sequence[str]) -> dict[str, figures.Spec]:
    if not found.get("mixture"):
        return {}
    baselines = found.get("baselines") or {}
    rows = [(_own(found), found["mixture"]), *((n, b["mixture"]) for n, b in baselines.items() if b.get("mixture"))]
    near, colour = found.get("near_optimal") or {}, figures.colours(space.domain_names)
    tops = [share for _, mixture in rows for share in mixture.values()]
    limit = max(tops + [part["high"] for part in near.values() if words.known(part.get("high"))])
    return {
        f"share-{space.domain_names.index(name)}": figures.share_panel(
            [(title, mixture.get(name, 0.0)) for title, mixture in rows], near.get(name) or {}, colour[name], limit
        )
        for name in order[:PANELS]
    }


def _verdict(found: Mapping[str, Any], trials: Sequence[Trial]) -> dict[str, str]:
    verdict = found.get("verdict") or {}
    if not found.get("mixture"):
        if not trials:
            return {"kind": "none", "headline": "No recommendation", "reason": "No trial has run yet."}
        lost = sum(t.failed for t in trials)
        reason = f"{words.count(len(trials), 'trial')} so far, {lost} failed: not enough to fit a law and recommend."
        if lost == len(trials):
            reason = f"All {words.count(lost, 'trial')} failed: too few losses were measured to fit a law."
        return {"kind": "none", "headline": "No recommendation", "reason": verdict.get("reason") or reason}
    if verdict.get("answer") == "use it":
        return {"kind": "use", "headline": "Use it", "reason": verdict.get("reason") or ""}
    if _to_confirm(found):
        return {"kind": "keep", "headline": "Confirm it first", "reason": verdict.get("reason") or ""}
    headline = f"Keep the baseline: {verdict.get('baseline') or 'the mixture used today'}"
    return {"kind": "keep", "headline": headline, "reason": verdict.get("reason") or ""}


def _own(found: Mapping[str, Any]) -> str:
    """What the mixture of the study is called: only `use it` makes it a recommendation."""
    return "recommended" if (found.get("verdict") or {}).get("answer") == "use it" else "optimum"


def _to_confirm(found: Mapping[str, Any]) -> bool:
    """Whether the gain is one that no run speaks of."""
    return str((found.get("verdict") or {}).get("answer")).startswith("confirm first")


def _reference(found: Mapping[str, Any]) -> str | None:
    """The baseline that the verdict compares with."""
    baselines, named = found.get("baselines") or {}, (found.get("verdict") or {}).get("baseline")
    return named if named in baselines else next(iter(baselines), None)


def _bars(space: SearchSpace, found: Mapping[str, Any], order: Sequence[str]) -> list[dict[str, Any]]:
    """The recommended mixture; above it the baseline, where that is what to use."""
    if not found.get("mixture"):
        return []
    n_tokens = (found.get("scale") or {}).get("n_tokens") or space.target.n_tokens
    keep = _own(found) == "optimum"
    undecided = "to be confirmed" if _to_confirm(found) else "not recommended"
    title = f"Optimum under the law, {undecided}" if keep else "Recommended mixture"
    bars = [_bar(title, space, found["mixture"], order, n_tokens)]
    kept = (found.get("baselines") or {}).get(_reference(found) or "", {})
    if keep and kept.get("mixture"):
        word = "Until then" if _to_confirm(found) else "Keep"
        bars.insert(0, _bar(f"{word}: {_reference(found)}", space, kept["mixture"], order, n_tokens))
    return bars


def _bar(
    title: str, space: SearchSpace, mixture: Mapping[str, float], order: Sequence[str], n_tokens: float
) -> dict[str, Any]:
    counted = epochs_of(space, np.asarray([mixture.get(name, 0.0) for name in space.domain_names]), n_tokens)
    colour, left = figures.colours(space.domain_names), 0.0
    parts: list[dict[str, Any]] = []
    for name in order:
        share = float(mixture.get(name, 0.0))
        paint = {"colour": colour[name], "ink": figures.ink_on(colour[name])}
        parts.append({"name": name, "share": share, "left": 100 * left, "epochs": counted[name], **paint})
        left += share
    listed = [p for p in parts if p["share"] >= SMALL] if len(parts) > MANY else parts
    small = [p for p in parts if p not in listed]
    return {"title": title, "parts": parts, "listed": listed, "n_small": len(small),
            "small_share": sum(p["share"] for p in small)}  # fmt: skip


def _baselines(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Objective and gain of each baseline, with the places of the gain on a common scale in percent."""
    rows = []
    for name, baseline in (found.get("baselines") or {}).items():
        mean = (baseline.get("objective") or {}).get("mean")
        rows.append({"name": name, "objective": mean, "gain": baseline.get("gain") or {}})
    for row, places in zip(rows, _places([row["gain"] for row in rows]), strict=True):
        row["places"] = places
    return rows


def _confirmed(confirmed: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Predicted and seen gain over each baseline, with their places on a common scale in percent."""
    gains = dict((confirmed or {}).get("gains") or {})
    seen = [{key: gain.get(key) for key in ("mean", "low", "high")} for gain in gains.values()]
    places = _places([*(gain["predicted"] for gain in gains.values()), *seen])
    return [
        {"name": name, "gain": gain, "predicted_at": places[i], "seen_at": places[len(gains) + i]}
        for i, (name, gain) in enumerate(gains.items())
    ]


def _places(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Where values and zero lie on a scale that holds all of them, in percent of its width."""
    ends = [v for part in parts for v in part.values() if words.known(v)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    width = (high - low) or 1
    return [
        {key: 4 + 92 * (v - low) / width for key, v in {**part, "zero": 0.0}.items() if words.known(v)}
        for part in parts
    ]


def _replicated(trials: Sequence[Trial]) -> bool:
    """Whether some mixture was trained twice at one scale, so that noise was measured rather than estimated."""
    done = [(t.n_params, t.n_tokens, *np.round(t.mix_K, 9)) for t in trials if t.whole]
    return len(set(done)) < len(done)


def _sizes(trials: list[Trial]) -> list[dict[str, str]]:
    """Each proxy size with its shade, for the keys beside the figures."""
    return [{"name": words.human(n), "shade": figures.size_colour(n, sizes(trials))[1:]} for n in sizes(trials)]


def _reasons(trials: Sequence[Trial]) -> list[tuple[str, list[str]]]:
    """Why these trials did not come to their end: each reason with the trials it took, most frequent first."""
    grouped: dict[str, list[str]] = {}
    for trial in trials:
        grouped.setdefault(trial.reason, []).append(trial.trial_id)
    return sorted(grouped.items(), key=lambda item: -len(item[1]))


def _evidence(found: Mapping[str, Any], observations: Observations, trials: Sequence[Trial]) -> dict[str, Any]:
    """Trials counted from the table, failed ones too; what they spent as recorded, else added up to their last losses.

    A sum of nothing is not known: a trainer of somebody else need not say its FLOPs and seconds.
    """
    recorded = found.get("evidence") or {}
    own = [t for t in trials if not t.trial_id.startswith(REUSED)]
    last = observations.select(np.asarray([t.rows[-1] for t in own if len(t.rows)], dtype=np.int64))
    spent = {name: recorded.get(name) or float(np.nansum(last.column(column))) or None
             for name, column in (("tokens", "n_tokens"), ("flops", "flops"), ("seconds", "seconds"))}  # fmt: skip
    return {
        "trials": len(trials),
        "reused": len(trials) - len(own),
        "failed": sum(t.failed for t in trials),
        "stopped": sum(t.stopped for t in trials),
        "rows": sum(len(t.rows) for t in trials),
        "seeds": sorted({t.seed for t in trials}),
        **spent,
    }
