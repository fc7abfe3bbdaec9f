"""Olmix: two files joined by run id, never by the order of their rows."""

from pathlib import Path

import numpy as np
import pytest

from raymix.formats import import_runs

RATIOS = ["run,name,index,web,code", "r1,one,0,0.25,0.75", "r2,two,1,0.5,0.5", "r3,three,2,0,1"]
METRICS = [
    "run,name,index,note,math_bpb,qa_bpb,qa_acc",
    "r1,one,0,ok,1.5,1,0.3",
    "r2,two,1,,1.25,2,0.4",
    "r3,x,2,,1,,0.5",
]
SCALE = {"n_params": 30e6, "n_tokens": "3e9"}


def write(folder: Path, ratios: list[str] = RATIOS, metrics: list[str] = METRICS) -> Path:
    (folder / "ratios.csv").write_text("\n".join(ratios) + "\n")
    (folder / "metrics.csv").write_text("\n".join(metrics) + "\n")
    return folder


def test_folder_becomes_one_row_per_run(tmp_path: Path) -> None:
    got = import_runs("olmix", write(tmp_path), **SCALE)
    assert (got.domains, got.eval_domains) == (("web", "code"), ("math_bpb", "qa_bpb"))
    assert got.trial_ids == ["r1", "r2", "r3"]
    assert got.scale_B2.tolist() == [[30e6, 3e9]] * 3
    np.testing.assert_array_equal(got.loss_BM, [[1.5, 1], [1.25, 2], [1, np.nan]])


def test_runs_are_joined_by_id_and_not_by_order(tmp_path: Path) -> None:
    """A published version paired the files by order, which fits the wrong law without a word."""
    shuffled = write(tmp_path, metrics=[METRICS[0], METRICS[3], METRICS[1], METRICS[2]])
    got = import_runs("olmix", shuffled, metrics="math", **SCALE)
    assert dict(zip(got.trial_ids, got.loss_BM[:, 0], strict=True)) == {"r1": 1.5, "r2": 1.25, "r3": 1.0}


def test_scores_and_counters_are_no_losses_unless_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    head = "run,step,n_tokens,qa_acc,qa_acc_per_char,exact_match,macc_loss,qa_bpb"
    row = "r1,100,1e9,.3,.4,.5,2,1"
    folder = write(tmp_path, RATIOS[:2], [head, row])
    assert import_runs("olmix", folder, **SCALE).eval_domains == ("macc_loss", "qa_bpb")
    assert "taken as losses: macc_loss, qa_bpb; choose with --option metrics=" in caplog.text
    assert "left out: step, n_tokens, qa_acc, qa_acc_per_char, exact_match" in caplog.text
    assert import_runs("olmix", folder, metrics="qa_acc", **SCALE).eval_domains == ("qa_acc", "qa_acc_per_char")
    with pytest.raises(ValueError, match=r"no column looks like a loss \(step, qa_acc\)"):
        import_runs("olmix", write(tmp_path, RATIOS[:2], ["run,step,qa_acc", "r1,100,.3"]), **SCALE)


@pytest.mark.parametrize(("metrics", "names"), [("qa", ("qa_bpb", "qa_acc")), ("*_bpb", ("math_bpb", "qa_bpb"))])
def test_metrics_choose_the_losses(tmp_path: Path, metrics: str, names: tuple[str, ...]) -> None:
    assert import_runs("olmix", write(tmp_path), metrics=metrics, **SCALE).eval_domains == names


@pytest.mark.parametrize("left", ["run", "run_id"])
@pytest.mark.parametrize("right", ["run", "run_id"])
def test_run_and_run_id_are_both_ids(tmp_path: Path, left: str, right: str) -> None:
    ratios, metrics = [f"{left},web,code", "a,0,1"], [f"{right},x", "a,2.5"]
    got = import_runs("olmix", write(tmp_path, ratios, metrics), **SCALE)
    assert (got.domains, got.eval_domains, got.trial_ids) == (("web", "code"), ("x",), ["a"])


def test_row_numbers_of_pandas_are_no_domain(tmp_path: Path) -> None:
    got = import_runs("olmix", write(tmp_path, [",run,web", "0,a,1"], ["Unnamed: 0,run,x", "0,a,2"]), **SCALE)
    assert (got.domains, got.eval_domains) == (("web",), ("x",))


def test_run_without_metrics_is_kept_as_failed(tmp_path: Path) -> None:
    got = import_runs("olmix", write(tmp_path, metrics=[*METRICS[:3], "r3,,,,,,"]), **SCALE)
    assert got.status_B.tolist() == ["done", "done", "failed"]


@pytest.mark.parametrize(
    ("ratios", "metrics", "words"),
    [
        (RATIOS[:3], METRICS, r"differ: 1 only in metrics.csv \(r3\)"),
        ([*RATIOS, "r9,,,1,0"], METRICS[:3], r"2 only in ratios.csv \(r3, r9\)"),
        (RATIOS, [*METRICS, METRICS[1]], r"metrics.csv: the run 'r1' stands twice, in rows 1 and 4"),
        (["id,web", "a,1"], METRICS, r"ratios.csv: the column 'run' or 'run_id' is missing; it has id, web"),
        (["run,name", "a,b"], METRICS, r"ratios.csv: no column besides run, name"),
        ([*RATIOS[:3], "r3,,2,0.5,0.6"], METRICS, r"ratios.csv: the shares of 1 row.*3 \(r3: 1.1\)"),
        (RATIOS, [*METRICS[:3], "r3,x,2,,bad,1,1"], r"metrics.csv: row 3, column 'math_bpb': 'bad' is not a number"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, ratios: list[str], metrics: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        import_runs("olmix", write(tmp_path, ratios, metrics), **SCALE)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match=r"no metric fits 'loss'; it has note, math_bpb"):
        import_runs("olmix", tmp_path, metrics="loss", **SCALE)
    with pytest.raises(ValueError, match="n_params is 'big': it must be a number above 0"):
        import_runs("olmix", tmp_path, n_params="big", n_tokens=1e9)
    with pytest.raises(ValueError, match="this is a file; name the folder"):
        import_runs("olmix", tmp_path / "ratios.csv", **SCALE)
    (tmp_path / "metrics.csv").unlink()
    with pytest.raises(ValueError, match=r"metrics.csv: there is no such file"):
        import_runs("olmix", tmp_path, **SCALE)
