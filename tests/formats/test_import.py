"""What all formats have in common, and tables that are in the exchange form already."""

import itertools
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from raymix.cli import app
from raymix.formats import FORMATS, import_runs, options_of
from raymix.observations import Observations

ROWS = [
    {
        "trial_id": "007",
        "seed": 3,
        "n_params": 1e5,
        "n_tokens": 1e6,
        "mixture/a": 0.25,
        "mixture/b": 0.75,
        "loss/x": 3.5,
    },
    {"trial_id": "1.0", "n_params": 1e5, "n_tokens": 1e6, "mixture/a": 1, "mixture/b": 0, "status": "failed"},
]


def test_the_help_of_import_names_every_format_and_its_options() -> None:
    said = CliRunner().invoke(app, ["import", "--help"]).output
    parts = {line.split()[0]: i for i, line in enumerate(said.splitlines()) if line[2:3].isalpha()}
    assert set(FORMATS) <= set(parts)
    for name in FORMATS:
        own = itertools.takewhile(lambda line: line[:10].isspace(), said.splitlines()[parts[name] + 1 :])
        words = " ".join(own)
        assert all(f"{option}=" in words for option in options_of(name)), name


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_exchange_form_round_trips(tmp_path: Path, ending: str) -> None:
    before = Observations.from_rows(ROWS, ["a", "b"], ["x"])
    before.write(tmp_path / f"t.{ending}")
    after = import_runs("exchange", tmp_path / f"t.{ending}")
    assert str(after.table.to_pylist()) == str(before.table.to_pylist())


def test_exchange_without_losses_is_a_table_of_queries(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("trial_id,n_params,n_tokens,mixture/a\nq,1,2,1\n")
    got = import_runs("exchange", tmp_path / "t.csv")
    assert (got.eval_domains, got.loss_BM.shape) == ((), (1, 0))


def test_columns_without_effect_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_text("trial_id,n_params,n_tokens,mixture/a,losses/a\nq,1,2,1,3\n")
    with caplog.at_level(logging.WARNING):
        import_runs("exchange", tmp_path / "t.csv")
    assert "not part of the exchange form, left out: losses/a" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trial_id,n_param,n_tokens,mixture/a\nq,1,2,1\n", "column 'n_params' is missing; did you mean 'n_param'"),
        ("trial_id,n_params,n_tokens\nq,1,2\n", "no column begins with 'mixture/'"),
        ("trial_id,n_params,n_tokens,mixture/,mixture/b\nq,1,2,.5,.5\n", "the column 'mixture/' names nothing"),
        ("trial_id,n_params,n_tokens,mixture/a\nq,1,many,1\n", "row 1, column 'n_tokens': 'many' is not a number"),
        ("trial_id,n_params,n_tokens,mixture/a\nq,1,1_000,1\n", "'1_000' is not a number$"),
        ('trial_id,n_params,n_tokens,mixture/a\nq,1,"1,5",1\n', "'1,5' is not a number: write decimals with a point"),
        ("trial_id,n_params,n_tokens,mixture/a\n,1,1,1\n", "row 1 has no trial_id"),
        ("trial_id,n_params,n_tokens,mixture/a\nq,1,1,1\nq,1,1,1\n", "trial 'q' has two rows"),
        ("trial_id,n_params,n_tokens,mixture/a,tokens/b\nq,1,1,1,1\n", "tokens/b has no mixture/b"),
        ("trial_id,n_params,n_tokens,mixture/a\n", "the file has no rows"),
        ("", "the file is empty"),
        ('trial_id,n_params,n_tokens,mixture/a\n"q\x00,1,1,1\n', "t.csv"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        import_runs("exchange", tmp_path / "t.csv")
    assert str(tmp_path / "t.csv") in str(caught.value)


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    for name, words in {
        "t.xlsx": "a table is a .csv",
        "t.parquet": "cannot be read as Parquet",
        "t.csv": "as text",
        "t.csv.gz": "as text",
    }.items():
        (tmp_path / name).write_bytes(b"\xff\xfe\x00nonsense")
        with pytest.raises(ValueError, match=words):
            import_runs("exchange", tmp_path / name)
    with pytest.raises(ValueError, match="this is a folder; name a file in it"):
        import_runs("exchange", tmp_path)


def test_excel_mark_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    raw = "\ufefftrial_id,n_params,n_tokens,mixture/a\r\n\r\nq,1,2,1\r\n,,,\r\n"
    (tmp_path / "t.csv").write_bytes(raw.encode())
    assert import_runs("exchange", tmp_path / "t.csv").trial_ids == ["q"]


def test_what_has_no_ending_is_csv(tmp_path: Path) -> None:
    (tmp_path / "stdin").write_text("trial_id,n_params,n_tokens,mixture/a\nq,1,2,1\n")
    assert import_runs("exchange", tmp_path / "stdin").trial_ids == ["q"]


def test_unknown_format_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="there is no format 'regmx'; did you mean 'regmix'"):
        import_runs("regmx", "anywhere")
    with pytest.raises(ValueError, match="there is no format 'zzz'; there are: exchange, mixinglaws"):
        import_runs("zzz", "anywhere")


def test_unknown_and_missing_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="regmix has no option 'n_token'; did you mean 'n_tokens'"):
        import_runs("regmix", tmp_path, n_token=1)
    with pytest.raises(ValueError, match="exchange has no option 'x'; it has none"):
        import_runs("exchange", tmp_path, x=1)
    with pytest.raises(ValueError, match="olmix needs --option n_params="):
        import_runs("olmix", tmp_path)
    assert options_of("olmix") == {"n_params": True, "n_tokens": True, "metrics": False}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_missing_source_is_named(name: str, tmp_path: Path) -> None:
    needed = {option: "1" for option, is_needed in options_of(name).items() if is_needed}
    with pytest.raises(ValueError, match="nowhere: there is no such file or folder"):
        import_runs(name, tmp_path / "nowhere", **needed)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_says_what_it_reads(name: str) -> None:
    doc = FORMATS[name].__doc__ or ""
    assert "Args:" in doc
    assert "Raises:" in doc
    assert all(f"{option}:" in doc for option in options_of(name))


