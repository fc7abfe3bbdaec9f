"""The proxy model: GPT-2 or Llama of transformers, from scratch, and the precision and attention it runs in.

The body is theirs as it is; the head and its loss are ours (raymix/proxy/head.py), because they are most of the
work of a small model.
"""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from raymix.proxy.recipe import ProxyShape

log = logging.getLogger(__name__)

ATTENTIONS = ("eager", "sdpa")
DECISIVE = 1.2  # eager is taken only where it is this much faster: a near tie must not flip between two runs


def build(shape: ProxyShape, seed: int, attention: str = "sdpa") -> nn.Module:
    """A freshly initialised causal model on the CPU; equal seeds give equal weights, global state is untouched."""
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = _gpt2(shape) if shape.family == "gpt2" else _llama(shape)
        config._attn_implementation = attention
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert isinstance(model, nn.Module)
    return model.train()  # there is no dropout: the mode changes nothing but warnings


def _gpt2(shape: ProxyShape) -> Any:
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=shape.vocab,
        n_positions=shape.context,
        n_embd=shape.width,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        n_inner=shape.mlp_width,
        activation_function="gelu",  # exact, as nanoGPT: within 5e-4 of the tanh form and 3 x as fast on a CPU
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )


def _llama(shape: ProxyShape) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocab,
        max_position_embeddings=shape.context,
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        use_cache=False,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )


def hidden_states(model: Any, tokens: Tensor) -> Tensor:
    """Last hidden states (batch, context, width), before the head."""
    found: Tensor = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    return found


def head_weight(model: Any) -> Tensor:
    """The head's matrix (vocab, width), which is also the embedding."""
    weight: Tensor = model.get_output_embeddings().weight
    return weight


def count(model: Any) -> int:
    """Parameters without token and position embeddings."""
    embeddings = {id(model.get_output_embeddings().weight), id(model.get_input_embeddings().weight)}
    named = model.named_parameters()
    return sum(p.numel() for name, p in named if id(p) not in embeddings and not name.endswith("wpe.weight"))


def pick_device(device: str | None = None) -> torch.device:
    """The device asked for, else a GPU where there is one."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware computes in it, else float32 (emulated it is a hundred times slower)."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    has_bf16 = any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return torch.bfloat16 if device.type == "cpu" and has_bf16 else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """The body's precision: weights stay in float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def fastest_attention(shape: ProxyShape, device: torch.device, dtype: torch.dtype) -> str:
    """ "eager" or "sdpa", whichever is faster here; measured once per process.

    Which one wins depends on context, width and machine (1.3 to 3.8 x either way); results differ by rounding.
    """
    key = (shape.family, shape.n_heads, shape.width // shape.n_heads, shape.context, shape.batch)
    return _fastest_attention(*key, device, dtype, torch.get_num_threads())


@cache
def _fastest_attention(
    family: str, heads: int, head: int, context: int, batch: int, device: torch.device, dtype: torch.dtype, threads: int
) -> str:
    width = heads * head
    shape = ProxyShape(family, 256, 1, width, heads, width, context, batch, 1, 1e-3, 1, (1,))
    models = {name: build(shape, 0, name).to(device) for name in ATTENTIONS}
    tokens = torch.zeros((batch, context), dtype=torch.long, device=device)
    seconds = dict.fromkeys(ATTENTIONS, float("inf"))
    for _ in range(6):
        for name, model in models.items():
            started = time.perf_counter()
            with autocast(device, dtype):
                torch.autograd.backward(hidden_states(model, tokens).float().sum())
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    log.info("attention at context %d: %s", context, {name: f"{1e3 * s:.2f} ms" for name, s in seconds.items()})
    return "eager" if seconds["eager"] * DECISIVE < seconds["sdpa"] else "sdpa"
