"""A Tuner of somebody's own that is killed and restored: the searcher knows again what it knew."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from raymix.design import SpaceFilling
from raymix.search import MixtureSearch
from raymix.study import Study
from raymix.study.trial import Trial
from tests import worlds
from tests.test_search import local_ray  # noqa: F401  a fixture


def begun(**options: Any) -> tuple[MixtureSearch, list[Trial]]:
    """Six trials asked for, of which one is done, one has a checkpoint, one failed and three run."""
    search = MixtureSearch(worlds.space(), seed=3, designer=SpaceFilling(worlds.space()), **options)
    trials = []
    for i in range(6):
        while not isinstance(config := search.suggest(f"t{i}"), dict):
            search._thought.result(60)  # type: ignore[union-attr]
        trials.append(Trial(**config))
    for row in worlds.rows(trials[0])[:1]:
        search.on_trial_result("t0", row)
    search.on_trial_complete("t0", worlds.rows(trials[0])[1])
    search.on_trial_result("t1", worlds.rows(trials[1])[0])
    search.on_trial_complete("t2", error=True)
    return search, trials


def restored(search: MixtureSearch, folder: Path) -> MixtureSearch:
    """As Tune does it: the searcher as it was pickled, then what it saved."""
    search.save_to_dir(str(folder), "now")
    found: MixtureSearch = pickle.loads(pickle.dumps(search))
    found.restore_from_dir(str(folder))
    return found


def test_a_restored_searcher_goes_on_where_it_was(tmp_path: Path) -> None:
    search, trials = begun()
    after = restored(search, tmp_path)
    assert str(after.ledger.table().table.to_pylist()) == str(search.ledger.table().table.to_pylist())
    assert list(after.ledger.trials) == list(search.ledger.trials)
    for each in (search, after):
        each.on_trial_complete("t3", worlds.rows(trials[3])[1])  # it ran on
        assert each.ledger.status(trials[3].trial_id) == "done"
    queued = [trial.trial_id for trial in search.ledger.pending() if trial not in trials]
    configs = [after.suggest(f"new{i}") for i in range(len(queued))]
    assert [config["trial_id"] for config in configs if isinstance(config, dict)] == queued


def test_the_searcher_of_a_study_is_not_restored_and_says_what_is(tmp_path: Path) -> None:
    with Study.create(worlds.space(), tmp_path / "study").writing() as ledger:
        search = MixtureSearch(ledger=ledger)
        search.suggest("t0")
        after = pickle.loads(pickle.dumps(search))
    with pytest.raises(ValueError, match="does not read: run the script that began it again"):
        after.suggest("t1")


def test_a_searcher_that_an_earlier_version_pickled_goes_on(tmp_path: Path) -> None:
    search, trials = begun()
    search.save_to_dir(str(tmp_path), "now")
    after = pickle.loads(pickle.dumps(search))
    for name in ("_why", "_said"):
        del vars(after)[name]
    after.restore_from_dir(str(tmp_path))
    after.on_trial_result("t3", worlds.rows(trials[3])[0])
    after.on_trial_complete("t4", error=True)
    assert after.ledger.tokens_seen(trials[3].trial_id) > 0
    assert after.ledger.status(trials[4].trial_id) == "failed"


def test_a_trial_whose_end_only_tune_knows_has_ended(tmp_path: Path) -> None:
    search, trials = begun()
    search.on_trial_result("t3", worlds.rows(trials[3])[1] | {"status": "checkpoint"})  # of its last token
    after = restored(search, tmp_path)
    assert after.ledger.status(trials[3].trial_id) == "done"
    assert after.ledger.status(trials[1].trial_id) is None, "it has a checkpoint on the way"
    losses = {key: value for key, value in worlds.rows(trials[3])[1].items() if key.startswith("loss/")}
    assert losses.items() <= after.ledger.last_row(trials[3].trial_id).items()  # type: ignore[union-attr]
    known = len(after.ledger.table())
    after.on_trial_complete("t3", worlds.rows(trials[3])[1])  # Tune trained it again: nothing new
    assert len(after.ledger.table()) == known


def test_what_was_saved_is_data(tmp_path: Path) -> None:
    search, _ = begun()
    search.save_to_dir(str(tmp_path), "now")
    (path,) = tmp_path.iterdir()
    assert path.read_bytes().startswith(b"{"), "JSON, so that nothing in it is run"


def trained(config: dict[str, Any]) -> None:
    """Reports its last row."""
    from ray import tune

    tune.report({key: value for key, value in worlds.rows(Trial(**config))[1].items() if key != "status"})


@pytest.mark.slow  # starts Ray: about 20 s
@pytest.mark.usefixtures("local_ray")
def test_a_tuner_that_broke_off_is_restored_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import tune

    broken = tmp_path / "broken"

    class BreaksOff(tune.Callback):
        def on_step_begin(self, iteration: int, trials: list[Any], **named: Any) -> None:
            if not broken.exists() and sum(trial.status == "TERMINATED" for trial in trials) >= 5:
                broken.touch()
                raise RuntimeError("the driver's machine is gone")

    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "1")  # of 0, Tune copies its state while it writes the next
    search = MixtureSearch(worlds.space(), seed=1)
    tuner = tune.Tuner(
        trained,
        tune_config=tune.TuneConfig(search_alg=search, num_samples=-1, max_concurrent_trials=2),
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="t", verbose=0, callbacks=[BreaksOff()]),
    )
    with pytest.raises(Exception, match="gone"):
        tuner.fit()
    again = tune.Tuner.restore(str(tmp_path / "t"), trained, resume_unfinished=True)
    results = again.fit()
    assert len({result.config["trial_id"] for result in results}) == 12
    after: MixtureSearch = again._local_tuner._tune_config.search_alg  # type: ignore[union-attr]
    assert after.ledger.table().status_B.tolist() == ["done"] * 12
    assert list(after.ledger.trials)[:5] == list(search.ledger.trials)[:5]
