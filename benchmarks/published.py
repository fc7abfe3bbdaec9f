"""Published proxy runs as matrices, for the benchmarks: read from a folder, never shipped.

The folder (`RAYMIX_DATA`, or `../shared/data`) holds `mixinglaws/*.parquet` (from yegcjs/mixinglaws,
arXiv 2403.16952), `regmix/*.csv` (from sail-sg/regmix, arXiv 2407.01492) and `autoscale/` (from feiyang-k/AutoScale,
arXiv 2407.20177).
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet

from raymix.laws.base import Array, Ints

PARTS = ("mixinglaws", "regmix", "autoscale")
# Eval domains held out from a training domain, where the names leave no doubt.
OWN = {
    "github": "Github",
    "books3": "Books3",
    "pile_cc": "Pile-CC",
    "arxiv": "ArXiv",
    "stackexchange": "StackExchange",
    "wikipedia": "Wikipedia_en",
}


@dataclass(frozen=True)
class Runs:
    """A published table: every row a checkpoint of a run."""

    mix_BK: Any
    scale_B2: Any
    loss_BM: Any
    run_B: Any
    own_M: Any
    weight_M: Any
    step_B: Any

    def take(self, rows: Any) -> "Runs":
        """The rows named (indices or mask)."""
        return Runs(
            self.mix_BK[rows], self.scale_B2[rows], self.loss_BM[rows], self.run_B[rows],
            self.own_M, self.weight_M, self.step_B[rows],
        )  # fmt: skip


def data_folder(given: str | None) -> Path:
    """The data folder; exit code 2 and one sentence where it, or a part of it, is absent."""
    folder = Path(given or os.environ.get("RAYMIX_DATA", "../shared/data"))
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        where = f"{', '.join(missing)} in {folder}"
        print(f"no published runs ({where}): pass --data DIR or set RAYMIX_DATA", file=sys.stderr)
        raise SystemExit(2)
    return folder


def mixing_laws(folder: Path, experiment: str) -> Runs:
    """One experiment of the data mixing laws paper ('3Mix', '5Mix', 'RedPajama')."""
    table = pyarrow.parquet.read_table(folder / "mixinglaws" / f"{experiment}.parquet")
    column = {name: np.array(table[name].to_pylist()) for name in table.schema.names}
    shares = [name for name in column if name.startswith("p_")]
    keys, row_B = np.unique(
        np.char.add(np.char.add(column["run_id"], "@"), column["step"].astype(str)), return_inverse=True
    )
    evals, domain_B = np.unique(column["valid_domain"], return_inverse=True)
    loss_BM = np.full((len(keys), len(evals)), np.nan)
    loss_BM[row_B, domain_B] = column["loss"]
    first = np.unique(row_B, return_index=True)[1]
    _, run_B = np.unique(column["run_id"][first], return_inverse=True)
    mix_BK = np.stack([column[name][first] for name in shares], axis=1)
    scale_B2 = np.stack([column["model_size"][first], column["tokens"][first]], axis=1).astype(float)
    return Runs(
        mix_BK, scale_B2, loss_BM, run_B, _own(shares, list(evals)), _pile_weights(folder, list(evals)),
        column["step"][first],
    )  # fmt: skip


def regmix(folder: Path) -> Runs:
    """The 512 one-million-parameter runs of RegMix: 17 Pile domains, losses on 13, one scale."""
    mixes = pyarrow.csv.read_csv(folder / "regmix" / "train_mixture_1m.csv")
    losses = pyarrow.csv.read_csv(folder / "regmix" / "train_pile_loss_1m.csv")
    domains = [name.removeprefix("train_") for name in mixes.schema.names[1:]]
    evals = regmix_evals(folder)
    mix_BK = np.stack([np.array(mixes[name]) for name in mixes.schema.names[1:]], axis=1)
    loss_BM = np.stack([np.array(losses[name]) for name in losses.schema.names[1:]], axis=1)
    n_rows = len(mix_BK)
    own_M = np.array([domains.index(name) for name in evals])
    weight_M = np.full(len(evals), 1 / len(evals))
    scale_B2 = np.tile([1e6, 1e9], (n_rows, 1))  # 1M parameters, 1B tokens (arXiv 2407.01492 section 3)
    return Runs(mix_BK, scale_B2, loss_BM, np.arange(n_rows), own_M, weight_M, np.full(n_rows, 1000))


def regmix_evals(folder: Path) -> list[str]:
    """Eval domains of RegMix in the order of its losses."""
    with (folder / "regmix" / "train_pile_loss_1m.csv").open() as file:
        header = file.readline().strip().split(",")
    return [name.removeprefix("metric/").removesuffix("_val_loss") for name in header[1:]]


def _own(shares: list[str], evals: list[str]) -> Any:
    own_M = np.full(len(evals), -1)
    for index, name in enumerate(shares):
        held_out = OWN.get(name.removeprefix("p_"))
        if held_out in evals:
            own_M[evals.index(held_out)] = index
    return own_M


def _pile_weights(folder: Path, evals: list[str]) -> Any:
    table = pyarrow.csv.read_csv(folder / "mixinglaws" / "valid_domains.csv").to_pydict()
    weight = dict(zip(table["valid_domain"], table["pile_weight"], strict=True))
    weight_M = np.array([weight[name] for name in evals])
    return weight_M / weight_M.sum()


def mixture_folds(mix_BK: Array, n_folds: int, seed: int) -> Ints:
    """The fold of every row: equal mixtures in one, as even as can be; the same whatever laws are chosen by."""
    distinct_QK, mixture_B = np.unique(mix_BK, axis=0, return_inverse=True)
    fold_Q = np.empty(len(distinct_QK), dtype=np.int64)
    fold_Q[np.random.default_rng(seed).permutation(len(distinct_QK))] = np.arange(len(distinct_QK)) % n_folds
    return fold_Q[mixture_B.ravel()]
