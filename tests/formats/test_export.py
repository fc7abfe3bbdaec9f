"""An export, read back, is the mixture; what a trainer cannot express is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymix.formats.export import TARGETS, Blend, ExportError, blend_of, export, write_files
from raymix.formats.export.blend import rounded

SHARES = {"web": 0.6123456789, "code": 0.2876543211, "books": 0.1, "forum": 0.0}
LENGTHS = {"web": 400.0, "code": 1500.0, "books": 90000.0, "forum": 100.0}
PATHS = {"web": ("data/web.bin",), "code": ("data/code",)}
EPOCHS = {"web": 0.2, "code": 1.1, "books": 4.0}


def blend(**changes: object) -> Blend:
    return Blend(**{"shares": SHARES, "n_params": 7e9, "n_tokens": 2e12, "epochs": EPOCHS, "paths": PATHS,
                    "tokens_per_row": LENGTHS} | changes)  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_written_reads_back_as_the_mixture(target: str) -> None:
    files = export(blend(), target)
    shares = TARGETS[target].read(files, blend())
    assert sum(shares.values()) == pytest.approx(1, abs=1e-9)
    assert shares == pytest.approx({name: share for name, share in SHARES.items() if share}, abs=1e-4)


@pytest.mark.parametrize("target", TARGETS)
def test_the_summary_says_unit_epochs_and_what_was_dropped(target: str) -> None:
    about = json.loads(export(blend(), target)["mixture.json"])
    assert about["unit"] and about["beware"] and about["dropped"] == ["forum"]
    assert about["epochs_at_scale"] == EPOCHS | {"forum": None}
    assert about["shares_of_tokens"] == SHARES


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40).filter(lambda x: sum(x) > 0.1))
def test_rounded_shares_sum_to_one_and_move_less_than_a_millionth(values: list[float]) -> None:
    shares = {str(i): value for i, value in enumerate(values)}
    found = rounded(shares)
    assert round(sum(found.values()) * 10**6) == 10**6
    for name, share in shares.items():
        assert abs(found.get(name, 0) - share / sum(values)) <= 1.0000001e-6


def test_interleaving_real_rows_gives_the_shares_of_tokens() -> None:
    datasets = pytest.importorskip("datasets")
    lengths = {"a": 1, "b": 4, "c": 20}
    shares = {"a": 0.3, "b": 0.5, "c": 0.2}
    given = Blend(shares, 1e9, 1e12, tokens_per_row=lengths, epochs=dict.fromkeys(shares, 0.5))
    arguments = json.loads(export(given, "hf-datasets")["interleave.json"])
    rows = {name: datasets.Dataset.from_dict({"n": [length] * 20000}) for name, length in lengths.items()}
    arguments["datasets"] = [rows[name] for name in arguments["datasets"]]
    drawn = np.array(datasets.interleave_datasets(**arguments)["n"])
    for name, length in lengths.items():
        # binomial draws of over 20,000 rows: three standard errors of the largest share are about .01
        assert drawn[drawn == length].sum() / drawn.sum() == pytest.approx(shares[name], abs=0.02)


@pytest.mark.parametrize("target", ["hf-datasets", "torchtitan", "mosaic", "ray-data", "llama-factory", "energon"])
def test_a_trainer_of_rows_needs_their_length_or_packing(target: str) -> None:
    with pytest.raises(ExportError, match=r"'code' are not known.*--tokens-per-row"):
        export(blend(tokens_per_row={"web": 400.0}), target)
    packed = blend(tokens_per_row={}, packed=True)
    assert TARGETS[target].read(export(packed, target), packed)["web"] == pytest.approx(SHARES["web"], abs=1e-6)


@pytest.mark.parametrize(
    ("target", "changes", "reason"),
    [
        ("megatron", {"paths": {"web": ("my data/web",)}}, "has a space"),
        ("megatron", {"paths": {"web": ("a", "b")}}, "one path per domain, 2 are given"),
        ("automodel", {"shares": {"weighted": 0.5, "b": 0.5}, "paths": {}}, "'weighted'"),
        ("llama-factory", {"paths": {"web": ("a,b",)}}, "commas"),
        ("axolotl", {"epochs": {}}, "available tokens of 'web'"),
        ("megatron", {"paths": {"web": ("same",), "code": ("same",)}}, "cannot express"),
        ("gpt-neox", {}, "no such target"),
    ],
)
def test_what_a_target_cannot_say_is_refused(target: str, changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        export(blend(**changes), target)


def test_domains_are_checked_and_files_never_replaced(tmp_path: Path) -> None:
    recommendation = {
        "mixture": SHARES,
        "scale": {"n_params": 7e9, "n_tokens": 2e12},
        "epochs": EPOCHS | {"forum": None},
    }
    assert blend_of(recommendation).epochs == EPOCHS
    with pytest.raises(ExportError, match="'wbe' is not a domain"):
        blend_of(recommendation, paths={"wbe": ("x",)})
    with pytest.raises(ExportError, match="not a recommendation"):
        blend_of({"mixture": {}})
    write_files(tmp_path, export(blend_of(recommendation), "megatron"))
    with pytest.raises(ExportError, match="is there already"):
        write_files(tmp_path, export(blend_of(recommendation), "megatron"))
