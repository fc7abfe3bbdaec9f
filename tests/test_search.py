"""`MixtureSearch` inside somebody's own Tuner, on real Ray, with a trainable that raymix has never seen."""

import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymix.design import Proposal, SpaceFilling
from raymix.search import MixtureSearch
from raymix.space import SearchSpace
from raymix.study import Study
from raymix.study.trial import Trial
from tests import worlds


@pytest.fixture(scope="module")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    import ray

    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[1])}})  # fmt: skip
    yield
    ray.shutdown()


def slow_learner(config: dict[str, Any]) -> None:
    """Reports at four depths, and goes on where nobody stops it."""
    from ray import tune

    from tests import worlds

    mix_K = np.asarray([config["mixture"][name] for name in worlds.DOMAINS])
    for part in (0.25, 0.5, 0.75, 1.0):
        n_tokens = part * config["n_tokens"]
        loss_M = worlds.losses(mix_K, config["n_params"], n_tokens)
        row = {f"loss/{name}": float(loss) for name, loss in zip(worlds.DOMAINS, loss_M, strict=True)}
        tune.report(row | {"n_tokens": n_tokens, "mean": float(loss_M.mean())})


def foreign_trainable(config: dict[str, Any]) -> None:
    """Reports in two steps; one trial in five raises, one reports NaN, one forgets its losses."""
    from ray import tune

    from raymix.study.trial import Trial
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


@pytest.mark.slow  # starts Ray
def test_a_study_remembers_what_a_foreign_tuner_trained_and_goes_on(local_ray: None, tmp_path: Path) -> None:
    """As README says it: the same script again, with a larger budget, trains the rest alone and answers."""
    from ray import tune

    for trials in (4, 8):
        space = worlds.space(budget={"trials": trials, "per_round": 4})
        study = Study.resume(space, tmp_path / "study")
        with study.writing() as ledger:
            before = set(ledger.trials)
            config = tune.TuneConfig(search_alg=MixtureSearch(ledger=ledger), num_samples=-1, max_concurrent_trials=2)
            run = tune.RunConfig(storage_path=str(tmp_path), name=f"t{trials}", verbose=0)
            tuned = tune.Tuner(slow_learner, tune_config=config, run_config=run).fit()
        assert len(tuned) == 4
        assert not before & {result.config["trial_id"] for result in tuned}
        assert study.finished
    found = Study.open(tmp_path / "study")
    assert len(found.ledger.trials) == 8
    assert sum(found.recommend().mixture.values()) == pytest.approx(1)


def test_a_study_that_nobody_holds_is_not_searched(tmp_path: Path) -> None:
    """`ledger=study.ledger`: two such jobs would write the same numbers over each other."""
    study = Study.create(worlds.space(), tmp_path / "study")
    with pytest.raises(ValueError, match=r"held by nobody.*`with study.writing\(\) as ledger:`"):
        MixtureSearch(ledger=study.ledger)
    with study.writing():
        assert _first(MixtureSearch(ledger=study.ledger)) == study.ledger.pending()[0]


@pytest.mark.slow  # starts Ray
def test_trials_that_a_scheduler_stops_are_rows_and_their_checkpoints_count(local_ray: None, tmp_path: Path) -> None:
    """ASHA of Tune over four depths, then confirmation of what the law made of it."""
    from ray import tune
    from ray.tune.schedulers import AsyncHyperBandScheduler

    ladder, budget = [{"n_params": 1e5, "n_tokens": 4e5}], {"trials": 18, "per_round": 4, "stop_early": False}
    space = worlds.space(ladder=ladder, budget=budget, confirm={"seeds": 2})
    search = MixtureSearch(space, designer=SpaceFilling(space), seed=0)
    asha = AsyncHyperBandScheduler(
        time_attr="n_tokens", metric="mean", mode="min", max_t=400_000, grace_period=100_000, reduction_factor=2
    )
    tune.Tuner(
        slow_learner,
        tune_config=tune.TuneConfig(
            search_alg=search, scheduler=asha, num_samples=-1, max_concurrent_trials=2, reuse_actors=True
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="a", verbose=0),
    ).fit()
    ledger = search.ledger
    assert len(ledger.trials) == 18
    assert not ledger.pending()
    stopped = [t for t in ledger.trials if ledger.status(t) == "stopped"]
    assert stopped
    assert ledger.count("stopped") + ledger.count("done") == 18
    usable = ledger.table().usable()
    for trial_id in stopped:
        tokens = usable.scale_B2[np.asarray(usable.trial_ids) == trial_id, 1]
        assert 1e5 <= tokens.max() < 4e5
    runs = [trial for trial in ledger.trials.values() if trial.purpose == "confirm"]
    assert len(runs) == 4 and {trial.seed for trial in runs} == {1000, 1001}


