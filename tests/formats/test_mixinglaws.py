"""Losses along training: the text form and the tidy form say the same, and their traps are caught."""

import gzip
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from raymix.formats import import_runs
from raymix.observations import Observations

STEP = 1048576
LINES = [
    ("70M_13-0.25-0.125-0.625", "500", "Github", 7.25),
    ("70M_13-0.25-0.125-0.625", "500", "Pile-CC", 7.5),
    ("70M_13-0.25-0.125-0.625", "1000", "Github", 5.25),
    ("70M_13-0.25-0.125-0.625", "1000", "Pile-CC", 5.5),
    ("160M_base2_4-0-0-1.0", "1000", "Github", 6.0),
]
DOMAINS = "github,books3,pile_cc"
Parts = tuple[str, str, str, float]


def text(folder: Path, lines: list[Parts], ending: str = "txt") -> Path:
    path = folder / f"losses.{ending}"
    path.write_text("".join(f"out/{run}/{step}\tvalid/{name}.jsonl\t{loss}\n" for run, step, name, loss in lines))
    return path


def tidy_rows(lines: list[Parts]) -> list[dict[str, Any]]:
    sizes = {"70M": 18915328, "160M": 85056000}
    rows = []
    for run, step, name, loss in lines:
        shares = dict(zip(("p_github", "p_books3", "p_pile_cc"), map(float, run.split("-")[1:]), strict=True))
        head = {"run_id": run, "model_size": sizes[run.split("_")[0]], "step": int(step), "tokens": int(step) * STEP}
        rows.append(head | shares | {"valid_domain": name, "loss": loss})
    return rows


def tidy(folder: Path, rows: list[dict[str, Any]], ending: str = "csv") -> Path:
    path = folder / f"tidy.{ending}"
    if ending == "parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
        return path
    lines = [",".join(rows[0]), *(",".join("" if v is None else str(v) for v in row.values()) for row in rows)]
    raw = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
    return path


def test_a_folder_of_the_repository_is_all_its_sizes(tmp_path: Path) -> None:
    """A file for each size; in some the runs do not name it, and one run name stands in two files."""
    for size, loss in (("70M", 7.25), ("410M", 6.5)):
        (tmp_path / f"{size}.txt").write_text(f"out/0-0.25-0.75/500\tvalid/Github.jsonl\t{loss}\n")
    (tmp_path / "160M.txt").write_text("out/160M_3-0.5-0.5/500\tvalid/Github.jsonl\t7\n")
    (tmp_path / "proportions.txt").write_text("0.25-0.75\n0.5-0.5\n")
    (tmp_path / "1B").mkdir()  # checkpoints, say
    got = import_runs("mixinglaws", tmp_path, domains="a,b", skip="160M_3-0.5-0.5")
    assert got.scale_B2[:, 0].tolist() == [18915328, 302311424]
    assert got.loss_BM[:, 0].tolist() == [7.25, 6.5]
    assert len(import_runs("mixinglaws", tmp_path, domains="a,b")) == 3
    assert import_runs("mixinglaws", tmp_path / "410M.txt", domains="a,b").scale_B2[0, 0] == 302311424
    assert import_runs("mixinglaws", tmp_path / "410M.txt", domains="a,b", model="2e8").scale_B2[0, 0] == 2e8
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"none: no file is called by a size, as 70M.txt, .*; name a file in it"):
        import_runs("mixinglaws", tmp_path / "none", domains="a,b")


def test_eval_files_are_called_as_the_repository_calls_their_domains(tmp_path: Path) -> None:
    """Its weights are by those names, and eval domains are matched with training domains by name."""
    files = ["data//pythia-pile.valid.Pile-CC.bin", "ct//starcoder.python.valid.bin", "valid.Github.bin", "a.b/c.jsonl"]
    (tmp_path / "70M.txt").write_text("".join(f"ckpts//70M_ct_1-0.25-0.75/2000\t{name}\t3\n" for name in files))
    got = import_runs("mixinglaws", tmp_path / "70M.txt", domains="a,b")
    assert set(got.eval_domains) == {"Pile-CC", "starcoder.python.valid", "Github", "c"}


def test_text_becomes_one_row_per_checkpoint(tmp_path: Path) -> None:
    got = import_runs("mixinglaws", text(tmp_path, LINES), domains=DOMAINS)
    assert (got.domains, got.eval_domains) == (("github", "books3", "pile_cc"), ("Github", "Pile-CC"))
    assert got.trial_ids == ["70M_13-0.25-0.125-0.625"] * 2 + ["160M_base2_4-0-0-1.0"]
    assert got.status_B.tolist() == ["checkpoint", "done", "done"]
    assert got.scale_B2.tolist() == [[18915328, 500 * STEP], [18915328, 1000 * STEP], [85056000, 1000 * STEP]]
    assert got.mix_BK.tolist() == [[0.25, 0.125, 0.625]] * 2 + [[0, 0, 1]]
    np.testing.assert_array_equal(got.loss_BM, [[7.25, 7.5], [5.25, 5.5], [6.0, np.nan]])


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_tidy_and_text_give_the_same_table(tmp_path: Path, ending: str) -> None:
    from_text = import_runs("mixinglaws", text(tmp_path, LINES), domains=DOMAINS)
    from_tidy = import_runs("mixinglaws", tidy(tmp_path, tidy_rows(LINES), ending))
    assert same(from_text, from_tidy)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_lines_does_not_matter(tmp_path: Path, seed: int) -> None:
    straight = import_runs("mixinglaws", text(tmp_path, LINES), domains=DOMAINS)
    lines = random.Random(seed).sample(LINES, len(LINES))
    assert same(straight, import_runs("mixinglaws", text(tmp_path, lines), domains=DOMAINS))
    assert same(straight, import_runs("mixinglaws", tidy(tmp_path, tidy_rows(lines))))


