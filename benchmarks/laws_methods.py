"""Whom the benchmarks compare: laws of the registry, the automatic choice, and published methods beside them."""

import importlib.util
from typing import Any

import pyarrow

from benchmarks.published import Runs
from raymix.laws import LAWS, make_law
from raymix.observations import Observations
from raymix.space import Scale

OURS = ("union", "residual_gp", "auto")  # those that must reach the goals
ONE_SCALE = (*OURS, "effective_data", "log_linear", "lightgbm")


def available(names: tuple[str, ...]) -> list[str]:
    """Those of `names` that can be made here, in that order."""
    others = {"auto": "raymix.tables.choose", "lightgbm": "lightgbm"}
    return [name for name in names if name in LAWS or (name in others and importlib.util.find_spec(others[name]))]


def make(name: str) -> Any:
    """An unfitted method, with `fit` and `predict` as a law has them."""
    if name == "lightgbm":
        from benchmarks.peers.lightgbm_regmix import LightGBM

        return LightGBM()
    return make_law(name)


def fitted(name: str, runs: Runs, target: Scale | None = None) -> Any:
    """The method fitted on a table; only the automatic choice asks where it will be read."""
    if name == "auto":
        from raymix.tables.choose import choose_law

        return choose_law(observations(runs), runs.own_M, target, weights_M=runs.weight_M).law
    return make(name).fit(runs.mix_BK, runs.scale_B2, runs.loss_BM, runs.run_B, runs.own_M)


def observations(runs: Runs) -> Observations:
    """The table in the exchange form."""
    n_domains, n_eval = runs.mix_BK.shape[1], runs.loss_BM.shape[1]
    domains, eval_domains = [f"d{k}" for k in range(n_domains)], [f"e{m}" for m in range(n_eval)]
    columns = {"trial_id": runs.run_B.astype(str), "n_params": runs.scale_B2[:, 0], "n_tokens": runs.scale_B2[:, 1]}
    columns |= {f"mixture/{name}": runs.mix_BK[:, k] for k, name in enumerate(domains)}
    columns |= {f"loss/{name}": runs.loss_BM[:, m] for m, name in enumerate(eval_domains)}
    return Observations.from_rows(pyarrow.table(columns).to_pylist(), domains, eval_domains)
