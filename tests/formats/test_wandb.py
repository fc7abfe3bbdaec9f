"""Exported runs with a mapping file."""

from pathlib import Path

import numpy as np
import pytest

from raymix.formats import import_runs

RUNS = [
    '"Name","State","config.seed","tokens","w_web","w_code","eval/web","eval/exams"',
    '"a, first","finished","3","1000000","0.25","0.75","3.5","2.5"',
    '"b","crashed","4","5000","0.5","0.5","","NaN"',
    '"c","finished","","1000000","1","0","4.5",""',
]
MAPPING = """
trial_id: Name
n_params: 60e6
n_tokens: tokens
mixture: {web: w_web, code: w_code}
loss: {web: eval/web, exams: eval/exams}
status: State
seed: config.seed
"""


def write(folder: Path, runs: list[str] = RUNS, mapping: str = MAPPING) -> tuple[Path, Path]:
    (folder / "runs.csv").write_text("\n".join(runs) + "\n")
    (folder / "map.yaml").write_text(mapping)
    return folder / "runs.csv", folder / "map.yaml"


def test_columns_are_mapped(tmp_path: Path) -> None:
    src, mapping = write(tmp_path)
    got = import_runs("wandb", src, mapping=mapping)
    assert (got.domains, got.eval_domains) == (("web", "code"), ("web", "exams"))
    assert got.trial_ids == ["a, first", "b", "c"]
    assert got.scale_B2.tolist() == [[60e6, 1e6], [60e6, 5e3], [60e6, 1e6]]
    assert got.table["seed"].to_pylist() == [3, 4, 0]
    np.testing.assert_array_equal(got.loss_BM, [[3.5, 2.5], [np.nan, np.nan], [4.5, np.nan]])


def test_a_seed_is_a_whole_number(tmp_path: Path) -> None:
    large = str(2**53 + 1)
    src, mapping = write(tmp_path, [row.replace('"3"', f'"{large}"') for row in RUNS])
    assert import_runs("wandb", src, mapping=mapping).table["seed"].to_pylist() == [int(large), 4, 0]
    src, mapping = write(tmp_path, [row.replace('"3"', '"3.7"') for row in RUNS])
    with pytest.raises(ValueError, match=r"row 1, column .*: '3.7' is not a whole number"):
        import_runs("wandb", src, mapping=mapping)
    src, mapping = write(tmp_path, mapping=MAPPING.replace("config.seed", "3.7"))
    with pytest.raises(ValueError, match="seed is the name of a column"):
        import_runs("wandb", src, mapping=mapping)


def test_crashed_run_is_kept_with_its_state(tmp_path: Path) -> None:
    src, mapping = write(tmp_path)
    got = import_runs("wandb", src, mapping=mapping)
    assert got.status_B.tolist() == ["done", "failed", "done"]
    assert got.table["reason"].to_pylist() == ["", "state of the run: crashed", ""]


@pytest.mark.parametrize(("state", "status"), [("running", "stopped"), ("Killed", "stopped"), ("done", "done")])
def test_states_become_statuses(tmp_path: Path, state: str, status: str) -> None:
    src, mapping = write(tmp_path, [RUNS[0], RUNS[1].replace("finished", state)])
    assert import_runs("wandb", src, mapping=mapping).status_B.tolist() == [status]


OPTUNA = ["number,params_web,params_code,user_attrs_web,user_attrs_exams,state", "0,0.6,0.2,3.5,2.5,COMPLETE",
          "1,0.1,0.3,,,FAIL", "2,0.5,0,3.25,,PRUNED"]  # fmt: skip
OF_OPTUNA = """
trial_id: number
n_params: 60e6
n_tokens: 1e9
mixture: {web: params_web, code: params_code}
loss: {web: user_attrs_web, exams: user_attrs_exams}
status: state
normalise: true
"""


def test_a_sweep_over_weights_is_normalised(tmp_path: Path) -> None:
    """Optuna, W&B and Ray Tune sample no simplex: their users sample weights, and divide by the sum in training."""
    src, mapping = write(tmp_path, OPTUNA, OF_OPTUNA)
    got = import_runs("wandb", src, mapping=mapping)
    np.testing.assert_allclose(got.mix_BK, [[0.75, 0.25], [0.25, 0.75], [1, 0]], rtol=1e-15)
    assert got.status_B.tolist() == ["done", "failed", "stopped"]


def test_runs_that_died_before_they_had_a_mixture_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As Optuna writes them: drawn one weight of two and running, died before any, enqueued."""
    late = ["3,0.2,,,,RUNNING", "4,,,,,FAIL", "5,,,,,WAITING"]
    src, mapping = write(tmp_path, [*OPTUNA, *late], OF_OPTUNA)
    assert import_runs("wandb", src, mapping=mapping).trial_ids == ["0", "1", "2"]
    assert "runs that did not end and have no mixture are left out: 3, 4, 5" in caplog.text
    src, mapping = write(tmp_path, [*OPTUNA, "6,,0.5,3,3,COMPLETE"], OF_OPTUNA)
    with pytest.raises(ValueError, match="row 4, column 'params_web' is empty"):
        import_runs("wandb", src, mapping=mapping)


def test_trials_of_ray_tune_that_died_do_not_count_as_done_unsaid(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its dataframe holds their last losses like any other's, and has no column of states."""
    of_tune = ["trial_id,training_iteration,web,config/mixture/web,config/mixture/code,state",
               "a,3,3.5,0.5,0.5,TERMINATED", "b,1,5.5,0.25,0.75,ERROR"]  # fmt: skip
    names = "mixture: {web: config/mixture/web, code: config/mixture/code}\nloss: {web: web}\n"
    plain = f"trial_id: trial_id\nn_params: 60e6\nn_tokens: 1e9\n{names}"
    src, mapping = write(tmp_path, of_tune, plain)
    assert import_runs("wandb", src, mapping=mapping).status_B.tolist() == ["done", "done"]
    assert "does not say which trials died, and they count as done" in caplog.text
    caplog.clear()
    src, mapping = write(tmp_path, of_tune, f"{plain}status: state\n")
    assert import_runs("wandb", src, mapping=mapping).status_B.tolist() == ["done", "failed"]
    assert not caplog.text


