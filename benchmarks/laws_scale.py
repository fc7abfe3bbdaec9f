"""Larger and longer than anything seen: 70M, 160M and 305M up to step 20k, read at 410M and step 30k.

Error per eval domain, mean |log L^ - log L|, and error of the Pile-weighted loss, both in %. The published pipeline
(step laws, then size laws, then m4) stands beside the joint fits.
"""

from functools import partial
from pathlib import Path

from benchmarks.laws_figures import Figure, Row, Task
from benchmarks.laws_methods import OURS, available, fitted
from benchmarks.laws_published import larger_and_longer, score
from benchmarks.published import mixing_laws
from raymix.space import Scale

GOALS = {"5Mix": (1.26, 0.55), "RedPajama": (0.75, 0.55)}  # %: per eval domain, weighted
METHODS = (*OURS, "nested", "joint", "log_feature_joint")


def tasks(folder: Path) -> list[Task]:
    """A task per experiment."""
    return [Task(f"scale: {name}", partial(compare, name, folder)) for name in GOALS]


def compare(name: str, folder: Path) -> list[Row]:
    """A row per method; the goals are for our own."""
    runs = mixing_laws(folder, name)
    ((train_B, test_B),) = larger_and_longer(runs)
    train, test = runs.take(train_B), runs.take(test_B)
    found = []
    for method in available(METHODS):
        law = fitted(method, train, Scale(*test.scale_B2[0]))
        pred_BM, sd_BM = (read(test.mix_BK, test.scale_B2) for read in (law.predict, law.sd))
        got = score(runs.weight_M, [(test, pred_BM, sd_BM)])
        most_2 = GOALS[name] if method in OURS else (None, None)
        goals = dict(zip(("domain %", "weighted %"), most_2, strict=True))
        found.append(Row(name, method, tuple(Figure(key, got[key], most=goals.get(key)) for key in got)))
    return found