def same(left: Observations, right: Observations) -> bool:
    """Equal cell by cell, NaN included."""
    return left.table.schema == right.table.schema and str(left.table.to_pylist()) == str(right.table.to_pylist())


def test_steps_give_tokens_where_the_column_is_missing(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "tokens"} for row in tidy_rows(LINES)]
    assert import_runs("mixinglaws", tidy(tmp_path, rows)).scale_B2[0, 1] == 500 * STEP


def test_size_labels_stand_for_parameters(tmp_path: Path) -> None:
    rows = [row | {"model_size": "305M"} for row in tidy_rows(LINES)]
    assert import_runs("mixinglaws", tidy(tmp_path, rows)).scale_B2[0, 0] == 201541632
    lines = [("4-0-0-1.0", "10", "Github", 3.0)]
    assert import_runs("mixinglaws", text(tmp_path, lines), domains=DOMAINS, model="410M").scale_B2[0, 0] == 302311424
    assert import_runs("mixinglaws", text(tmp_path, lines), domains=DOMAINS, model=5e6).scale_B2[0, 0] == 5e6


def test_a_size_for_runs_that_name_none_chooses_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for src, option in ((tidy(tmp_path, tidy_rows(LINES)), {}), (text(tmp_path, LINES), {"domains": DOMAINS})):
        caplog.clear()
        assert len(set(import_runs("mixinglaws", src, model="70M", **option).column("n_params"))) == 2
        assert "model=70M is of runs that name no size, and chooses none: others are of 8.5056e+07" in caplog.text
    caplog.clear()
    import_runs("mixinglaws", tidy(tmp_path, tidy_rows(LINES[:4])), model="70M")
    assert not caplog.text


def test_equal_duplicates_count_once_and_last_is_dropped(tmp_path: Path) -> None:
    straight = import_runs("mixinglaws", text(tmp_path, LINES), domains=DOMAINS)
    more = [*LINES, LINES[0], ("70M_13-0.25-0.125-0.625", "last", "Github", 1.0)]
    assert same(straight, import_runs("mixinglaws", text(tmp_path, more), domains=DOMAINS))


def test_run_with_last_alone_is_left_out_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [*LINES, ("70M_2-0-1-0", "last", "Github", 1.0)]
    with caplog.at_level(logging.WARNING):
        got = import_runs("mixinglaws", text(tmp_path, lines), domains=DOMAINS)
    assert "70M_2-0-1-0" not in got.trial_ids
    assert "no step but `last` are left out: 70M_2-0-1-0" in caplog.text


def test_skip_leaves_out_truncated_runs(tmp_path: Path) -> None:
    lines = [*LINES, ("70M_997-0.25-0.1", "500", "Github", 1.0)]
    got = import_runs("mixinglaws", text(tmp_path, lines), domains=DOMAINS, skip="70M_997-0.25-0.1")
    assert same(got, import_runs("mixinglaws", text(tmp_path, LINES), domains=DOMAINS))


def test_losses_of_an_untrained_model_are_left_out_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fresh = tidy_rows(LINES)[0] | {"run_id": "fresh", "tokens": 0}
    with caplog.at_level(logging.WARNING):
        got = import_runs("mixinglaws", tidy(tmp_path, [*tidy_rows(LINES), fresh]))
    assert len(got) == 3
    assert "losses at 0 tokens are left out, of fresh" in caplog.text


def test_losses_of_a_base_model_begin_every_run_of_its_size(tmp_path: Path) -> None:
    """A base model has no mixture of the stage that goes on from it."""
    no_shares = {"p_github": None, "p_books3": None, "p_pile_cc": None}
    base = tidy_rows(LINES)[0] | {"run_id": "base", "tokens": 0, "loss": 3.5, **no_shares}
    got = import_runs("mixinglaws", tidy(tmp_path, [*tidy_rows(LINES), base]))
    start = got.select(got.status_B == "start")
    runs = got.usable()
    assert len(runs) == 3
    of_size = runs.select(runs.scale_B2[:, 0] == start.scale_B2[0, 0])
    assert sorted(start.trial_ids) == sorted(set(of_size.trial_ids))
    assert (start.loss_BM[:, got.eval_domains.index("Github")] == 3.5).all()
    assert not start.scale_B2[:, 1].any()