@pytest.mark.parametrize(
    ("row", "mapping", "words"),
    [
        (
            OPTUNA[1],
            OF_OPTUNA.replace("normalise: true", ""),
            r"do not sum to 1.*\? Say normalise: true in the mapping",
        ),
        (OPTUNA[1].replace("0.6", "-0.1"), OF_OPTUNA, r"row 1: the weights of its mixture must be at least 0"),
        ("0,0,0,3,3,COMPLETE", OF_OPTUNA, r"row 1: the weights of its mixture must be at least 0, and not all 0"),
        (OPTUNA[1], OF_OPTUNA.replace("true", "sum"), r"normalise is true or false, not 'sum'"),
    ],
)
def test_weights_that_are_none_are_named(tmp_path: Path, row: str, mapping: str, words: str) -> None:
    src, file = write(tmp_path, [OPTUNA[0], row], mapping)
    with pytest.raises(ValueError, match=words):
        import_runs("wandb", src, mapping=file)


def test_run_without_state_and_losses_is_failed(tmp_path: Path) -> None:
    src, mapping = write(tmp_path, mapping=MAPPING.replace("status: State", ""))
    assert import_runs("wandb", src, mapping=mapping).status_B.tolist() == ["done", "failed", "done"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("w_web", "w_wbe", r"runs.csv: the column 'w_wbe' is missing; did you mean 'w_web'"),
        ("trial_id: Name", "trial_id: Nam", r"the column 'Nam' is missing; did you mean 'Name'"),
        ("status: State", "state: State", r"map.yaml: unknown key 'state'; did you mean 'status'"),
        ("n_params: 60e6\n", "", r"map.yaml: the key 'n_params' is missing"),
        ("n_params: 60e6", "n_params: 0", r"n_params is 0: it must be a number above 0"),
        ("n_params: 60e6", "n_params: [1]", r"n_params is the name of a column, not \[1\]"),
        ("mixture: {web: w_web, code: w_code}", "mixture: w_web", r"mixture is a mapping of names to columns"),
        ("status: State", "status: Name", r"row 1: the state 'a, first' is none of checkpoint"),
        (MAPPING, "just text", r"this one is no mapping"),
    ],
)
def test_bad_mappings_are_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    src, mapping = write(tmp_path, mapping=MAPPING.replace(old, new))
    with pytest.raises(ValueError, match=words):
        import_runs("wandb", src, mapping=mapping)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('"b","finished","1","1","0.5","0.5","3","3"', r"the Name 'b' stands twice, in rows 2 and 4"),
        ('"d","finished","1","1","0.5","0.6","3","3"', r"runs.csv: the shares of 1 row.*4 \(d: 1.1\)"),
        ('"d","finished","1","1k","0.5","0.5","3","3"', r"row 4, column 'tokens': '1k' is not a number"),
        ('"d","finished","1","","0.5","0.5","3","3"', r"runs.csv: trial d: n_tokens is nan"),
    ],
)
def test_bad_runs_are_named(tmp_path: Path, row: str, words: str) -> None:
    src, mapping = write(tmp_path, [*RUNS, row])
    with pytest.raises(ValueError, match=words):
        import_runs("wandb", src, mapping=mapping)


def test_columns_nobody_asks_for_may_stand_twice(tmp_path: Path) -> None:
    """A key of the config may be one of the summary too."""
    twice = ["lr," + row + ",lr" if i == 0 else "1," + row + ",2" for i, row in enumerate(RUNS)]
    src, mapping = write(tmp_path, twice)
    assert len(import_runs("wandb", src, mapping=mapping)) == 3
    src, mapping = write(tmp_path, twice, MAPPING.replace("w_web", "lr"))
    with pytest.raises(ValueError, match=r"runs.csv: the column 'lr' stands twice"):
        import_runs("wandb", src, mapping=mapping)


def test_the_export_of_a_chart_is_told_from_that_of_the_runs(tmp_path: Path) -> None:
    chart = ['"Step","a - eval/web","a - eval/web__MIN","a - eval/web__MAX"', "1,2.5,2.5,2.5"]
    src, mapping = write(tmp_path, chart)
    with pytest.raises(ValueError, match=r"runs.csv: this is the export of a chart.*export the table of runs"):
        import_runs("wandb", src, mapping=mapping)


def test_runs_of_one_name_have_ids(tmp_path: Path) -> None:
    src, mapping = write(tmp_path, [*RUNS, RUNS[1]])
    with pytest.raises(ValueError, match=r"'a, first' stands twice.*let trial_id be the column of run ids"):
        import_runs("wandb", src, mapping=mapping)
