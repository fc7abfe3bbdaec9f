"""The observation table in its exchange form."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymix.observations import Observations


def row(trial: str = "a", **changes: Any) -> dict[str, Any]:
    base = {"trial_id": trial, "status": "done", "seed": 1, "n_params": 1e5, "n_tokens": 1e6}
    base |= {"mixture/web": 0.25, "mixture/a/b": 0.75, "loss/web": 3.5, "loss/exams": 2.5}
    return base | changes


def table(*rows: dict[str, Any]) -> Observations:
    return Observations.from_rows(rows, ["web", "a/b"], ["web", "exams"])


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_round_trip_keeps_values_and_names(tmp_path: Path, ending: str) -> None:
    before = table(row(), row("007", status="failed", reason='died, "really"', **{"loss/web": None}))
    before.write(tmp_path / f"t.{ending}")
    after = Observations.read(tmp_path / f"t.{ending}")
    assert after.domains == ("web", "a/b")
    assert after.trial_ids == ["a", "007"]
    assert after.table["reason"].to_pylist() == ["", 'died, "really"']
    np.testing.assert_array_equal(after.loss_BM, before.loss_BM)
    np.testing.assert_array_equal(after.mix_BK, before.mix_BK)


def test_failed_trial_is_kept_as_row_and_hidden_from_laws() -> None:
    got = table(row(), row("b", status="failed", **{"loss/web": None, "loss/exams": None}))
    assert len(got) == 2
    assert got.usable().trial_ids == ["a"]


@pytest.mark.parametrize("value", [float("inf"), -3.0, 0.0])
def test_a_loss_that_is_none_is_hidden_from_laws_and_the_others_of_its_row_are_not(value: float) -> None:
    got = table(row(**{"loss/web": value}), row("b"))
    np.testing.assert_array_equal(got.usable().loss_BM, [[np.nan, 2.5], [3.5, 2.5]])
    assert got.loss_BM[0, 0] == value


def test_a_file_with_losses_that_are_none_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table(row(**{"loss/exams": None}), row("b", **{"loss/web": -3.0})).write(tmp_path / "t.csv")
    Observations.read(tmp_path / "t.csv")
    assert "not measured, the first in row 2 (trial b): loss/web is -3" in caplog.text


def test_last_row_of_a_trial_is_the_one_with_most_tokens() -> None:
    got = table(row(n_tokens=2e6), row("b"), row(n_tokens=1e6, status="checkpoint"))
    assert got.last().scale_B2[:, 1].tolist() == [2e6, 1e6]
    assert got.run_B.tolist() == [0, 1, 0]


def test_rows_of_one_name_and_two_sizes_are_of_two_models() -> None:
    sizes = [(1e5, 1e6), (4e5, 1e6), (1e5, 2e6)]
    got = table(*(row("exp", n_params=n, n_tokens=d, status="checkpoint") for n, d in sizes), row("b"))
    assert got.run_B.tolist() == [0, 0, 0, 1]
    assert got.model_B.tolist() == [0, 1, 0, 2]


def test_published_rounding_is_renormalised() -> None:
    got = table(row(**{"mixture/web": 0.251, "mixture/a/b": 0.752}))
    assert got.mix_BK.sum() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(), row("b", **{"mixture/web": 0.9})], r"row.*do not sum to 1 within 1%: 2 \(b: 1.65\)"),
        ([row(**{"mixture/web": -0.25})], r"row 1 \(trial a\): mixture/web is -0.25"),
        ([row(), row()], "trial 'a' has two rows"),
        ([row(), row("b", status="finished")], "trial b: status 'finished' is not one of"),
        ([row(n_tokens=0)], "trial a: n_tokens is 0"),
        ([row(), row("b", n_tokens=1e6, seconds="abc")], "trial b: seconds is 'abc', it must be a number"),
    ],
)
def test_bad_rows_are_named(rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        table(*rows)


def test_percentages_are_recognised_where_every_row_has_them() -> None:
    percent = {"mixture/web": 25, "mixture/a/b": 75}
    with pytest.raises(ValueError, match=r"1 \(a: 100\).*these look like percentages: divide them by 100"):
        table(row(**percent), row("b", **percent))
    with pytest.raises(ValueError, match=r"within 1%: 1 \(a: 100\)$"):
        table(row(**percent), row("b"))


@pytest.mark.parametrize(("sign", "kind"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_are_named(tmp_path: Path, sign: str, kind: str) -> None:
    (tmp_path / "t.csv").write_text(f"trial_id{sign}n_params{sign}n_tokens\na{sign}1{sign}1\n")
    with pytest.raises(ValueError, match=f"t.csv: the header is one column; .* separated by {kind}"):
        Observations.read(tmp_path / "t.csv")


def test_missing_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("trial_id,n_tokens,mixture/web\na,1,1\n")
    with pytest.raises(ValueError, match="'n_params' is missing"):
        Observations.read(tmp_path / "t.csv")
    (tmp_path / "u.csv").write_text("trial_id,n_params,n_tokens\na,1,1\n")
    with pytest.raises(ValueError, match="no column begins with 'mixture/'"):
        Observations.read(tmp_path / "u.csv")
    with pytest.raises(ValueError, match="no such file"):
        Observations.read(tmp_path / "v.csv")


@pytest.mark.parametrize("shares", [(0.34, 0.65), (0.35, 0.66)])
def test_shares_of_two_decimals_are_renormalised(shares: tuple[float, float]) -> None:
    """Sums of .99 and 1.01 are off by 1%, not by more."""
    got = table(row(**{"mixture/web": shares[0], "mixture/a/b": shares[1]}))
    np.testing.assert_allclose(got.mix_BK, np.array([shares]) / sum(shares))


def test_a_share_that_rounding_left_below_0_is_0() -> None:
    got = table(row(**{"mixture/web": -1e-12, "mixture/a/b": 1.0}))
    assert got.mix_BK.tolist() == [[0.0, 1.0]]


def test_a_seed_beyond_64_bits_is_refused_with_its_trial() -> None:
    with pytest.raises(ValueError, match=r"trial a: the seed is .* below 2\^63"):
        table(row(seed=2**63))


def test_empty_table_is_a_table() -> None:
    got = table()
    assert len(got.usable().last()) == 0
    assert got.mix_BK.shape == (0, 2)
    assert got.scale_group_B.shape == (0,)


def test_scales_are_told_apart_by_size_and_length_and_not_by_rounding() -> None:
    scales = [(1e6, 8e8), (1e6, 1e8), (1.02e6, 1.03e8), (1e6, 7.9e8), (1e7, 1e8)]
    got = table(*(row(str(i), n_params=size, n_tokens=tokens) for i, (size, tokens) in enumerate(scales)))
    assert got.scale_group_B.tolist() == [1, 0, 0, 1, 2]


def test_two_runs_under_one_name_are_refused_and_checkpoints_and_sizes_are_not() -> None:
    mixtures = {"mixture/web": 0.3, "mixture/a/b": 0.7}, {"mixture/web": 0.6, "mixture/a/b": 0.4}
    with pytest.raises(ValueError, match=r"trial 'exp' ended in two mixtures at n_params .*a trial_id of its own"):
        table(row("exp", n_tokens=1e8, **mixtures[0]), row("exp", n_tokens=2e8, **mixtures[1]))
    assert len(table(row("exp", n_tokens=1e8, **mixtures[0]), row("exp", n_tokens=2e8, **mixtures[0]))) == 2
    assert len(table(row("exp", n_params=1e6, **mixtures[0]), row("exp", n_params=2e6, **mixtures[1]))) == 2
    drawn = row("exp", n_tokens=1e8, status="checkpoint", **mixtures[0])
    assert len(table(drawn, row("exp", n_tokens=2e8, **mixtures[1]))) == 2
