"""Mixtures never trained, at one size and one step: 20 random splits of the 70M runs of Data Mixing Laws.

Mean absolute error in nats of the Pile-weighted loss over the mixtures held out. The reference figures were measured
on more mixtures (20 to fit on and 6 to predict for 5Mix, 32 and 8 for RedPajama) than the folder holds (20 and 30),
so the same share is held out here (15/5 and 24/6) from fewer mixtures; the last cases leave one out,
without the automatic choice.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.laws_figures import Figure, Row, Task
from benchmarks.laws_methods import ONE_SCALE, OURS, available, fitted
from benchmarks.laws_published import SMALL, Split, random_split
from benchmarks.published import Runs, mixing_laws

STEP = 30_000  # the last step that all mixtures have
GOALS = {"5Mix": 0.012, "RedPajama": 0.015}  # nats
HELD_OUT = {"5Mix": 5, "RedPajama": 6}
REFERENCE = {("5Mix", "m4"): 0.0222, ("5Mix", "log_feature"): 0.0111}
METHODS = (*ONE_SCALE, "m4", "log_feature")


def tasks(folder: Path) -> list[Task]:
    """Two tasks per experiment."""
    some = [Task(f"mixtures: {name} 20 splits", partial(random_splits, name, folder)) for name in GOALS]
    each = [Task(f"mixtures: {name} leave one out", partial(one_by_one, name, folder)) for name in GOALS]
    return [*some, *each]


def random_splits(name: str, folder: Path) -> list[Row]:
    """Some mixtures held out, 20 times."""
    runs = one_scale(mixing_laws(folder, name))
    n_train = len(runs.mix_BK) - HELD_OUT[name]
    splits = [random_split(len(runs.mix_BK), n_train, seed) for seed in range(20)]
    return compare(f"{name} {n_train}/{HELD_OUT[name]}", name, runs, splits, METHODS)


def one_by_one(name: str, folder: Path) -> list[Row]:
    """Each mixture held out alone: as many to fit on as the folder allows."""
    runs = one_scale(mixing_laws(folder, name))
    out_BB = np.eye(len(runs.mix_BK), dtype=bool)
    splits, methods = [(~out_B, out_B) for out_B in out_BB], tuple(method for method in METHODS if method != "auto")
    return compare(f"{name} {len(out_BB) - 1}/1", name, runs, splits, methods)


def one_scale(runs: Runs) -> Runs:
    """The smallest size at the last common step."""
    return runs.take((runs.scale_B2[:, 0] < SMALL) & (runs.step_B == STEP))


def compare(case: str, experiment: str, runs: Runs, splits: list[Split], methods: tuple[str, ...]) -> list[Row]:
    """A row per method; the goal is for our own."""
    found = []
    for name in available(methods):
        error = float(np.mean(np.concatenate([errors(name, runs, split) for split in splits])))
        most, beside = GOALS[experiment] if name in OURS else None, REFERENCE.get((experiment, name))
        found.append(Row(case, name, (Figure("MAE nats", error, most=most, reference=beside),)))
    return found


def errors(name: str, runs: Runs, split: Split) -> Any:
    """|L^ - L| of the weighted loss on the rows held out."""
    train, test = runs.take(split[0]), runs.take(split[1])
    pred_BM = fitted(name, train).predict(test.mix_BK, test.scale_B2)
    return np.abs((pred_BM - test.loss_BM) @ runs.weight_M)
