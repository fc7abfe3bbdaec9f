"""AutoScale's published numbers (arXiv 2407.20177), reproduced from its 15 published runs.

Largest relative error of a, b, c; largest absolute error of the optimum (the domain that its authors fixed at .2 is
left out, as in their print); the totals of the extrapolated chain in B tokens and
the largest relative error of its quantities.
"""

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.laws_figures import Figure, Row, Task
from raymix.laws import autoscale, ddo

LEAST_QUANTITY, TOTAL = 0.2, 7.0  # published lower bound, and 7 domains at 1 each
CHAIN = (5.0005, 21.389, 93.228, 412.44)  # B tokens, rounded


def tasks(folder: Path) -> list[Task]:
    """One task."""
    return [Task("golden: AutoScale", partial(rows, folder / "autoscale"))]


def rows(folder: Path) -> list[Row]:
    """Fit, optimum and chain."""
    published = json.loads((folder / "autoscale_vectors.json").read_text())
    fit = ddo.fit_ddo(published["x_points_used_in_fit"], relative_losses(folder, published["domains"]))
    abc = published["published_abc"]
    wrong = max(np.abs(getattr(fit, f"{name}_K") / abc[name] - 1).max() for name in "abc")
    optimum_K = ddo.water_fill(abc["a"], abc["b"], TOTAL, lower_K=LEAST_QUANTITY)
    free_K = optimum_K[optimum_K > LEAST_QUANTITY]
    off = np.abs(free_K - published["pgd_printed_6dom"]).max()
    return [
        Row("AutoScale fit", "fit_ddo", (Figure("largest relative error of a, b, c", wrong, most=1e-9),)),
        Row("AutoScale optimum", "water_fill", (Figure("largest error", off, most=1e-8),)),
        Row("AutoScale chain", "autoscale", tuple(chain(published["autoscale"]))),
    ]


def chain(published: dict[str, Any]) -> list[Figure]:
    """Totals 1 to 4 steps out, and the largest relative error of any domain on the way."""
    tokens, wrong, found = published["tokens_B"], 0.0, []
    for step in published["pred_steps"]:
        quantity_K = autoscale.autoscale(tokens["0.3"], tokens["1.2"], step["step"])
        wrong = max(wrong, float(np.abs(quantity_K / step["tokens_B"] - 1).max()))
    for steps, total in enumerate(CHAIN, start=1):
        value = float(autoscale.autoscale(tokens["0.3"], tokens["1.2"], steps).sum())
        found.append(Figure(f"step {steps} B tokens", value, reference=total))
    return [*found, Figure("largest relative error", wrong, most=1e-8)]


def relative_losses(folder: Path, domains: list[str]) -> Any:
    """Mean perplexity over that of the base run (K, 3), at the perturbations down, none, up."""
    with (folder / "ddo_gpt2large_1p2B_ppl.csv").open() as file:
        mean = {row["run"]: float(row["ppl_avg"]) for row in csv.DictReader(file)}
    return np.array([[mean[f"down_{d}"], mean["base"], mean[f"up_{d}"]] for d in domains]) / mean["base"]
