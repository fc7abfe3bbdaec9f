"""The page: a stranger's data cannot get out of its place, and every figure draws."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pytest

from raymix.laws import HedgedUnion
from raymix.observations import Observations
from raymix.report import figures, render, words
from raymix.report.heldout import by_scale, judged
from raymix.report.trials import best_trial, list_trials
from raymix.space import SearchSpace
from raymix.target.held_out import HeldOut

NAMES = ("web", "code", "books", "math", "wiki")
HOSTILE = (
    "<script>document.title='x'</script>",
    "\"><img src=x onerror=document.title='x'>",
    "</script><script>document.title='x'</script>",
    "\u202e\u7db2 \u30a6\u30a7\u30d6 {{ 7 * 7 }} %{x}",
    "&lt;b&gt;" + "very-long-name/" * 30,
)
SIZES = ((20e6, 1e9), (60e6, 3e9))


def make_study(names: tuple[str, ...] = NAMES, fail: tuple[int, ...] = (5, 13)) -> dict[str, Any]:
    """A realistic study: 5 domains, 24 trials in three rounds, 2 sizes, 3 checkpoints."""
    prior = (0.67, 0.12, 0.10, 0.04, 0.07)
    available = (4.1e12, 6.0e11, 9.0e10, 1.2e11, 2.0e10)
    space = SearchSpace.parse({
        "name": "web-code-books",
        "domains": [{"name": n, "prior": p, "available_tokens": a}
                    for n, p, a in zip(names, prior, available, strict=True)],
        "eval_domains": [*({"name": n, "own": n} for n in names), {"name": "exams"}],
        "ladder": [{"n_params": n, "n_tokens": d} for n, d in SIZES],
        "target": {"n_params": 7e9, "n_tokens": 2e12, "max_epochs": 4},
    })  # fmt: skip
    rng = np.random.default_rng(3)
    mix_TK = rng.dirichlet(6 * np.asarray(prior), 24)
    mix_TK[:2] = prior
    rows = [row for t in range(24) for row in _rows(t, mix_TK[t], names, space.eval_names, t in fail, rng)]
    observations = Observations.from_rows(rows, names, space.eval_names)
    rounds = {f"t{t:03d}": t // 8 for t in range(24)}
    return {"space": space, "observations": observations, "recommendation": _recommendation(names, prior, space, rng),
            "heldout": _heldout(rows, rng),
            "state": {"study": "runs/first", "command": "raymix run search_spaces/web.yaml --study runs/first",
                      "seed": 0, "versions": {"raymix": "0.1.0", "torch": "2.13.0"}, "space_hash": space.hash(),
                      "created": "2026-03-02 14:05 UTC", "rounds": rounds}}  # fmt: skip


def _losses(mix_K: np.ndarray, n: float, d: float, n_eval: int) -> np.ndarray:
    base = np.asarray((2.05, 0.85, 2.2, 1.3, 1.75, 1.6))[:n_eval]
    pull = np.eye(6, 5) * 0.9 + np.asarray((0.1, 0.02, 0.15, 0.05, 0.12))
    pull[5] = (0.2, 0.35, 0.3, 0.7, 0.5)
    return base + 180 * n**-0.36 + 420 * d**-0.33 + 0.6 * np.exp(-5 * pull[:n_eval] @ mix_K)


def _rows(t: int, mix_K: np.ndarray, names: Any, eval_names: Any, failed: bool, rng: Any) -> list[dict[str, Any]]:
    n, d = SIZES[t >= 16]
    rows = []
    for i, at in enumerate((d / 9, d / 3, d)[: 1 if failed else 3]):
        loss_M = _losses(mix_K, n, at, len(eval_names)) + rng.normal(0, 0.006, len(eval_names))
        rows.append({"trial_id": f"t{t:03d}", "status": "done" if i == 2 else "checkpoint", "seed": int(t == 1),
                     "n_params": n, "n_tokens": at, "flops": 6 * n * at, "seconds": at / 9e5,
                     **{f"mixture/{k}": w for k, w in zip(names, mix_K, strict=True)},
                     **{f"loss/{m}": v for m, v in zip(eval_names, loss_M, strict=True)}})  # fmt: skip
    if failed:
        rows.append({**{k: v for k, v in rows[0].items() if not k.startswith("loss/")}, "status": "failed",
                     "n_tokens": d / 5, "reason": "loss became NaN at 200M tokens"})  # fmt: skip
    return rows


def _recommendation(names: Any, prior: Any, space: SearchSpace, rng: Any) -> dict[str, Any]:
    mixture = np.asarray((0.436, 0.268, 0.082, 0.178, 0.036))
    baselines = {"prior": prior, "uniform": (0.2,) * 5, "temperature": (0.42, 0.2, 0.15, 0.12, 0.11),
                 "UniMax": (0.33, 0.3, 0.16, 0.18, 0.03)}  # fmt: skip
    gains = {"prior": (0.041, 0.022, 0.061), "uniform": (0.073, 0.046, 0.102), "temperature": (0.029, 0.009, 0.05),
             "UniMax": (0.011, -0.006, 0.027)}  # fmt: skip
    loss_M = _losses(mixture, 7e9, 2e12, 6)
    mean, three = float(loss_M.mean()), ("mean", "low", "high")
    shares = dict(zip(names, mixture.tolist(), strict=True))
    epochs = {d.name: shares[d.name] * 2e12 / float(d.available_tokens or 1) for d in space.domains}
    return {
        "mixture": shares, "scale": {"n_params": 7e9, "n_tokens": 2e12},
        "losses": {m: {"mean": v, "low": v - 0.02 - 0.02 * i / 6, "high": v + 0.025}
                   for i, (m, v) in enumerate(zip(space.eval_names, loss_M.tolist(), strict=True))},
        "objective": dict(zip(three, (mean, mean - 0.016, mean + 0.017), strict=True)),
        "baselines": {b: {"mixture": dict(zip(names, m, strict=True)), "objective": {"mean": mean + gains[b][0]},
                          "gain": dict(zip(three, gains[b], strict=True))} for b, m in baselines.items()},
        "near_optimal": {k: {"low": max(0.0, 0.9 * w - 0.05), "high": 1.1 * w + 0.03} for k, w in shares.items()},
        "epochs": epochs,
        "law": {"name": "power law in effective tokens", "rank_correlation": 0.86, "error": 0.0094, "noise": 0.0061,
                "notes": ["The target is 117 times larger than the largest proxy; the interval is wider for it."]},
        "certificate": {"gap": 2.1e-6, "convex": True, "method": "SLSQP"},
        "verdict": {"answer": "use it", "baseline": "prior",
                    "reason": "The whole interval of the gain over prior is above the noise, at both proxy sizes."},
        "evidence": {"trials": 24, "failed": 2, "rows": 68, "tokens": 3.5e10, "flops": 8.9e18, "seconds": 41000},
    }  # fmt: skip


def _heldout(rows: list[dict[str, Any]], rng: Any) -> dict[str, Any]:
    done = [row for row in rows if row["status"] == "done"]
    observed = np.asarray([np.mean([v for k, v in row.items() if k.startswith("loss/")]) for row in done])
    predicted = observed + rng.normal(0, 0.011, len(done))
    return {"trial_id": [r["trial_id"] for r in done], "n_params": [r["n_params"] for r in done],
            "n_tokens": [r["n_tokens"] for r in done],
            "observed": observed.tolist(), "predicted": predicted.tolist(),
            "low": (predicted - 0.02).tolist(), "high": (predicted + 0.02).tolist()}  # fmt: skip


class Tags(HTMLParser):
    """Elements with the names of their attributes, and the text of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, ...]] = []
        self.raw: list[tuple[str, str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attrs)))
        if tag in ("script", "style"):
            self.raw.append((tag, dict(attrs).get("type") or "", ""))

    def handle_data(self, data: str) -> None:
        if self.raw and self.cdata_elem is not None:
            tag, kind, text = self.raw[-1]
            self.raw[-1] = (tag, kind, text + data)


