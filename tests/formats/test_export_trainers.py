"""Exports as their trainers take them: the rule each trainer applies, and the mixture that comes out of it."""

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import yaml

from raymix.formats.export import Blend, ExportError, export

SHARES = {"web": 0.61, "code": 0.29, "books": 0.1, "forum": 0.0}


def blend(shares: dict[str, float] = SHARES, **changes: object) -> Blend:
    return Blend(**{"shares": shares, "n_params": 7e9, "n_tokens": 2e12, "packed": True} | changes)


def normalised(weights: list[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


def test_automodel_trains_on_the_mixture_that_it_draws() -> None:
    """It multiplies the loss of a token by objective weight over sampling weight, both normalised."""
    config = yaml.safe_load(export(blend(), "automodel")["automodel.yaml"])
    domains = config["domain_mixture"]["domains"]
    drawn, counted = (normalised([d[f"{kind}_weight"] for d in domains]) for kind in ("sampling", "objective"))
    assert counted == pytest.approx(drawn)


def test_automodel_gets_the_blend_that_its_domains_have_to_match() -> None:
    config = yaml.safe_load(export(blend(paths={"web": ("data/web.bin",)}), "automodel")["automodel.yaml"])
    domains, paths = config["domain_mixture"]["domains"], config["dataset"]["paths"]
    assert paths[1::2] == [domain["path"] for domain in domains] == ["data/web", "code", "books"]
    assert [float(weight) for weight in paths[::2]] == [domain["sampling_weight"] for domain in domains]
    with pytest.raises(ExportError, match="two domains or more"):
        export(blend({"web": 1.0, "code": 0.0}), "automodel")


def test_megatron_reads_spaces_but_for_its_argument_files() -> None:
    spaced = blend(paths={"web": ("my data/web.bin",)})
    assert json.loads(export(spaced, "megatron-split")["blend.json"])["train"][1] == "my data/web"
    assert "my data/web" in export(spaced, "megatron-core")["blend.py"]
    assert "my data/web" in export(spaced, "automodel")["automodel.yaml"]
    with pytest.raises(ExportError, match=r"'my data/web' has a space.*--paths, or export to megatron-split"):
        export(spaced, "megatron")


def test_levanter_draws_many_small_domains_as_recommended() -> None:
    """It rounds the sequences of a domain in a block down, and gives the rest to the largest."""
    rng = np.random.default_rng(0)
    shares = dict(zip((f"d{k}" for k in range(100)), rng.dirichlet(np.full(100, 0.3)).tolist(), strict=True))
    data = yaml.safe_load(export(blend(shares), "levanter")["levanter.yaml"])["data"]
    block = data["mixture_block_size"]
    assert block < 2**16  # more is refused
    drawn = {name: int(weight * block) for name, weight in data["train_weights"].items()}
    largest = max(drawn, key=lambda name: drawn[name])
    drawn[largest] += block - sum(drawn.values())
    # each domain loses less than a sequence to the largest: 100 of a block of 32,768 are .3%; 2048 would be 5%
    assert sum(abs(drawn[name] / block - share) for name, share in shares.items()) / 2 < 100 / 2**15


def test_levanter_is_told_of_domains_of_share_zero() -> None:
    """Versions before data.components refuse weights that name other datasets than data.configs does."""
    data = yaml.safe_load(export(blend(), "levanter")["levanter.yaml"])["data"]
    assert data["train_weights"] == SHARES


def test_tinyllama_reads_of_no_domain_the_files_of_another() -> None:
    """It reads all files whose names begin with a prefix, also those of a domain that got nothing."""
    for shares in ({"wiki": 0.5, "wiki_de": 0.5}, {"wiki": 0.5, "web": 0.5, "wiki_de": 0.0}):
        with pytest.raises(ExportError, match="begin with 'wiki', those of 'wiki_de' too"):
            export(blend(shares), "tinyllama")
    assert export(blend({"wiki_de": 0.5, "web": 0.5, "wiki": 0.0}), "tinyllama")
    with pytest.raises(ExportError, match="a pattern"):
        export(blend({"a[1]": 0.5, "b": 0.5}), "tinyllama")
    unread = blend({"web": 1.0, "a[1]": 0.0, "b": 0.0}, paths={"b": ("b1", "b2")})
    assert export(unread, "tinyllama")["mixture.yaml"].count("web") == 1  # a domain that got nothing is not named


def test_ray_data_does_not_go_on_in_another_mixture() -> None:
    """Its default leaves a dataset out once it has ended."""
    arguments = json.loads(export(blend(), "ray-data")["mix.json"])
    assert arguments["stopping_condition"] == "stop_on_shortest"


def test_the_torchtitan_file_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torchtitan.components.data")
    module.WeightedDataset = module.DatasetMixConfig = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchtitan.components.data", module)
    scope: dict[str, object] = {}
    text = export(blend({"we'b": 0.61, '"""': 0.39}), "torchtitan")["dataset_mix.py"]
    exec(compile(text, "dataset_mix.py", "exec"), scope)
    mixed = scope["mix"]({"we'b": "one", '"""': "other"})  # type: ignore[operator]
    assert [(part.dataset, part.weight) for part in mixed.datasets] == [("one", 0.61), ("other", 0.39)]


def test_llama_factory_names_no_dataset_that_it_would_strip() -> None:
    with pytest.raises(ExportError, match="strips them"):
        export(blend(paths={"web": (" web",)}), "llama-factory")