@pytest.mark.parametrize("number", [float, np.int64, np.float32, np.asarray, str])
def test_a_stop_short_of_the_tokens_is_no_end(number: Any) -> None:
    search = MixtureSearch(worlds.space())
    row = worlds.rows(_first(search))[0]
    row["n_tokens"] = number(row["n_tokens"])
    search.on_trial_result("t1", row)
    search.on_trial_complete("t1", row)
    table = search.ledger.table()
    assert table.status_B.tolist() == ["checkpoint", "stopped"]
    assert len(table.usable()) == 1


def test_without_a_ladder_a_trial_is_as_long_as_its_trainer_makes_it() -> None:
    """The target is proposed, and nobody trains a proxy that long."""
    names = list(worlds.DOMAINS)
    raw = {"name": "own", "domains": names, "eval_domains": names, "target": {"n_params": 4e6, "n_tokens": 1e8}}
    search = MixtureSearch(SearchSpace.parse(raw | {"budget": {"trials": 4}}))
    for i in range(4):
        config = search.suggest(f"t{i}")
        assert isinstance(config, dict) and config["n_tokens"] == 1e8
        row = dict.fromkeys((f"loss/{name}" for name in names), 3.0) | {"n_params": 1e5, "n_tokens": 5e5}
        search.on_trial_result(f"t{i}", row)
        search.on_trial_complete(f"t{i}", row)
    assert search.ledger.count("done") == 4
    assert search.ledger.table().scale_B2.tolist() == [[1e5, 5e5]] * 4


@pytest.mark.parametrize(("told", "status"), [(0, "stopped"), (1, "stopped"), (2, "done")])
def test_a_trial_that_a_scheduler_paused_and_stops_has_not_failed(told: int, status: str) -> None:
    """HyperBand, say: Tune then tells its end without a result."""
    search = MixtureSearch(worlds.space(), retries=1)
    for row in worlds.rows(_first(search))[:told]:
        search.on_trial_result("t1", row | {"status": "checkpoint"})
    search.on_trial_complete("t1")
    assert search.ledger.count(status) == 1
    assert len(search.ledger.table().usable()) == told


def test_a_loss_that_was_nan_on_the_way_stays_a_failure() -> None:
    search = MixtureSearch(worlds.space())
    rows = worlds.rows(_first(search))
    search.on_trial_result("t1", rows[0] | {"loss/web": float("nan")})
    search.on_trial_result("t1", rows[0])
    search.on_trial_complete("t1", rows[1])
    table = search.ledger.table()
    assert table.status_B.tolist() == ["failed"]
    assert search.ledger.count("done") == 0