def test_nan_ids_in_parquet_are_no_ids(tmp_path: Path) -> None:
    table = Observations.from_rows(ROWS, ["a", "b"], ["x"]).table
    index = table.column_names.index("trial_id")
    pyarrow.parquet.write_table(table.set_column(index, "trial_id", pa.array([1.5, np.nan])), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="row 2 has no trial_id"):
        import_runs("exchange", tmp_path / "t.parquet")


def test_commas_at_the_end_of_every_line_are_no_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As spreadsheets write them."""
    (tmp_path / "t.csv").write_text("trial_id,n_params,n_tokens,mixture/a,,\nq,1,2,1,,\nr,1,2,1,,\n")
    with caplog.at_level(logging.WARNING):
        assert import_runs("exchange", tmp_path / "t.csv").trial_ids == ["q", "r"]
    assert not caplog.text
    (tmp_path / "t.csv").write_text(",trial_id,n_params,n_tokens,mixture/a\n0,q,1,2,1\n")
    with caplog.at_level(logging.WARNING):
        import_runs("exchange", tmp_path / "t.csv")
    assert "left out: one without a name" in caplog.text


def test_a_seed_keeps_all_its_digits(tmp_path: Path) -> None:
    """As hashes make them: a float has 53 bits."""
    (tmp_path / "t.csv").write_text(
        "trial_id,seed,n_params,n_tokens,mixture/a\nq,9007199254740993,1,2,1\nr,7.0,1,2,1\n"
    )
    got = import_runs("exchange", tmp_path / "t.csv")
    assert got.table["seed"].to_pylist() == [9007199254740993, 7]
    for cell in ("1.5", "inf"):
        (tmp_path / "t.csv").write_text(f"trial_id,seed,n_params,n_tokens,mixture/a\nq,{cell},1,2,1\n")
        with pytest.raises(ValueError, match=f"row 1, column 'seed': '{cell}' is not a whole number"):
            import_runs("exchange", tmp_path / "t.csv")


def test_cells_that_other_programs_leave_empty(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("trial_id,n_params,n_tokens,mixture/a,loss/x,seconds\nNA,1,2,1,NA,null\n")
    got = import_runs("exchange", tmp_path / "t.csv")
    assert got.trial_ids == ["NA"] and np.isnan(got.loss_BM).all() and np.isnan(got.column("seconds")).all()


def test_text_of_another_encoding_is_to_be_saved_as_utf8(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("trial_id,n_params,n_tokens,mixture/b\u00fccher\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"t.csv: cannot be read as text .*; save it as UTF-8"):
        import_runs("exchange", tmp_path / "t.csv")
