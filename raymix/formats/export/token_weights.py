"""Trainers whose weights count tokens, or sequences of one fixed length, which is the same share."""

import ast
import glob
import json
import math
from collections.abc import Mapping

import yaml

from raymix.formats.export.blend import Blend, ExportError, as_json, as_yaml

Files = dict[str, str]
LEVANTER_BLOCK = 2**15  # sequences; Levanter takes less than 2^16


def megatron(blend: Blend) -> Files:
    """Megatron-LM `--data-path W PREFIX W PREFIX ...`, as an argument file, which is split at spaces."""
    words = _megatron_list(blend)
    if split := next((word for word in words if len(word.split()) != 1), None):
        raise ExportError(f"the path {split!r} has a space, which Megatron's argument files cannot hold: "
                          "rename it and name it with --paths, or export to megatron-split")  # fmt: skip
    return {"data_path.txt": " ".join(words) + "\n"}


def read_megatron(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares by domain, from the file."""
    return _pairs(files["data_path.txt"].split(), blend)


def megatron_split(blend: Blend) -> Files:
    """Megatron-LM `--per-split-data-args-path`: all three keys must be there; `null` leaves a split without data."""
    return {"blend.json": as_json({"train": _megatron_list(blend), "valid": None, "test": None})}


def read_megatron_split(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares by domain, from the file."""
    return _pairs(json.loads(files["blend.json"])["train"], blend)


def megatron_core(blend: Blend) -> Files:
    """Megatron-core, Bridge and NeMo: `blend=([paths], [weights])`, as a Python literal."""
    paths = [_prefix(blend, name) for name in blend.kept]
    return {"blend.py": f"# weights are shares of sequences\nblend = {(paths, list(blend.kept.values()))!r}\n"}


def read_megatron_core(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares by domain, from the file."""
    paths, weights = ast.literal_eval(files["blend.py"].split("blend = ", 1)[1])
    return _by_path(dict(zip(paths, weights, strict=True)), blend)


def automodel(blend: Blend) -> Files:
    """NeMo Automodel: the domains of a weighted blend, and the blend that they have to match.

    It multiplies the loss of a token by objective weight over sampling weight, both normalised: only where the two
    are equal does it train on the mixture that it draws.
    """
    if "weighted" in blend.kept:
        raise ExportError("NeMo Automodel reserves the name 'weighted': rename that domain")
    if len(blend.kept) < 2:
        raise ExportError(f"NeMo Automodel mixes two domains or more, and all is {next(iter(blend.kept))}: "
                          "name it in dataset.paths instead")  # fmt: skip
    domains = [
        {"name": name, "sampling_weight": share, "objective_weight": share, "path": _prefix(blend, name)}
        for name, share in blend.kept.items()
    ]
    config = {"domain_mixture": {"domains": domains}, "dataset": {"paths": _megatron_list(blend)}}
    return {"automodel.yaml": as_yaml(config, "sampling_weight: share of sequences")}


def read_automodel(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares by domain, from the file."""
    domains = yaml.safe_load(files["automodel.yaml"])["domain_mixture"]["domains"]
    return {domain["name"]: domain["sampling_weight"] for domain in domains}


def olmo_core(blend: Blend) -> Files:
    """OLMo-core `SourceMixtureDatasetConfig`: ratios of tokens, with the repetition each source needs.

    OLMo-core compares whole tokens: the repetition is that of the rounded ratio, and a little more.
    """
    sources = [
        {
            "source_name": name,
            "target_ratio": share,
            "paths": list(blend.paths_of(name)),
            "max_repetition_ratio": max(1.0, _a_little_more(blend.epochs.get(name, 1.0) * share / blend.shares[name])),
            "max_source_fraction": 1.0,
        }
        for name, share in blend.kept.items()
    ]
    config = {"source_list": {"sources": sources}, "requested_tokens": int(blend.n_tokens)}
    return {"source_mixture.json": as_json(config)}


def read_olmo_core(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares by domain, from the file."""
    sources = json.loads(files["source_mixture.json"])["source_list"]["sources"]
    return {source["source_name"]: source["target_ratio"] for source in sources}


def _a_little_more(epochs: float) -> float:
    """Rounded up to the next ten-thousandth."""
    return (math.floor(epochs * 10**4) + 1) / 10**4


def levanter(blend: Blend) -> Files:
    """Levanter and Marin: `train_weights` by the names of the data components, those of share zero too.

    Levanter rounds the sequences of a domain in a block down and gives the rest to the largest domain; in a block of
    its default length (2048) many small domains lose percents of the mixture to it.
    """
    weights = dict.fromkeys(blend.shares, 0.0) | blend.kept
    config = {"data": {"train_weights": weights, "mixture_block_size": LEVANTER_BLOCK}}
    return {"levanter.yaml": as_yaml(config, "train_weights: shares of sequences")}


def read_levanter(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares by domain, from the file."""
    weights = yaml.safe_load(files["levanter.yaml"])["data"]["train_weights"]
    return {name: weight for name, weight in weights.items() if weight}


def nanotron(blend: Blend) -> Files:
    """nanotron: one data stage of several dataset folders with weights."""
    dataset = {
        "dataset_folder": [blend.path(name) for name in blend.kept],
        "dataset_weights": list(blend.kept.values()),
    }
    stage = {"name": "raymix", "start_training_step": 1, "data": {"dataset": dataset, "seed": blend.seed}}
    return {"nanotron.yaml": as_yaml({"data_stages": [stage]}, "dataset_weights: shares of sequences")}


def read_nanotron(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares by domain, from the file."""
    dataset = yaml.safe_load(files["nanotron.yaml"])["data_stages"][0]["data"]["dataset"]
    return _by_path(dict(zip(dataset["dataset_folder"], dataset["dataset_weights"], strict=True)), blend)


def tinyllama(blend: Blend) -> Files:
    """TinyLlama and RegMix: prefixes of packed files with weights; `valid` is left to fill in.

    They read every file whose name begins with a prefix, so none may begin another.
    """
    every = [path for name in blend.shares for path in blend.paths_of(name)]
    for name in blend.kept:
        path = blend.path(name)
        longer = [other for other in every if other != path and other.startswith(path)]
        if longer:
            raise ExportError(f"{name}: TinyLlama reads all files that begin with {path!r}, those of {longer[0]!r} "
                              f"too: rename the files of {name} and name them with --paths")  # fmt: skip
        if glob.has_magic(path):
            raise ExportError(f"{name}: TinyLlama takes {path!r} for a pattern of file names: rename the files")
    train = {blend.path(name): share for name, share in blend.kept.items()}
    return {"mixture.yaml": as_yaml({"train": train, "valid": {}}, "shares of packed sequences")}


def read_tinyllama(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares by domain, from the file."""
    return _by_path(yaml.safe_load(files["mixture.yaml"])["train"], blend)


def doremi(blend: Blend) -> Files:
    """DoReMi: domain weights for training and evaluation."""
    weights = {"train_domain_weights": blend.kept, "eval_domain_weights": blend.kept}
    return {"weights.json": as_json(weights)}


def read_doremi(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares by domain, from the file."""
    return dict(json.loads(files["weights.json"])["train_domain_weights"])


def olmix(blend: Blend) -> Files:
    """Olmix: a list of domains with weights."""
    weights = [{"domain": name, "weight": share} for name, share in blend.kept.items()]
    return {"weights.json": as_json(weights)}


def read_olmix(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares by domain, from the file."""
    return {entry["domain"]: entry["weight"] for entry in json.loads(files["weights.json"])}


def _megatron_list(blend: Blend) -> list[str]:
    return [word for name, share in blend.kept.items() for word in (f"{share:.6f}", _prefix(blend, name))]


def _prefix(blend: Blend, name: str) -> str:
    """A Megatron prefix: without .bin or .idx."""
    return blend.path(name).removesuffix(".bin").removesuffix(".idx")


def _pairs(words: list[str], blend: Blend) -> dict[str, float]:
    return _by_path({path: float(weight) for weight, path in zip(words[::2], words[1::2], strict=True)}, blend)


def _by_path(weights: Mapping[str, float], blend: Blend) -> dict[str, float]:
    names = {path: name for name in blend.kept for path in (blend.path(name), _prefix(blend, name))}
    return {names[path]: weight for path, weight in weights.items()}
