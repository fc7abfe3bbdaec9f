"""Going on from a trained model: its own losses first, its weights exactly, nothing unsafe read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raymix.corpus import Corpus
from raymix.proxy import model as models
from raymix.proxy import resolve
from raymix.proxy.pretrained import load
from raymix.proxy.train import train_proxy
from raymix.space import SearchSpace, SpaceError

MakeSpace = Callable[..., SearchSpace]
HALF = np.asarray([0.5, 0.5])
CPU: dict[str, Any] = {"seed": 0, "device": "cpu", "threads": 1, "attention": "eager"}


def trained(corpus: Corpus, space: SearchSpace, folder: Path) -> list[dict[str, Any]]:
    return list(train_proxy(corpus, space, HALF, 2e4, 128 * 100, keep=folder, **CPU))


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_a_run_goes_on_from_a_kept_model(corpus: Corpus, make_space: MakeSpace, tmp_path: Path, family: str) -> None:
    before = trained(corpus, make_space(family=family), tmp_path / "base")[-1]
    space = make_space(init_from="base")
    space._folder = tmp_path  # where the file of the space lies
    rows = list(train_proxy(corpus, space, np.asarray([0.0, 1.0]), before["n_params"], 128 * 100, **CPU))
    assert [row["n_tokens"] for row in rows] == [0, 3200, 6400, 12800]
    assert rows[0]["loss/a"] == before["loss/a"]  # the weights evaluated, and nothing else
    assert rows[0]["loss/b"] == before["loss/b"]
    assert rows[0]["n_params"] == before["n_params"]
    assert rows[-1]["loss/b"] < rows[0]["loss/b"]
    assert rows[-1]["loss/a"] > rows[0]["loss/a"] - 0.01  # a is not trained on any more
    assert sorted(path.name for path in (tmp_path / "base").iterdir()) == ["config.json", "model.safetensors"] or (
        family != "bert"  # decoders keep a generation config too
    )


def test_a_model_that_does_not_fit_is_refused(corpus: Corpus, make_space: MakeSpace, tmp_path: Path) -> None:
    shape = resolve(make_space().recipe, 2e4, 2048, 200)
    models.build(shape, 0).save_pretrained(tmp_path / "base")
    path = str(tmp_path / "base")
    with pytest.raises(SpaceError, match="vocabulary of 200 is smaller than the text's 300"):
        resolve(make_space(init_from=path).recipe, 2e4, 2048, corpus.vocab)
    with pytest.raises(SpaceError, match=f"n_params 1e\\+06 is asked for, but .* has {shape.n_params} parameters"):
        resolve(make_space(init_from=path).recipe, 1e6, 2048, 200)
    with pytest.raises(SpaceError, match="has 32 positions"):
        resolve(make_space(init_from=path, context=64).recipe, shape.n_params, 2048, 200)
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "model_type": "bloom"}))
    with pytest.raises(SpaceError, match="'bloom' is not one of"):
        resolve(make_space(init_from=path).recipe, 2e4, 2048, 200)


def test_a_model_of_which_weights_are_missing_or_torn_is_not_completed_at_random(
    corpus: Corpus, make_space: MakeSpace, tmp_path: Path
) -> None:
    shape, path = resolve(make_space(family="llama").recipe, 2e4, 2048, corpus.vocab), tmp_path / "base"
    models.build(shape, 0).save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    with pytest.raises(SpaceError, match=r"1 of the weights .* are not there \(lm_head\.weight, \.\.\.\)"):
        load(str(path), "eager")
    weights = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(SpaceError, match="no weights in safetensors that can be read"):
        load(str(path), "eager")


def test_weights_that_are_a_pickle_are_not_read(corpus: Corpus, make_space: MakeSpace, tmp_path: Path) -> None:
    space = make_space()
    n_params = trained(corpus, space, tmp_path / "base")[-1]["n_params"]
    weights = models.build(resolve(space.recipe, 2e4, 2048, corpus.vocab), 0).state_dict()
    (tmp_path / "base" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "base" / "pytorch_model.bin")
    with pytest.raises(SpaceError, match="no weights in safetensors"):
        list(train_proxy(corpus, make_space(init_from=str(tmp_path / "base")), HALF, n_params, 2048, **CPU))


def test_a_model_that_cannot_be_had_is_said(make_space: MakeSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SpaceError, match=r"neither a folder with a config\.json nor a model the hub gives us"):
        resolve(make_space(init_from="nobody/nothing").recipe, 2e4, 2048, 300)
