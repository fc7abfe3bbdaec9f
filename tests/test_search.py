"""`MixtureSearch` inside somebody's own Tuner, on real Ray, with a trainable that raymix has never seen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raymix.search import MixtureSearch
from tests import worlds


@pytest.fixture(scope="module")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    import ray

    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[1])}})  # fmt: skip
    yield
    ray.shutdown()


def foreign_trainable(config: dict[str, Any]) -> None:
    """Reports in two steps; one trial in five raises, one reports NaN, one forgets its losses."""
    from ray import tune

    from raymix.ledger import Trial
    from tests import worlds

    trial = Trial(**config)
    number = int(trial.trial_id, 16) % 5
    if number == 0:
        raise RuntimeError("a worker that breaks")
    if number == 2:
        tune.report({"accuracy": 1.0})
        return
    for row in worlds.rows(trial):
        row.pop("status")
        tune.report(row | ({"loss/web": float("nan")} if number == 1 else {}))


@pytest.mark.slow  # starts Ray: about 20 s
@pytest.mark.parametrize("rounds", [True, False])
def test_foreign_tuner_ends_with_every_trial_a_row(local_ray: None, tmp_path: Path, rounds: bool) -> None:
    from ray import tune

    search = MixtureSearch(worlds.space(), seed=1, rounds=rounds)
    tune.Tuner(
        foreign_trainable,
        tune_config=tune.TuneConfig(search_alg=search, num_samples=-1, max_concurrent_trials=2, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="t", verbose=0),
    ).fit()
    ledger = search.ledger
    assert len(ledger.trials) == 12
    assert not ledger.pending()
    expected = {t: "failed" if int(t, 16) % 5 < 3 else "done" for t in ledger.trials}
    last = dict(zip(ledger.table().trial_ids, ledger.table().status_B, strict=True))
    assert last == expected
    done = [t for t, status in expected.items() if status == "done"]
    assert len(ledger.table().usable()) == 2 * len(done)  # both checkpoints of each


def test_unknown_trial_ids_are_ignored() -> None:
    search = MixtureSearch(worlds.space())
    search.on_trial_result("stranger", {"loss/web": 1.0})
    search.on_trial_complete("stranger", {"loss/web": 1.0})
    assert not search.ledger.trials


def test_missing_metric_is_a_row_that_names_it() -> None:
    search = MixtureSearch(worlds.space())
    search.suggest("t1")
    search.on_trial_complete("t1", {"loss/web": 1.0})
    assert search.ledger.table().table["reason"].to_pylist()[0].endswith("loss/code was not reported")


def test_a_round_waits_for_all_its_trials() -> None:
    search = MixtureSearch(worlds.space(), rounds=True)
    first = [search.suggest(f"t{i}") for i in range(4)]
    assert all(isinstance(config, dict) for config in first)
    assert search.suggest("t4") is None
    for i in range(4):
        search.on_trial_complete(f"t{i}", error=True)
    assert isinstance(search.suggest("t4"), dict)


def test_the_budget_ends_the_search() -> None:
    search = MixtureSearch(worlds.space(budget={"trials": 2, "per_round": 4}))
    assert isinstance(search.suggest("a"), dict)
    assert isinstance(search.suggest("b"), dict)
    assert search.suggest("c") == MixtureSearch.FINISHED
