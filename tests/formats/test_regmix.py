"""RegMix: mixtures and losses are joined by index, whatever the order of the rows."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from raymix.formats import import_runs

MIXTURES = ["index,train_the_pile_arxiv,train_the_pile_pile_cc", "1,0.25,0.75", "2,0.5,0.497", "3,1.0,0.0"]
LOSSES = ["index,metric/the_pile_pile_cc_val_loss,metric/the_pile_arxiv_val_loss", "1,5.0,6.0", "2,5.5,5.75", "3,7,4"]


def write(folder: Path, mixtures: list[str] = MIXTURES, losses: list[str] = LOSSES, size: str = "1m") -> Path:
    (folder / f"train_mixture_{size}.csv").write_text("\n".join(mixtures) + "\n")
    (folder / f"train_pile_loss_{size}.csv").write_text("\n".join(losses) + "\n")
    return folder


def test_folder_becomes_one_row_per_mixture(tmp_path: Path) -> None:
    got = import_runs("regmix", write(tmp_path))
    assert got.trial_ids == ["1", "2", "3"]
    assert (got.domains, got.eval_domains) == (("arxiv", "pile_cc"), ("pile_cc", "arxiv"))
    np.testing.assert_array_equal(got.loss_BM, [[5, 6], [5.5, 5.75], [7, 4]])
    assert got.scale_B2.tolist() == [[1e6, 1e9]] * 3


def test_the_loss_of_training_is_no_eval_domain(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """RegMix's own script collects it beside those of evaluation; as half of an objective it would prefer easy text."""
    losses = ["index,metric/the_pile_pile_cc_val_loss,metric/train_loss", "1,5,3", "2,5.5,1", "3,7,2"]
    got = import_runs("regmix", write(tmp_path, losses=losses))
    assert got.eval_domains == ("pile_cc",)
    assert "metric/train_loss is left out" in caplog.text
    with pytest.raises(ValueError, match="no column is called metric/<name>_loss"):
        import_runs("regmix", write(tmp_path, losses=["index,metric/train_loss", "1,3", "2,1", "3,2"]))


def test_rounded_shares_are_renormalised(tmp_path: Path) -> None:
    got = import_runs("regmix", write(tmp_path))
    np.testing.assert_allclose(got.mix_BK[1], [0.5 / 0.997, 0.497 / 0.997], rtol=1e-15)


def test_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    straight = import_runs("regmix", write(tmp_path / "a"))
    shuffled = import_runs("regmix", write(tmp_path / "b", losses=[LOSSES[0], LOSSES[3], LOSSES[1], LOSSES[2]]))
    assert str(straight.table.to_pylist()) == str(shuffled.table.to_pylist())


def test_index_written_as_float_is_the_same_index(tmp_path: Path) -> None:
    assert len(import_runs("regmix", write(tmp_path, losses=[LOSSES[0], "1.0,5,6", "2.0,5,6", "3.0,5,6"]))) == 3


def test_a_folder_of_compressed_files_is_found_too(tmp_path: Path) -> None:
    for file in write(tmp_path).iterdir():
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert import_runs("regmix", tmp_path).trial_ids == ["1", "2", "3"]


@pytest.mark.parametrize(("size", "scale"), [("60m", [60e6, 1e9]), ("1b", [1e9, 25e9])])
def test_scale_comes_from_the_file_name(tmp_path: Path, size: str, scale: list[float]) -> None:
    got = import_runs("regmix", write(tmp_path, size=size) / f"train_mixture_{size}.csv")
    assert got.scale_B2[0].tolist() == scale


def test_options_overrule_the_file_name(tmp_path: Path) -> None:
    got = import_runs("regmix", write(tmp_path, size="7m"), n_params="8e6", n_tokens=2e9)
    assert got.scale_B2[0].tolist() == [8e6, 2e9]


def test_trial_without_losses_is_kept_as_failed(tmp_path: Path) -> None:
    got = import_runs("regmix", write(tmp_path, losses=[*LOSSES[:2], "2,,nan", "3,7,"]))
    assert got.status_B.tolist() == ["done", "failed", "done"]
    assert got.table["reason"][1].as_py() == "no finite loss in train_pile_loss_1m.csv"
    assert np.isnan(got.loss_BM[2, 1])


@pytest.mark.parametrize(
    ("mixtures", "losses", "words"),
    [
        (MIXTURES[:3], LOSSES, r"ids of the two files differ: 1 only in train_pile_loss_1m.csv \(3\)"),
        (
            MIXTURES,
            LOSSES[:2],
            r"differ: 2 only in train_mixture_1m.csv \(2, 3\); a run stands in both, with empty cells",
        ),
        ([*MIXTURES, "1,0.5,0.5"], LOSSES, r"train_mixture_1m.csv: the index '1' stands twice, in rows 1 and 4"),
        ([*MIXTURES[:3], "3,0.5,0.6"], LOSSES, r"train_mixture_1m.csv: the shares of 1 row.*3 \(3: 1.1\)"),
        ([*MIXTURES[:3], "3,half,0.5"], LOSSES, r"row 3, column 'train_the_pile_arxiv': 'half' is not a number"),
        ([*MIXTURES[:3], "3,,1"], LOSSES, r"row 3, column 'train_the_pile_arxiv' is empty; a share of nothing is 0"),
        ([*MIXTURES[:3], "3,1"], LOSSES, r"row 3 has 2 cells, the header has 3 columns"),
        ([*MIXTURES[:3], ",0,1"], LOSSES, r"row 3 has no 'index'"),
        (["id" + MIXTURES[0][5:], *MIXTURES[1:]], LOSSES, r"the column 'index' is missing"),
        (["index,arxiv", "1,1"], LOSSES, r"no column is called train_<domain>; it has index, arxiv"),
        (MIXTURES, ["index,arxiv", "1,1"], r"no column is called metric/<name>_loss; it has index, arxiv"),
        (MIXTURES, LOSSES[:1], r"train_pile_loss_1m.csv: the file has no rows"),
        (MIXTURES, [""], r"train_pile_loss_1m.csv: the file is empty"),
        (["index,train_a,train_a", "1,1,0"], LOSSES, r"the column 'train_a' stands twice"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, mixtures: list[str], losses: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        import_runs("regmix", write(tmp_path, mixtures, losses))


def test_unclear_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file train_mixture_\*.csv; name the mixture CSV"):
        import_runs("regmix", tmp_path)
    write(tmp_path)
    write(tmp_path, size="60m")
    with pytest.raises(ValueError, match=r"there are several files .*train_mixture_1m.csv, train_mixture_60m.csv"):
        import_runs("regmix", tmp_path)
    (tmp_path / "train_pile_loss_1m.csv").unlink()
    with pytest.raises(ValueError, match=r"there is no file train_\*loss\*_1m.csv; name it with --option losses=FILE"):
        import_runs("regmix", tmp_path / "train_mixture_1m.csv")


def test_unknown_sizes_ask_for_the_option(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trained no proxies of 7e\\+06 parameters; give --option n_tokens=NUMBER"):
        import_runs("regmix", write(tmp_path, size="7m"))
    with pytest.raises(ValueError, match="the name holds no size such as 1m or 1b"):
        import_runs("regmix", write(tmp_path, size="small") / "train_mixture_small.csv")
