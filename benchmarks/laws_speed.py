"""CPU seconds on one thread, and what they buy: medians of paired repeats in one process.

m4 against the published fit of the same law (`peers/published_m4`: 20 starts of LBFGS per eval domain) on 5 eval
domains and 20 runs, 70M at step 30k of 5Mix. `objective ratio` is ours over theirs, both read on *their* objective,
summed over the eval domains. `m4` minimises a different one (log loss, priors); `m4_published` minimises theirs.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.laws_figures import Figure, Row, Task
from benchmarks.laws_methods import fitted
from benchmarks.laws_mixtures import one_scale
from benchmarks.peers import published_m4
from benchmarks.published import Runs, mixing_laws, regmix
from raymix.laws import make_law
from raymix.simplex import Polytope
from raymix.target.objective import ObjectiveAtScale
from raymix.target.optimum import minimise

N_EVAL = 5  # those with the largest weight
REPEATS = 3
MANY = 20  # fits timed together where one takes milliseconds
RATIO, OBJECTIVE = 500.0, 1.001  # goals
GAP = 1e-4  # nats


def tasks(folder: Path) -> list[Task]:
    """Fits and optima."""
    return [
        Task("speed: m4 and the published fit", partial(against_published, folder)),
        Task("speed: RegMix fits", partial(regmix_fits, folder)),
        Task("speed: RedPajama fits", partial(redpajama_fits, folder)),
        Task("speed: optima", partial(optima, folder)),
    ]


def seconds(work: Callable[[], Any], times: int = 1) -> float:
    """CPU seconds of one call, averaged over `times` calls."""
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


def against_published(folder: Path) -> list[Row]:
    """Seconds and objective of both."""
    runs = one_scale(mixing_laws(folder, "5Mix"))
    top = np.sort(np.argsort(-runs.weight_M)[:N_EVAL])
    mix_BK, loss_BM = runs.mix_BK, runs.loss_BM[:, top]
    return compare_m4(mix_BK, loss_BM, REPEATS, published_m4.N_STARTS)


def compare_m4(mix_BK: Any, loss_BM: Any, repeats: int, n_starts: int) -> list[Row]:
    """The published fit, m4, and m4 by the published objective."""
    laws, at = {name: make_law(name) for name in ("m4", "m4_published")}, np.array([1e8, 1e10])
    took: dict[str, list[float]] = {name: [] for name in ("published", *laws)}
    got = {"published": np.inf}
    for repeat in range(repeats):
        began = time.process_time()
        theta_MP = published_m4.fit(mix_BK, loss_BM, repeat, n_starts)
        took["published"].append(time.process_time() - began)
        got["published"] = min(got["published"], float(published_m4.objective(theta_MP, mix_BK, loss_BM).sum()))
        for name, law in laws.items():
            took[name].append(seconds(partial(law.fit, mix_BK, at, loss_BM), MANY))
    for name, law in laws.items():
        got[name] = float(published_m4.huber(law.predict(mix_BK, at) - loss_BM).sum())
    return [_beside("published", name, took, got) for name in took]


def _beside(peer: str, name: str, took: dict[str, list[float]], objective: dict[str, float]) -> Row:
    """A method's seconds and objective, as ratios too where it is not the peer itself."""
    figures = [Figure("CPU s", float(np.median(took[name]))), Figure("objective", objective[name])]
    if name != peer:
        faster = float(np.median(np.array(took[peer]) / took[name]))
        least, most = (RATIO, OBJECTIVE) if name == "m4_published" else (None, None)  # m4 has another objective
        figures.append(Figure("times faster", faster, least=least))
        figures.append(Figure("objective ratio", objective[name] / objective[peer], most=most))
    return Row("m4, 5 x 20", name, tuple(figures))


def regmix_fits(folder: Path) -> list[Row]:
    """13 eval domains x 512 runs x 17 domains."""
    runs = regmix(folder)
    goals = {"union": 0.5, "residual_gp": 1.0, "effective_data": None}
    return fit_seconds("RegMix 13 x 512 x 17", runs, goals)


def redpajama_fits(folder: Path) -> list[Row]:
    """22 eval domains, all sizes and steps; the pipeline's fit includes its first reading, where it does its work."""
    runs = mixing_laws(folder, "RedPajama")
    goals = {"union": 2.0, "residual_gp": 2.0, "nested": 2.0}
    return fit_seconds(f"RedPajama 22 x {len(runs.mix_BK)} x 7", runs, goals)


def fit_seconds(case: str, runs: Runs, goals: dict[str, float | None]) -> list[Row]:
    """Fit and one prediction per method, repeats interleaved."""
    took: dict[str, list[float]] = {name: [] for name in goals}
    for _ in range(REPEATS):
        for name, own in took.items():
            own.append(seconds(lambda name=name: fitted(name, runs).predict(runs.mix_BK[-1:], runs.scale_B2[-1:])))
    median = {name: float(np.median(own)) for name, own in took.items()}
    return [Row(case, name, (Figure("CPU s", median[name], most=most),)) for name, most in goals.items()]


def optima(folder: Path) -> list[Row]:
    """The best mixture of all, at the largest scale seen; no goal where the law is not convex."""
    found = []
    for case, runs in (("RedPajama", mixing_laws(folder, "RedPajama")), ("RegMix", regmix(folder))):
        for name in ("union", "residual_gp"):
            found.append(optimum(f"optimum {case}", name, runs))
    return found


def optimum(case: str, name: str, runs: Runs) -> Row:
    """Seconds and certificate of one optimum on the whole simplex."""
    objective = ObjectiveAtScale(fitted(name, runs), runs.scale_B2.max(axis=0).tolist(), runs.weight_M)
    n_domains = runs.mix_BK.shape[1]
    polytope = Polytope.box([0.0] * n_domains, [1.0] * n_domains)
    took = [seconds(lambda: minimise(objective, polytope)) for _ in range(5)]
    best = minimise(objective, polytope)
    most_ms, most_gap = (50.0, GAP) if best.convex else (None, None)
    time_ms = 1e3 * float(np.median(took))
    return Row(case, name, (Figure("CPU ms", time_ms, most=most_ms), Figure("gap nats", best.gap, most=most_gap)))