def drawn(page: str) -> dict[str, Any]:
    return json.loads(next(text for _, kind, text in Tags(page).raw if kind == "application/json"))


@pytest.fixture(scope="module")
def page() -> str:
    return render(**make_study())


@pytest.fixture(scope="module")
def hostile_page() -> str:
    study = make_study(HOSTILE)
    study["recommendation"]["verdict"]["reason"] = HOSTILE[0]
    study["recommendation"]["law"]["notes"] = [HOSTILE[1]]
    study["state"] |= {"study": HOSTILE[2], "command": HOSTILE[1]}
    return render(**study)


def test_page_says_verdict_mixture_and_gain(page: str) -> None:
    for text in ("<bdi>Use it</bdi>", "44%", "3.6 epochs", "0.041", "90% interval 0.022 to 0.061", "7B", "2T tokens",
                 "loss became NaN at 200M tokens", "t005, t013", "raymix run search_spaces/web.yaml"):  # fmt: skip
        assert text in page
    assert len(page) < 6e6


def test_sections_stand_in_their_order(page: str) -> None:
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == ["Beside the baselines", "Predicted against observed", "Losses over tokens", "Mixtures tried",
                      "Evidence"]  # fmt: skip


def test_every_figure_has_its_place_and_is_valid(page: str) -> None:
    specs = drawn(page)
    assert sorted(specs) == sorted(re.findall(r'data-figure="([^"]+)"', page))
    assert len(specs) == 5 + 2 + 6 + 1  # domains, sizes, eval domains, mixtures tried
    for spec in specs.values():
        go.Figure(_painted(spec))  # raises on a property that plotly does not know
        for name, axis in spec["layout"].items():
            assert not re.fullmatch("[xy]axis.*", name) or axis["title"]["text"] or "ticktext" in axis


