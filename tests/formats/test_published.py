"""The importers on published runs, where those files are at hand: counts as published, nothing lost.

The folder is RAYMIX_DATA, or shared/data beside the project.
"""

import os
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pytest

from raymix.formats import import_runs, read_weights

DATA = Path(os.environ.get("RAYMIX_DATA") or Path(__file__).parents[3] / "shared" / "data")
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no published runs in {DATA}; set RAYMIX_DATA to their folder"),
]


def test_regmix_is_complete() -> None:
    got = import_runs("regmix", DATA / "regmix")
    assert (len(got), len(got.domains), len(got.eval_domains)) == (512, 17, 13)
    assert set(got.eval_domains) < set(got.domains)
    assert np.isfinite(got.loss_BM).all()
    np.testing.assert_allclose(got.mix_BK.sum(axis=1), 1, atol=1e-12)
    assert got.scale_B2[0].tolist() == [1e6, 1e9]


@pytest.mark.parametrize(
    ("name", "rows", "runs", "domains", "eval_domains", "cells"),
    [
        ("2Mix", 110, 10, 2, 2, 220),
        ("3Mix", 1077, 33, 3, 3, 3200),
        ("5Mix", 1062, 80, 5, 22, 23364),
        ("RedPajama", 867, 79, 7, 22, 19074),
        ("ct", 40, 4, 2, 23, 920),  # of 943: the 23 at step 0 are the base model's, from which all four runs start
    ],
)
def test_tidy_tables_keep_every_loss(
    name: str, rows: int, runs: int, domains: int, eval_domains: int, cells: int
) -> None:
    path = DATA / "mixinglaws" / f"{name}.parquet"
    got = import_runs("mixinglaws", path)
    got, starts = got.select(got.status_B != "start"), got.select(got.status_B == "start")
    assert len(starts) == (4 if name == "ct" else 0)
    assert (len(got), len(got.domains), len(got.eval_domains)) == (rows, domains, eval_domains)
    assert (got.status_B == "done").sum() == len(set(got.trial_ids)) == runs
    assert np.isfinite(got.loss_BM).sum() == cells
    table = pyarrow.parquet.read_table(path)
    trained = table.filter(pc.greater(table["tokens"], 0))
    assert np.nansum(got.loss_BM) == pytest.approx(pc.sum(trained["loss"]).as_py(), rel=1e-12)


@pytest.mark.parametrize("experiment", ["3Mix", "5Mix", "RedPajama", "ct"])
def test_every_query_joins_back_on_one_row(experiment: str) -> None:
    path = DATA / "mixinglaws" / "queries.csv.gz"
    got = import_runs("mixinglaws", path, experiment=experiment)
    keys = list(zip(got.trial_ids, *got.scale_B2.T.tolist(), strict=True))
    asked = pyarrow.csv.read_csv(path)
    asked = asked.filter(pc.equal(asked["experiment"], experiment)).to_pylist()
    assert len(set(keys)) == len(keys)
    assert set(keys) == {(row["run_id"], row["model_size"], row["tokens"]) for row in asked}
    assert got.eval_domains == ()
    training = import_runs("mixinglaws", DATA / "mixinglaws" / f"{experiment}.parquet")
    assert set(got.domains) == set(training.domains)  # the order differs: laws match domains by name


def test_weights_of_the_pile() -> None:
    weights = read_weights(DATA / "mixinglaws" / "valid_domains.csv")
    assert len(weights) == 22
    assert sum(weights.values()) == pytest.approx(1, abs=1e-9)
