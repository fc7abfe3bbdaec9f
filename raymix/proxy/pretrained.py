"""Models that somebody else trained, to go on from: `recipe.init_from`.

A folder, or a name on the hub, with a `config.json` and weights as safetensors. Other formats of weights are never
read, and no code that comes with a model is ever run.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from raymix.proxy import families
from raymix.proxy.shape import Architecture
from raymix.space import SpaceError

# Families whose logits are hidden states times a matrix (plus an encoder's bias) and nothing else.
FAMILIES = ("gpt2", "llama", "bert", "gpt_neox", "mistral", "qwen2", "qwen3", "olmo2")
DROPOUTS = (
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),
)


def architecture_of(init_from: str, folder: Path | None, vocab: int, context: int) -> Architecture:
    """What the model at `init_from` looks like; `folder` is where a relative path starts.

    Raises:
        SpaceError: it cannot be read, is of a family not known here, or does not fit the vocabulary or the context.
    """
    path = located(init_from, folder)
    config = _config(path)
    if config.model_type not in FAMILIES:
        raise SpaceError(f"recipe.init_from {init_from}: {config.model_type!r} is not one of {', '.join(FAMILIES)}")
    if config.vocab_size < vocab:
        raise SpaceError(
            f"recipe.init_from {init_from}: its vocabulary of {config.vocab_size} is smaller than the text's {vocab}: "
            "set tokenizer to the model's own"
        )
    positions = getattr(config, "max_position_embeddings", None) or context
    if positions < context:
        raise SpaceError(f"recipe.context is {context}, but recipe.init_from {init_from} has {positions} positions")
    width = config.hidden_size
    return Architecture(
        family=config.model_type,
        vocab=config.vocab_size,
        n_layers=config.num_hidden_layers,
        width=width,
        n_heads=config.num_attention_heads,
        mlp_width=getattr(config, "intermediate_size", None) or 4 * width,
        init_from=path,
        counted=_count(path),
        mask_token=_mask_token(path) if config.model_type == "bert" else None,
    )


def located(init_from: str, folder: Path | None) -> str:
    """The folder meant, as an absolute path, where there is one; else the name as it stands, for the hub."""
    path = (folder or Path.cwd()) / init_from
    return str(path.resolve()) if path.is_dir() else init_from


def load(path: str, attention: str) -> nn.Module:
    """The model in float32 on the CPU, without dropout.

    Raises:
        SpaceError: its weights cannot be read, or are not all that its config.json speaks of.
    """
    config = _config(path)
    for name in DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, 0.0)
    config._attn_implementation = attention
    try:
        model, found = families.auto_class(config.model_type).from_pretrained(
            path,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise SpaceError(f"recipe.init_from {path}: no weights in safetensors that can be read ({error})") from None
    if missing := sorted(found["missing_keys"]):  # else drawn at random, and said by nobody
        raise SpaceError(
            f"recipe.init_from {path}: {len(missing)} of the weights that its config.json speaks of are not there "
            f"({missing[0]}, ...): take a whole checkpoint, its head too"
        )
    assert isinstance(model, nn.Module)
    return model.train()


def _config(path: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise SpaceError(
            f"recipe.init_from {path}: neither a folder with a config.json nor a model the hub gives us ({error})"
        ) from None


@cache
def _count(path: str) -> int:
    with torch.device("meta"):  # shapes without memory
        config = _config(path)
        return families.count(families.auto_class(config.model_type).from_config(config))


def _mask_token(path: str) -> int:
    """The mask a model was trained with: a model of ours says it itself, others have it in their tokenizer."""
    from transformers import AutoTokenizer

    found = getattr(_config(path), "mask_token_id", None)
    try:
        if found is None:
            found = AutoTokenizer.from_pretrained(path, trust_remote_code=False).mask_token_id
    except (OSError, ValueError):
        found = None
    if found is None:
        raise SpaceError(f"recipe.init_from {path}: an encoder needs the mask of its tokenizer beside its weights")
    return int(found)