def test_checkpoint_without_losses_is_kept_as_failed(tmp_path: Path) -> None:
    rows = [row | {"loss": "nan" if row["step"] == 500 else row["loss"]} for row in tidy_rows(LINES)]
    assert import_runs("mixinglaws", tidy(tmp_path, rows)).status_B.tolist() == ["failed", "done", "done"]


def queries(folder: Path) -> Path:
    """Two experiments in one file, with a domain in common and no losses."""
    other = {"p_github": None, "p_books3": None, "p_pile_cc": None, "p_web": None}
    first = [{"experiment": "a"} | row | {"p_web": None} for row in tidy_rows(LINES)]
    second = [row | other | {"experiment": "b", "p_github": 0.5, "p_web": 0.5} for row in first[:4]]
    rows = [{key: value for key, value in row.items() if key != "loss"} for row in [*first, *second]]
    return tidy(folder, rows, "csv.gz")


def test_queries_are_rows_without_losses_that_join_back(tmp_path: Path) -> None:
    got = import_runs("mixinglaws", queries(tmp_path), experiment="a")
    assert (got.domains, got.eval_domains, len(got)) == (("github", "books3", "pile_cc"), (), 3)
    assert len({*zip(got.trial_ids, *got.scale_B2.T.tolist(), strict=True)}) == 3
    assert len(got.usable()) == 0


def test_an_experiment_keeps_its_own_domains(tmp_path: Path) -> None:
    assert import_runs("mixinglaws", queries(tmp_path), experiment="b").domains == ("github", "web")
    with pytest.raises(ValueError, match="several experiments, choose one with --option experiment=NAME: a, b"):
        import_runs("mixinglaws", queries(tmp_path))
    with pytest.raises(ValueError, match="there is no experiment 'c'; there are: a, b"):
        import_runs("mixinglaws", queries(tmp_path), experiment="c")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("70M_13-0.25-0.125-0.625", "500", "Github", 7.0), r"at 5.24288e\+08 tokens has two losses on 'Github'"),
        (("70M_999-0.5-0.5-0.0199", "500", "Github", 7.0), r"1 trial.s. do not sum to 1 within 1%: 70M_999.*1.0199"),
        (
            ("70M_997-0.5-0.5", "500", "Github", 7.0),
            r"line 6: the run name '70M_997-0.5-0.5' ends in 2 shares, not in 3",
        ),
        (("70M_7-0-0-0.5-0.5", "500", "Github", 7.0), r"ends in 4 shares, not in 3 \(github, books3, pile_cc\)"),
        (("7-0.5-0.5-0", "500", "Github", 7.0), r"line 6: the run name '7-0.5-0.5-0' begins with no size"),
        (("33M_7-0.5-0.5-0", "500", "Github", 7.0), r"'33M' is no number above 0 and none of 70M"),
        (("70M_7-0.5-0.5-0", "best", "Github", 7.0), r"line 6: the checkpoint path ends in 'best', which is no step"),
        (("70M_7-0.5-0.5-0", "5", "Github", "low"), r"line 6: the loss 'low' is not a number"),
        (("70M_7-0.5-0.5-0", "5", "Git\thub", 7.0), r"line 6 is not checkpoint-path <tab> eval-file <tab> loss"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        import_runs("mixinglaws", text(tmp_path, [*LINES, line]), domains=DOMAINS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": 1.0}, r"has two losses on 'Github': 7.25 and 1"),
        ({"p_github": 0.5}, r"trial '70M_13.*' has two mixtures"),
        ({"p_github": None}, r"has two mixtures|has an empty share"),
        ({"p_github": "x"}, r"row 6, column 'p_github': 'x' is not a number"),
        ({"tokens": None}, r"row 6 has no run_id, valid_domain or tokens"),
        ({"model_size": None}, r"row 6: the model size '' is no number above 0"),
        ({"run_id": "new", "p_github": 0.5}, r"do not sum to 1 within 1%: new \(sum 1.25\)"),
    ],
)
def test_bad_tidy_rows_are_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    rows = tidy_rows(LINES)
    with pytest.raises(ValueError, match=words):
        import_runs("mixinglaws", tidy(tmp_path, [*rows, rows[0] | change]))


@pytest.mark.parametrize("column", ["run_id", "valid_domain", "p_"])
def test_missing_columns_are_named(tmp_path: Path, column: str) -> None:
    rows = [{key: value for key, value in row.items() if not key.startswith(column)} for row in tidy_rows(LINES)]
    with pytest.raises(ValueError, match=column):
        import_runs("mixinglaws", tidy(tmp_path, rows))


def test_missing_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give --option domains=A,B,C"):
        import_runs("mixinglaws", text(tmp_path, LINES))
    with pytest.raises(ValueError, match="skip names '70M_13', which is no trial"):
        import_runs("mixinglaws", text(tmp_path, LINES), domains=DOMAINS, skip=["70M_13"])
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"empty.txt: the file is empty"):
        import_runs("mixinglaws", tmp_path / "empty.txt", domains=DOMAINS)