class Slow:
    """A designer that takes as long as we say."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.go = threading.Event()
        self.asked = 0

    def suggest(self, table: Any, pending: Any, n: int, rng: Any) -> list[Proposal]:
        self.asked += 1
        assert self.asked == 1 or self.go.wait(60)
        return SpaceFilling(self.space).suggest(table, pending, n, rng)


def test_nobody_waits_for_the_designer_while_trials_run() -> None:
    space = worlds.space(budget={"trials": 12, "per_round": 4})
    designer = Slow(space)
    search = MixtureSearch(space, designer=designer)
    first = [search.suggest(f"t{i}") for i in range(4)]
    assert all(isinstance(config, dict) for config in first)
    assert search.suggest("t4") is None  # the next ones are being worked out; the loop goes on
    state = search.__getstate__()
    assert pickle.dumps(
        {name: state[name] for name in ("_thinker", "_thought", "_on_change")}
    )  # no thread in Tune's cache
    designer.go.set()
    search.on_trial_complete("t0", worlds.rows(Trial(**first[0]))[1])  # type: ignore[arg-type]
    assert search._thought is not None
    search._thought.result(60)
    found = [search.suggest(f"t{i}") for i in range(4, 8)]
    assert all(isinstance(config, dict) for config in found)
    assert len({config["trial_id"] for config in [*first, *found]}) == 8  # type: ignore[index]


def test_in_rounds_a_search_waits_and_is_the_same_every_time() -> None:
    asked = []
    for _ in range(2):
        search = MixtureSearch(worlds.space(), seed=5, rounds=True, designer=SpaceFilling(worlds.space()))
        configs = []
        for i in range(8):
            config = search.suggest(f"t{i}")
            assert isinstance(config, dict)
            configs.append(config)
            if i % 4 == 3:
                for k in range(i - 3, i + 1):
                    search.on_trial_complete(f"t{k}", worlds.rows(Trial(**configs[k]))[1])
        asked.append([config["trial_id"] for config in configs])
    assert asked[0] == asked[1]


def test_poor_trials_are_stopped_where_the_space_asks_for_it() -> None:
    for wanted in (True, False):
        space = worlds.space(
            ladder=[{"n_params": 1e5, "n_tokens": 5e5}], budget={"trials": 16, "per_round": 8, "stop_poor": wanted}
        )
        search = MixtureSearch(space, rounds=True, designer=SpaceFilling(space))
        for i in range(8):
            for row in worlds.rows(Trial(**search.suggest(f"t{i}"))):  # type: ignore[arg-type]
                search.on_trial_result(f"t{i}", row)
            search.on_trial_complete(f"t{i}", row)
        search.suggest("t8")
        bad = {f"loss/{name}": 9.0 for name in worlds.DOMAINS} | {"n_tokens": 2.5e5, "status": "checkpoint"}
        assert search.poor("t8", bad) is wanted
        assert not search.poor("t8", {**bad, "status": "done"})
        assert not search.poor("stranger", bad)
        assert not search.poor("t8", {**bad, "loss/web": "n/a"}) and not search.poor("t8", {**bad, "n_tokens": "n/a"})
        if wanted:
            search.on_trial_complete("t8", bad)
            assert search.ledger.count("stopped") == 1
            assert "clearly poor" in search.ledger.table().table["reason"].to_pylist()[-1]


def _first(search: MixtureSearch) -> Trial:
    config = search.suggest("t1")
    assert isinstance(config, dict)
    return Trial(**config)


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


def test_a_trial_whose_worker_died_comes_back_a_limited_number_of_times_and_its_round_waits() -> None:
    events: list[str] = []
    search = MixtureSearch(worlds.space(), rounds=True, retries=2, on_change=lambda event, trial: events.append(event))
    first = [search.suggest(f"t{i}") for i in range(4)]
    assert all(isinstance(config, dict) and "retry" not in config for config in first)
    lost, by = first[0], "t0"
    assert isinstance(lost, dict)
    for retry in (1, 2):
        search.on_trial_complete(by, error=True)
        by = f"again{retry}"
        assert search.suggest(by) == {**lost, "retry": retry}
        assert search.suggest("one more") is None
    assert search.ledger.count("failed") == 0
    search.on_trial_complete(by, error=True)
    assert search.ledger.status(lost["trial_id"]) == "failed"
    assert (events.count("lost"), events.count("ended")) == (2, 1)


def test_the_last_trial_of_a_budget_comes_back_too() -> None:
    search = MixtureSearch(worlds.space(budget={"trials": 1, "per_round": 4}), rounds=True, retries=1)
    assert isinstance(search.suggest("a"), dict)
    assert search.suggest("b") is None  # and not the end: the first may be lost
    search.on_trial_complete("a", error=True)
    assert isinstance(search.suggest("b"), dict)
    search.on_trial_complete("b", error=True)
    assert search.suggest("c") == MixtureSearch.FINISHED


def test_a_trial_that_gets_further_between_deaths_is_not_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """Half a day on spot machines may cost more workers than a trial that breaks where it stands is given."""
    search = MixtureSearch(worlds.space(budget={"trials": 1, "per_round": 4}), rounds=True, retries=1)
    trial = _first(search)
    row = worlds.rows(trial)[0]
    for part in range(1, 5):
        search.on_trial_result(f"t{part}", row | {"n_tokens": part * 1e5})
        search.on_trial_complete(f"t{part}", error=True)
        config = search.suggest(f"t{part + 1}")
        assert isinstance(config, dict) and config["retry"] == 1
    search.on_trial_result("t5", row | {"n_tokens": 4e5})  # what it reported before comes again: it is where it was
    search.explain("t5", "torch.OutOfMemoryError: CUDA out of memory (on 10.0.0.7)")
    search.on_trial_complete("t5", error=True)
    assert search.ledger.status(trial.trial_id) == "failed"
    said = search.ledger.table().table["reason"].to_pylist()[-1]
    assert said == "the worker died, hung or raised; torch.OutOfMemoryError: CUDA out of memory (on 10.0.0.7)"
    *again, last = (record.message for record in caplog.records)
    assert again == [f"trial {trial.trial_id} is begun again: the worker died, hung or raised; see Ray's logs of this "
                     "trial"] * 4  # fmt: skip
    assert last == f"trial {trial.trial_id} has failed: {said}"


def test_a_repeater_is_refused_in_words() -> None:
    from ray.tune.search import Repeater

    search = Repeater(MixtureSearch(worlds.space()), repeat=2)
    configs = [search.suggest("a"), search.suggest("b")]
    assert configs[0]["trial_id"] == configs[1]["trial_id"]
    search.on_trial_complete("a", {"loss/web": 1.0})
    with pytest.raises(ValueError, match="cannot be wrapped in a Repeater"):
        search.on_trial_complete("b", {"loss/web": 1.0})


def test_results_that_say_no_tokens_are_asked_for_them_once(caplog: pytest.LogCaptureFixture) -> None:
    search = MixtureSearch(worlds.space())
    row = {key: value for key, value in worlds.rows(_first(search))[0].items() if key.startswith("loss/")}
    search.on_trial_result("t1", row)
    assert not caplog.records  # it may be all that there will be
    for _ in range(3):
        search.on_trial_result("t1", row)
    assert [record.message for record in caplog.records] == [
        "a trainer reports more than once and no n_tokens: each result counts as at its trial's last token, also that "
        "of a trial which a scheduler stops; report n_tokens"
    ]
