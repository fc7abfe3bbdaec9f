"""How few small runs rank the rest: RegMix's 512 runs, n random ones to fit on, the others to rank.

Spearman correlation of predicted and measured loss over the runs left out, for Pile-CC and for the mean of the 13
eval domains; mean over 5 random subsets (seeds 0 to 4). The last case fits on four fifths of all runs, five times; the
automatic choice, which would only take longer there, is left out of it. Goals and reference figures were measured on
other runs of RegMix than the folder holds (there the mean of 13 ranks better for every method compared).

Five subsets are few: beside them 30 others (seeds 100 to 129), with the standard deviation of a single subset (the mean
of five has one of .45 times that) and the gain over the effective data law on the same subsets with its standard error.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.laws_figures import Figure, Row, Task
from benchmarks.laws_methods import ONE_SCALE, OURS, available, fitted
from benchmarks.laws_published import Split, random_split
from benchmarks.published import Runs, mixture_folds, regmix, regmix_evals
from raymix.laws.select import rank_correlation

Pair = tuple[float | None, float | None]  # Pile-CC, mean of 13
NONE: Pair = (None, None)
GOALS = {16: (0.96, 0.95), 32: (0.98, 0.97), 64: (0.984, 0.983), 128: (0.988, 0.988)}
REFERENCE = {
    "lightgbm": {64: (0.888, 0.941), 128: (0.971, 0.978)},
    "log_linear": {16: (0.650, 0.450), 32: (0.872, 0.798), 64: (0.930, 0.915), 128: (0.956, 0.949)},
    "effective_data": {16: (0.958, 0.956), 32: (0.973, 0.976), 64: (0.984, 0.986), 128: (0.987, 0.989)},
}
SEEDS, MANY_SEEDS = range(5), range(100, 130)
MANY = ("union", "residual_gp", "effective_data")  # the automatic choice would take twenty times as long
TARGET, OBJECTIVES = "the_pile_pile_cc", ("Pile-CC", "mean of 13")


def tasks(folder: Path) -> list[Task]:
    """A task per number of runs, and cross-validation on all."""
    sizes = [Task(f"regmix: n={n}", partial(at_size, n, folder)) for n in GOALS]
    many = [Task(f"regmix: n={n}, {len(MANY_SEEDS)} subsets", partial(spread, n, folder)) for n in GOALS]
    return [*sizes, *many, Task("regmix: 4/5 of 512", partial(most, folder))]


def at_size(n: int, folder: Path) -> list[Row]:
    """Every method fitted on n runs."""
    runs = regmix(folder)
    splits = [random_split(len(runs.mix_BK), n, seed) for seed in SEEDS]
    beside: dict[str, Pair] = {name: at_n[n] for name, at_n in REFERENCE.items() if n in at_n}
    target = regmix_evals(folder).index(TARGET)
    return compare(f"n={n}", runs, splits, target, available(ONE_SCALE), GOALS[n], beside)


def spread(n: int, folder: Path) -> list[Row]:
    """How much of a figure is the draw of the subsets: a row per law."""
    runs, target = regmix(folder), regmix_evals(folder).index(TARGET)
    splits = [random_split(len(runs.mix_BK), n, seed) for seed in MANY_SEEDS]
    rho = {name: np.array([ranks(name, runs, split, target) for split in splits]) for name in MANY}
    case = f"n={n}, {len(splits)} subsets"
    return [Row(case, name, paired(rho[name], rho["effective_data"], GOALS[n], name in OURS)) for name in MANY]


def paired(rho_S2: Any, other_S2: Any, goals: Pair, ours: bool) -> tuple[Figure, ...]:
    """Mean, sd of a subset, gain over another law on the same subsets and its standard error, for both objectives."""
    gain_S2, root = rho_S2 - other_S2, float(np.sqrt(len(rho_S2)))
    figures = spearman(rho_S2.mean(axis=0), goals if ours else NONE)
    for i, what in enumerate(OBJECTIVES):
        figures.append(Figure(f"sd {what}", float(rho_S2[:, i].std(ddof=1))))
        if ours:
            figures.append(Figure(f"gain {what}", float(gain_S2[:, i].mean())))
            figures.append(Figure(f"s.e. of the gain {what}", float(gain_S2[:, i].std(ddof=1)) / root))
    return tuple(figures)


def most(folder: Path) -> list[Row]:
    """Every method fitted on all runs but a fifth."""
    runs = regmix(folder)
    fold_B = mixture_folds(runs.mix_BK, 5, 0)
    splits = [(fold_B != fold, fold_B == fold) for fold in range(5)]
    methods = [name for name in available(ONE_SCALE) if name != "auto"]
    return compare("4/5 of 512", runs, splits, regmix_evals(folder).index(TARGET), methods)


def compare(
    case: str,
    runs: Runs,
    splits: list[Split],
    target: int,
    methods: list[str],
    goals: Pair = NONE,
    references: dict[str, Pair] | None = None,
) -> list[Row]:
    """A row per method; the goals are for our own."""
    found = []
    for name in methods:
        rho_2 = np.mean([ranks(name, runs, split, target) for split in splits], axis=0)
        least_2, beside_2 = goals if name in OURS else NONE, (references or {}).get(name, NONE)
        found.append(Row(case, name, tuple(spearman(rho_2, least_2, beside_2))))
    return found


def spearman(rho_2: Any, least_2: Pair, beside_2: Pair = NONE) -> list[Figure]:
    """Both rank correlations beside their goals and what was measured elsewhere."""
    of = zip(OBJECTIVES, rho_2, least_2, beside_2, strict=True)
    return [Figure(f"Spearman {what}", float(rho), least, reference=beside) for what, rho, least, beside in of]


def ranks(name: str, runs: Runs, split: Split, target: int) -> tuple[float, float]:
    """Spearman on the rows held out: of the target eval domain, and of the mean; 0 for a flat prediction."""
    train, test = runs.take(split[0]), runs.take(split[1])
    pred_BM = fitted(name, train).predict(test.mix_BK, test.scale_B2)
    one_M = np.eye(len(runs.weight_M))[target]
    rhos: list[Any] = [rank_correlation(pred_BM, test.loss_BM, weight_M) for weight_M in (one_M, runs.weight_M)]
    return tuple(np.nan_to_num(rhos))
