"""Trainers that draw rows, samples or documents: a share of tokens is not the weight they want.

Rows differ in length between domains, so the weights are w_k / (mean tokens per row of k), normalised; for
packed sequences of one length the two agree.
"""

import ast
import json
from collections.abc import Callable, Mapping

import yaml

from raymix.formats.export.blend import Blend, ExportError, as_json, as_yaml

Files = dict[str, str]


def hf_datasets(blend: Blend) -> Files:
    """`datasets.interleave_datasets`: its keyword arguments, and the datasets in their order."""
    rows = blend.row_shares()
    arguments = {
        "datasets": [blend.path(name) for name in rows],
        "probabilities": list(rows.values()),
        "seed": blend.seed,
        "stopping_strategy": "all_exhausted"
        if any(blend.epochs.get(name, 1.0) > 1 for name in rows)
        else "first_exhausted",
    }
    return {"interleave.json": as_json(arguments)}


def ray_data(blend: Blend) -> Files:
    """`ray.data.Dataset.mix`: target ratios of rows, the first for the dataset itself.

    By default Ray goes on without a dataset that has ended, in another mixture; it is told to end with the first.
    """
    rows = blend.row_shares()
    arguments = {
        "datasets": [blend.path(name) for name in rows],
        "weights": list(rows.values()),
        "stopping_condition": "stop_on_shortest",
    }
    return {"mix.json": as_json(arguments)}


TORCHTITAN = """# weights are shares of samples
from torchtitan.components.data import DatasetMixConfig, WeightedDataset

WEIGHTS = {weights}


def mix(datasets):
    \"\"\"`datasets`: a dataset config of yours by each of the names above.\"\"\"
    parts = [WeightedDataset(dataset=datasets[name], weight=weight) for name, weight in WEIGHTS.items()]
    return DatasetMixConfig(datasets=tuple(parts))
"""


def torchtitan(blend: Blend) -> Files:
    """torchtitan `DatasetMixConfig`: weights per sample, before packing."""
    weights = {blend.path(name): share for name, share in blend.row_shares().items()}
    return {"dataset_mix.py": TORCHTITAN.format(weights=repr(weights))}


def read_torchtitan(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares of tokens by domain, from the file."""
    (weights,) = [node.value for node in ast.parse(files["dataset_mix.py"]).body if isinstance(node, ast.Assign)]
    return _tokens(ast.literal_eval(weights), blend)


def mosaic(blend: Blend) -> Files:
    """Mosaic Streaming and LLM Foundry: a proportion of samples per stream, one scheme for all."""
    streams = {
        name: {"local": blend.path(name), "split": "train", "proportion": share}
        for name, share in blend.row_shares().items()
    }
    return {"streams.yaml": as_yaml({"dataset": {"streams": streams}}, "proportion: share of samples")}


def read_mosaic(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares of tokens by domain, from the file."""
    streams = yaml.safe_load(files["streams.yaml"])["dataset"]["streams"]
    return blend.tokens_from_rows({name: stream["proportion"] for name, stream in streams.items()})


def energon(blend: Blend) -> Files:
    """Megatron Energon metadataset: a blend of samples by weight; relative paths start at the file."""
    items = [{"weight": share, "path": blend.path(name)} for name, share in blend.row_shares().items()]
    config = {"__module__": "megatron.energon", "__class__": "MetadatasetV2", "splits": {"train": {"blend": items}}}
    return {"metadataset.yaml": as_yaml(config, "weight: share of samples")}


def read_energon(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares of tokens by domain, from the file."""
    items = yaml.safe_load(files["metadataset.yaml"])["splits"]["train"]["blend"]
    return _tokens({item["path"]: item["weight"] for item in items}, blend)


def litdata(blend: Blend) -> Files:
    """LitData `CombinedStreamingDataset`: weights are taken only with `iterate_over_all=False`."""
    rows = blend.row_shares()
    arguments = {
        "datasets": [blend.path(name) for name in rows],
        "weights": list(rows.values()),
        "iterate_over_all": False,
        "seed": blend.seed,
    }
    return {"combined.json": as_json(arguments)}


def llama_factory(blend: Blend) -> Files:
    """LLaMA-Factory: comma-separated names and probabilities of rows."""
    rows = blend.row_shares()
    for name in rows:
        if "," in blend.path(name) or blend.path(name) != blend.path(name).strip():
            raise ExportError(f"{name}: LLaMA-Factory separates datasets by commas and strips them, so "
                              f"{blend.path(name)!r} cannot be one")  # fmt: skip
    config = {
        "dataset": ",".join(blend.path(name) for name in rows),
        "mix_strategy": "interleave_over",
        "interleave_probs": ",".join(f"{share:.6f}" for share in rows.values()),
    }
    return {"llama_factory.yaml": as_yaml(config, "shares of rows")}


def read_llama_factory(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares of tokens by domain, from the file."""
    config = yaml.safe_load(files["llama_factory.yaml"])
    shares = map(float, config["interleave_probs"].split(","))
    return _tokens(dict(zip(config["dataset"].split(","), shares, strict=True)), blend)


def axolotl(blend: Blend) -> Files:
    """axolotl: `weight` is the part of a dataset that is kept, in (0, 1]; proportional to the epochs at the target.

    One pass over what is kept then has the right shares; `num_epochs` passes give the tokens of the target.
    """
    missing = [name for name in blend.kept if name not in blend.epochs]
    if missing:
        raise ExportError(f"axolotl keeps a part of each dataset: the available tokens of {missing[0]!r} must be known")
    most = max(blend.epochs[name] for name in blend.kept)
    datasets = [
        {"path": blend.path(name), "type": "completion", "weight": blend.epochs[name] / most} for name in blend.kept
    ]
    return {"axolotl.yaml": as_yaml({"datasets": datasets, "num_epochs": most}, "weight: part of the dataset kept")}


def read_axolotl(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
    """Shares of tokens by domain: part kept x tokens available, normalised."""
    kept = {item["path"]: item["weight"] for item in yaml.safe_load(files["axolotl.yaml"])["datasets"]}
    tokens = {
        name: kept[blend.path(name)] * blend.shares[name] * blend.n_tokens / blend.epochs[name] for name in blend.kept
    }
    return {name: value / sum(tokens.values()) for name, value in tokens.items()}


def listed(file: str, weights: str) -> Callable[[Mapping[str, str], Blend], dict[str, float]]:
    """What reads shares of tokens by domain from a file of datasets and their weights, in one order."""

    def read(files: Mapping[str, str], blend: Blend) -> dict[str, float]:
        arguments = json.loads(files[file])
        return _tokens(dict(zip(arguments["datasets"], arguments[weights], strict=True)), blend)

    return read


def _tokens(rows_by_path: Mapping[str, float], blend: Blend) -> dict[str, float]:
    names = {blend.path(name): name for name in blend.kept}
    return blend.tokens_from_rows({names[path]: share for path, share in rows_by_path.items()})