def _painted(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _painted(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_painted(value) for value in node]
    return "#000000" if isinstance(node, str) and node.startswith("@") else node


def test_hostile_names_add_no_element(page: str, hostile_page: str) -> None:
    assert Tags(hostile_page).elements == Tags(page).elements


def test_hostile_names_stand_in_no_script(hostile_page: str) -> None:
    raw = Tags(hostile_page).raw
    assert [kind for tag, kind, _ in raw if tag == "script"] == ["application/json", "", ""]
    data = next(text for _, kind, text in raw if kind)
    assert not set("<>&") & set(data)
    shown = json.dumps(drawn(hostile_page))
    assert "<script" not in shown
    assert "<img" not in shown
    for _, kind, text in raw:
        assert kind or "document.title" not in text


def test_policy_admits_only_what_stands_in_the_page(hostile_page: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', hostile_page)
    assert policy
    rules = policy.group(1).replace("&#39;", "'")
    for _, kind, text in Tags(hostile_page).raw:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert kind or f"'sha256-{digest}'" in rules
    assert rules.startswith("default-src 'none';")
    assert "unsafe" not in rules
    assert "http" not in rules
    tags = {element[0] for element in Tags(hostile_page).elements}
    assert not tags & {"link", "img", "iframe", "object", "embed", "base", "a", "form"}
    assert not {name for element in Tags(hostile_page).elements for name in element[1:]} & {"src", "href", "style"}


def test_all_trials_failed_gives_no_recommendation_but_a_page() -> None:
    study = make_study(fail=tuple(range(24))) | {"recommendation": None, "heldout": None}
    page = render(**study)
    assert "No recommendation" in page
    assert "All 24 trials failed" in page
    assert "loss became NaN" in page
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["Losses over tokens", "Mixtures tried", "Evidence"]


def test_empty_study_gives_a_page() -> None:
    space = make_study()["space"]
    page = render(space=space, observations=Observations.from_rows([], NAMES, space.eval_names),
                   recommendation=None, heldout=None, state={})  # fmt: skip
    assert "No trial has run yet." in page
    assert drawn(page) == {}


@pytest.mark.parametrize("missing", ["losses", "objective", "baselines", "near_optimal", "epochs", "law", "certificate",
                                     "evidence", "scale", "verdict"])  # fmt: skip
def test_any_part_of_a_recommendation_may_be_missing(missing: str) -> None:
    study = make_study()
    del study["recommendation"][missing]
    assert "Evidence" in render(**study)
    assert "Evidence" in render(**{**study, "heldout": None, "state": {}})


def test_the_law_of_a_study_says_what_it_is() -> None:
    """Its name is for who reads the source."""
    study = make_study()
    assert "losses fall as powers" not in render(**study)
    study["recommendation"]["law"]["name"] = HedgedUnion.name
    assert "losses fall as powers of parameters and of tokens" in render(**study)


def test_kept_baseline_is_the_first_bar() -> None:
    study = make_study()
    study["recommendation"]["verdict"] = {"answer": "keep the baseline", "baseline": "prior", "reason": "within noise"}
    page = render(**study)
    assert "Keep the baseline: prior" in page
    assert page.index("Keep: prior") < page.index("Optimum under the law, not recommended")
    assert "Recommended mixture" not in page


def test_a_mixture_to_confirm_first_is_no_recommendation_yet() -> None:
    study = make_study()
    study["recommendation"]["verdict"] = {
        "answer": "confirm first: far from the runs",
        "baseline": "prior",
        "reason": "r",
    }
    page = render(**study)
    assert "Confirm it first" in page and "Keep the baseline" not in page and "Recommended mixture" not in page
    assert page.index("Until then: prior") < page.index("Optimum under the law, to be confirmed")


def with_objective(**changes: Any) -> dict[str, Any]:
    """The study with another objective; its last eval domain may be called a metric."""
    study = make_study()
    raw = study["space"].model_dump(mode="json", exclude_none=True)
    if "metrics" in changes:
        raw["eval_domains"] = raw["eval_domains"][:-1]
    return study | {"space": SearchSpace.parse(raw | changes)}


def test_the_page_says_that_the_worst_loss_counts() -> None:
    """Weights stood there, as if a mean of the losses were meant."""
    page = render(**with_objective(objective={"reduce": "worst", "weights": {"web": 1, "code": 1}}))
    assert "<bdi>largest of 2 eval domains</bdi>" in page
    table = page[page.index("Predicted loss at the target") :]
    assert '<th scope="col">in the objective</th>' in table
    assert re.findall(r"</bdi></th><td>(\w+)</td>", table)[:6] == ["yes", "yes", "no", "no", "no", "no"]


def test_what_is_no_loss_is_not_called_nats() -> None:
    """An accuracy of 58% read as a loss of .42 nats per token."""
    metric = {"metrics": [{"name": "exams", "better": "high"}], "objective": {"weights": {"exams": 1}}}
    page = render(**with_objective(**metric))
    text, specs = page.split('<script type="application/json"')[0], drawn(page)
    assert re.findall("[^>]*nats per token[^<]*", text) == [
        "Predicted loss at the target, nats per token; of a metric what is minimised",
        "Losses in nats per token, shares of tokens, parameters without embeddings. Written by raymix; this page loads "
        "nothing from anywhere.",
    ]
    assert '<span class="unit"><bdi>1 \u2212 exams</bdi></span>' in text
    assert '<th scope="row"><bdi>1 \u2212 exams</bdi></th><td>100%</td>' in text
    assert specs["loss-0"]["layout"]["yaxis"]["title"]["text"] == "nats per token"
    assert specs["loss-5"]["layout"]["yaxis"]["title"]["text"] == "1 \u2212 exams"
    assert specs["heldout-0"]["layout"]["xaxis"]["title"]["text"] == "observed objective, 1 \u2212 exams"


def test_failed_trial_is_kept_as_row() -> None:
    study = make_study()
    trials = list_trials(study["space"], study["observations"])
    assert len(trials) == 24
    assert [t.trial_id for t in trials if t.failed] == ["t005", "t013"]
    assert {t.reason for t in trials if t.failed} == {"loss became NaN at 200M tokens"}
    best = best_trial(trials)
    assert best is not None
    assert best.n_params == 60e6
    assert not best.failed


def test_a_stopped_trial_is_not_a_failed_one() -> None:
    study = make_study()
    rows = study["observations"].table.to_pylist()
    for row in rows:
        if row["trial_id"] == "t005" and row["status"] == "failed":
            row |= {"status": "stopped", "reason": "clearly poor"}
    table = Observations.from_rows(rows, study["observations"].domains, study["observations"].eval_domains)
    trial = next(t for t in list_trials(study["space"], table) if t.trial_id == "t005")
    assert (trial.failed, trial.stopped, trial.whole) == (False, True, False)
    page = render(**study | {"observations": table})
    assert "1 stopped early" in page
    assert "clearly poor" in page


def test_trials_that_failed_before_their_first_losses_are_not_taken_off_those_done() -> None:
    study = make_study()
    failed = [row for row in study["observations"].table.to_pylist() if row["status"] == "failed"]
    rows = [row for row in study["observations"].table.to_pylist() if row["trial_id"] not in ("t005", "t013")]
    names = study["observations"].domains, study["observations"].eval_domains
    study["recommendation"]["evidence"] |= {"trials": 22, "failed": 2}  # trials that gave losses, those that gave none
    page = render(**study | {"observations": Observations.from_rows(rows + failed, *names)})
    assert "<span>24 trials, 2 failed</span>" in page
    assert "22 done, 2 failed" in page


def test_what_nobody_said_was_spent_is_not_shown_as_zero() -> None:
    study = make_study()
    study["recommendation"]["evidence"] |= {"flops": 0.0, "seconds": 0.0}
    rows = [row | {"flops": None, "seconds": None} for row in study["observations"].table.to_pylist()]
    names = study["observations"].domains, study["observations"].eval_domains
    page = render(**study | {"observations": Observations.from_rows(rows, *names)})
    assert "35B tokens<small></small>" in page


def test_without_a_recommendation_a_failed_trial_spent_what_it_was_seen_to() -> None:
    study = make_study(fail=tuple(range(24))) | {"recommendation": None, "heldout": None}
    seen = sum(d / 9 for _, d in (SIZES[t >= 16] for t in range(24)))  # each failed after its first checkpoint
    assert f"{words.human(seen)} tokens" in render(**study)


def test_confirmed_gains_stand_beside_predicted_ones() -> None:
    gain = {"predicted": {"mean": 0.041, "low": 0.022, "high": 0.061}, "mean": 0.0333, "standard_error": 0.004,
            "low": 0.0266, "high": 0.0401, "pairs": 3, "by_eval": {}}  # fmt: skip
    waiting = gain | {"mean": None, "standard_error": None, "low": None, "high": None, "pairs": 0}
    confirmed = {"scale": {"n_params": 6e7, "n_tokens": 1e9}, "done": 6, "pending": 3, "failed": 0,
                 "gains": {"prior": gain, "uniform": waiting}}  # fmt: skip
    page = render(**make_study(), confirmed=confirmed)
    assert "6 runs done, 3 to come" in page
    assert "+0.0410" in page
    assert "+0.0333" in page
    assert "+0.0266 to +0.0401" in page
    assert "not yet" in page
    assert "no pair of runs ended well" in render(**make_study(), confirmed=confirmed | {"pending": 0, "failed": 3})
    assert "Guardrails" not in page
    guarded = {"code": {"allowed": 0.02, "predicted": 0.03, "mean": 0.15, "low": 0.1, "high": 0.2}}
    broken = render(**make_study(), confirmed=confirmed | {"guardrails": guarded})
    assert "+0.1500" in broken and ">broken<" in broken
    guarded["code"]["predicted"] = 0.12  # as the law foresaw at this scale, which keeps the guardrail at the target
    assert ">broken<" not in render(**make_study(), confirmed=confirmed | {"guardrails": guarded})
    assert "Confirmed</h2>" not in render(**make_study())


def test_held_out_keeps_the_last_of_a_trial_and_no_nan() -> None:
    nan = float("nan")
    ((_, kept),) = by_scale({"trial_id": ["a", "a", "b"], "n_params": [1.0] * 3, "n_tokens": [1.0] * 3,
                             "observed": [3.0, 2.0, nan], "predicted": [3.1, 2.1, 2.0]})  # fmt: skip
    assert kept["observed"] == [2.0]


def test_held_out_leaves_failed_trials_out() -> None:
    column = {"trial_id": ["a", "b"], "n_params": [1.0, 1.0], "n_tokens": [1.0, 1.0], "observed": [3.0, 2.0],
              "predicted": [3.1, 2.1]}  # fmt: skip
    ((_, kept),) = by_scale(column, cut_short={"a"})
    assert kept["trial_id"] == ["b"]


def test_the_order_of_mixtures_is_judged_within_a_length_too() -> None:
    """One size at two lengths: the law knows which is better, and nothing of the mixtures."""
    column = {"trial_id": list("abcdefgh"), "n_params": [1e6] * 8, "n_tokens": [1e8] * 4 + [4e8] * 4,
              "observed": [3.1, 3.2, 3.3, 3.4, 2.1, 2.2, 2.3, 2.4],
              "predicted": [3.4, 3.3, 3.2, 3.1, 2.4, 2.3, 2.2, 2.1]}  # fmt: skip
    said = judged(by_scale(column))
    assert said["orders"] == [
        ("1M parameters, 100M tokens", 4, pytest.approx(-1)),
        ("1M parameters, 400M tokens", 4, pytest.approx(-1)),
    ]
    assert "do not lean" in words.trust(said["order"]), "as the verdict says, which counts both together"


def test_stopped_trials_count_in_the_order_as_in_the_verdict() -> None:
    """Drawn are those that ended; half were stopped, and those the law orders the wrong way round."""
    column = {"trial_id": list("abcdefghijkl"), "n_params": [1e6] * 12, "n_tokens": [1e8] * 6 + [4e8] * 6,
              "observed": [3.1, 3.2, 3.3, 3.4, 3.5, 3.6, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6],
              "predicted": [3.6, 3.5, 3.4, 3.3, 3.2, 3.1, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6],
              "low": [0.0] * 12, "high": [9.0] * 12}  # fmt: skip
    said = judged(by_scale(column, cut_short=set("abcdef")), by_scale(column))
    assert said["orders"] == [("1M parameters, 400M tokens", 6, pytest.approx(1))]
    assert said["judged"] == 6
    assert said["order"] == pytest.approx(HeldOut(**column).order) == pytest.approx(0)


def test_a_page_says_of_the_order_what_the_verdict_goes_by() -> None:
    study = make_study()
    stopped = [f"t{t:03d}" for t in range(16) if t not in (5, 13)]  # all of the smaller size that did not fail
    rows = study["observations"].table.to_pylist()
    for row in rows:
        row |= {"status": "stopped"} if row["trial_id"] in stopped and row["status"] == "done" else {}
    table = Observations.from_rows(rows, study["observations"].domains, study["observations"].eval_domains)
    assert words.trust(1.0) in render(**study), "the law of the fixture is a good one"
    column = study["heldout"]
    column["predicted"] = [
        10 - value if name in stopped else value
        for name, value in zip(column["trial_id"], column["predicted"], strict=True)
    ]
    assert words.trust(0.0) in render(**study | {"observations": table})


def test_scales_stand_from_cheap_to_dear_and_rounding_makes_none_of_its_own() -> None:
    column = {"trial_id": list("abcd"), "n_params": [5e6, 1e6, 1.02e6, 1e6], "n_tokens": [1e8, 1e10, 1e10, 1e7],
              "observed": [1.0] * 4, "predicted": [1.0] * 4}  # fmt: skip
    groups = by_scale(column)
    assert [column["trial_id"] for _, column in groups] == [["d"], ["a"], ["b", "c"]]
    assert [tuple(scale) for scale, _ in groups] == [(1e6, 1e7), (5e6, 1e8), (1.01e6, 1e10)]


def test_a_longer_run_of_a_mixture_measures_no_noise() -> None:
    study = make_study()
    names = study["observations"].domains, study["observations"].eval_domains
    rows = [row for row in study["observations"].table.to_pylist() if row["trial_id"] == "t000"]
    longer = [row | {"trial_id": "t001", "n_tokens": 4 * row["n_tokens"]} for row in rows]
    page = render(**study | {"observations": Observations.from_rows(rows + longer, *names)})
    assert "No mixture was run twice" in page
    again = [row | {"trial_id": "t001", "seed": 1} for row in rows]
    page = render(**study | {"observations": Observations.from_rows(rows + again, *names)})
    assert "Runs of one mixture differ" in page


def test_the_best_trial_is_of_the_dearest_scale() -> None:
    study = make_study()
    names = study["observations"].domains, study["observations"].eval_domains
    rows = [row for row in study["observations"].table.to_pylist() if row["status"] == "done"][:3]
    for row, scale in zip(rows, ((1e6, 1e10), (1.01e6, 1e10), (5e6, 1e8)), strict=True):
        row |= {"n_params": scale[0], "n_tokens": scale[1]}
    found = best_trial(list_trials(study["space"], Observations.from_rows(rows, *names)))
    losses = [sum(value for key, value in row.items() if key.startswith("loss/")) for row in rows[:2]]
    assert found is not None
    assert found.trial_id == rows[int(np.argmin(losses))]["trial_id"]


def test_one_absurd_loss_flattens_no_axis_and_is_named() -> None:
    study = make_study()
    table = study["observations"]
    at = table.trial_ids.index("t003") + 2  # its last checkpoint
    loss = np.array(table.table[f"loss/{table.eval_domains[0]}"].to_pylist())
    loss[at] = 1e6
    column = table.table.column_names.index(f"loss/{table.eval_domains[0]}")
    changed = table.table.set_column(column, f"loss/{table.eval_domains[0]}", pa.array(loss))
    study["observations"] = replace(table, table=changed)
    held = study["heldout"]["trial_id"].index("t003")
    study["heldout"]["observed"][held] = 1e6 / len(table.eval_domains)
    specs = drawn(render(**study))
    loss_axis = specs["loss-0"]["layout"]["yaxis"]["range"]
    assert loss_axis[1] < 10 and "1 value above, up to 1e+06" in specs["loss-0"]["layout"]["annotations"][0]["text"]
    assert specs["heldout-0"]["layout"]["xaxis"]["range"][1] < 10
    assert "1 value above" in specs["heldout-0"]["layout"]["annotations"][0]["text"]
    assert max(specs["trials"]["data"][-1]["x"]) < 10
    assert any("\u2192" in note["text"] for note in specs["trials"]["layout"]["annotations"])
    assert "range" not in specs["loss-1"]["layout"]["yaxis"] and "annotations" not in specs["loss-1"]["layout"]


def test_many_domains_keep_their_colours_and_stay_on_the_page() -> None:
    names = tuple(f"domain-{k:03d}" for k in range(100))
    space = SearchSpace.parse({"name": "many", "domains": [{"name": n} for n in names], "eval_domains": [{"name": "e"}],
                               "ladder": [{"n_params": 1e6, "n_tokens": 1e8}],
                               "target": {"n_params": 1e9, "n_tokens": 1e11}})  # fmt: skip
    shares = dict(zip(names, np.random.default_rng(0).dirichlet(np.full(100, 0.3)).tolist(), strict=True))
    row = {"trial_id": "t0", "n_params": 1e6, "n_tokens": 1e8, "loss/e": 3.0, **{f"mixture/{n}": 0.01 for n in names}}
    page = render(space=space, observations=Observations.from_rows([row], names, ("e",)), heldout=None,
                   recommendation={"mixture": shares, "verdict": {"answer": "use it"}}, state={})  # fmt: skip
    assert "more domains" in page
    assert "and 76 more domains, in colours again" in page
    assert sum(key.startswith("share-") for key in drawn(page)) == 24
    assert figures.colours(names)[names[3]] == figures.colours(names[:5])[names[3]]


def test_long_names_that_begin_alike_are_told_apart() -> None:
    names = tuple(f"dclm/2024/filtered-by-quality/{topic}" for topic in ("science", "politics", "sports", "art", "law"))
    page = render(**make_study(names))
    parts = re.findall(r'<span class="name"><svg.*?</svg><bdi>(.*?)</bdi>', page)
    assert sorted(parts) == ["\u2026art", "\u2026law", "\u2026politics", "\u2026science", "\u2026sports"]
    assert "more \u2026politics (+15), \u2026art (+14); less \u2026science (\u221223)" in page
    specs = drawn(page)
    assert {bar["meta"] for bar in specs["trials"]["data"][:-1]} == set(parts)
    assert words.apart(["short", "also short"]) == {"short": "short", "also short": "also short"}
    alike = ["a" * 30 + "1", "a" * 30 + "2", "b" * 30]
    assert list(words.apart(alike, 12).values()) == ["\u20261", "\u20262", "b" * 11 + "\u2026"]


def test_evidence_from_elsewhere_has_trials_of_its_own_in_the_figure() -> None:
    """Their ids begin alike, and eight characters of them were shown."""
    study = make_study()
    rows = [row | {"trial_id": f"from/0123abcd/{row['trial_id']}"} for row in study["observations"].table.to_pylist()]
    names = study["observations"].domains, study["observations"].eval_domains
    specs = drawn(render(**study | {"observations": Observations.from_rows(rows, *names)}))
    assert specs["trials"]["layout"]["yaxis"]["ticktext"][:2] == ["\u2026t000", "\u2026t001"]


def test_checkpoints_of_half_and_whole_a_run_stand_at_two_ticks() -> None:
    """Round numbers alone left one tick, from which no length can be read."""
    study = make_study()
    done = [row for row in study["observations"].table.to_pylist() if row["status"] == "done"]
    rows = [row | {"n_tokens": n, "status": how} for row in done for n, how in ((2.5e8, "checkpoint"), (5e8, "done"))]
    names = study["observations"].domains, study["observations"].eval_domains
    axis = drawn(render(**study | {"observations": Observations.from_rows(rows, *names)}))["loss-0"]["layout"]["xaxis"]
    assert (axis["tickvals"], axis["ticktext"]) == ([2.5e8, 5e8], ["250M", "500M"])


def test_ids_of_trials_make_room_for_themselves(page: str) -> None:
    """Eight digits of a real id are wider than those of a test, and were cut off at the left."""
    specs = drawn(page)
    assert specs["trials"]["layout"]["yaxis"]["automargin"]
    assert specs["loss-0"]["layout"]["yaxis"]["automargin"]


def test_numbers_of_a_mixture_that_is_not_to_be_used_are_said_to_be_its_own(page: str) -> None:
    study = make_study()
    study["recommendation"]["verdict"] = {"answer": "keep the baseline", "baseline": "prior", "reason": "within noise"}
    kept = render(**study)
    for what in ("Predicted objective", "Gain", "Gain"):
        assert f"<dt>{what} of the optimum" in kept
    assert "of the optimum" not in page


def test_a_mixture_of_some_stages_is_not_shown_as_that_of_the_run() -> None:
    study = make_study()
    raw = study["space"].model_dump(mode="json", exclude_none=True)
    raw["recipe"]["stages"] = [{"tokens": 0.3, "mixture": {"web": 1}}, {"tokens": 0.7}]
    page = render(**study | {"space": SearchSpace.parse(raw)})
    said = "The mixture is that of 70% of the tokens: recipe.stages fixes the others, 30% web=1"
    assert page.index(said) < page.index("<dl")


def test_no_level_of_headings_is_left_out(page: str) -> None:
    levels = [int(tag[0][1]) for tag in Tags(page).elements if re.fullmatch("h[1-6]", tag[0])]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(text or "aria-label" in attributes for attributes, text in re.findall("<th([^>]*)>(.*?)</th>", page))


def test_numbers_read_as_a_person_says_them() -> None:
    assert [words.human(v) for v in (7e9, 2e12, 20e6, 1.25e8, None)] == ["7B", "2T", "20M", "125M", "unknown"]
    assert [words.human(v) for v in (999.4, 999_999, 999_499_999)] == ["999", "1M", "999M"]
    assert [words.percent(v) for v in (0.436, 0.082, 0.2, 0.0004, 0.0)] == ["44%", "8.2%", "20%", "<0.1%", "0%"]
    assert [words.epochs(v) for v in (3.6, 0.21, None, 0.0)] == [
        "3.6 epochs",
        "0.21 epochs",
        "epochs unknown",
        "not used",
    ]
    assert words.number(-0.0042, words.decimals_for([0.0042])) == "\u22120.0042"
    assert [words.number(v, 3, sign=True) for v in (-0.0001, 0.02)] == ["0.000", "+0.020"]
    assert words.power(8.9e18) == "8.9 \u00d7 10\u00b9\u2078"


def test_wording_follows_the_rank_correlation() -> None:
    assert "gets the order right" in words.trust(0.85)
    assert "roughly right" in words.trust(0.6)
    assert "do not lean" in words.trust(0.2)
    assert "Too few" in words.trust(float("nan"))


def browse(tmp_path: Path, page: str) -> tuple[str, list[str]]:
    """The page after its scripts ran, and what the console said."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine: the page is checked as text only")
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    flags = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
    flags += ["disable-component-update", "disable-sync", "enable-logging=stderr", "virtual-time-budget=8000"]
    flags += [f"user-data-dir={tmp_path / 'profile'}", "window-size=1100,900", "dump-dom"]
    done = subprocess.run([browser, *(f"--{flag}" for flag in flags), (tmp_path / "report.html").as_uri()],
                          capture_output=True, text=True, timeout=120, check=True)  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_hostile_page_in_a_browser_draws_and_runs_nothing(tmp_path: Path, hostile_page: str) -> None:
    after, console = browse(tmp_path, hostile_page)
    assert console == []
    assert "<title>&lt;/script&gt;&lt;script&gt;document.title='x'&lt;/script&gt;: data mixture</title>" in after
    places = after.split('data-figure="')[1:]
    assert len(places) == 14
    for place in places:
        assert 'class="main-svg"' in place
        assert re.search(r'class="(points?|trace[^"]*|plot)"[^>]*>\s*<', place)
    assert "<img" not in after.split('<script type="application/json"')[0]


def test_browser_page_without_recommendation_has_a_quiet_console(tmp_path: Path) -> None:
    study = make_study(fail=tuple(range(24))) | {"recommendation": None, "heldout": None}
    after, console = browse(tmp_path, render(**study))
    assert console == []
    assert after.count('class="main-svg"') >= 7
