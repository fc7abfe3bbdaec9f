"""The proxy model: GPT-2, Llama or BERT of transformers, and the precision and attention it runs in.

The body is theirs as it is; the head and its loss are ours (raymix/proxy/head.py), because they are most of the
work of a small model.
"""

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raymix.proxy import attention, families
from raymix.proxy.measured import kept
from raymix.proxy.pretrained import load
from raymix.proxy.shape import ProxyShape
from raymix.proxy.task import Example

log = logging.getLogger(__name__)

ATTENTIONS = ("sdpa", "eager", attention.NAME)
BF16_PROBES = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # of torch.cpu
DECISIVE = 1.2  # eager is taken only where it is this much faster: a near tie must not flip between two runs


def build(shape: ProxyShape, seed: int, how: str = "sdpa") -> nn.Module:
    """A freshly initialised model on the CPU, or the one the shape starts from.

    Equal seeds give equal weights; global state is untouched.
    """
    if shape.init_from is not None:
        return load(shape.init_from, how)
    attention.register()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = families.CONFIGS[shape.family](shape)
        config._attn_implementation = how
        model = families.auto_class(shape.family).from_config(config)
    assert isinstance(model, nn.Module)
    return model.train()  # there is no dropout: the mode changes nothing but warnings


def on_device(task: Example, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor]:
    """Inputs, places and targets as tensors there; a GPU is not waited for."""

    def tensor(values: NDArray[np.int64]) -> Tensor:
        found = torch.from_numpy(np.ascontiguousarray(values))
        return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found

    return tensor(task.inputs), None if task.places is None else tensor(task.places), tensor(task.targets)


def hidden_states(model: Any, tokens: Tensor) -> Tensor:
    """Last hidden states (batch, context, width), before the head."""
    options = {} if _is_encoder(model) else {"use_cache": False}
    found: Tensor = model.base_model(input_ids=tokens, **options).last_hidden_state
    return found


def before_head(model: Any, tokens: Tensor, places: Tensor | None) -> Tensor:
    """What the head reads, (rows, width): all hidden states, or an encoder's at the `places` (batch, predicted)."""
    hidden = hidden_states(model, tokens).flatten(0, 1)
    if places is None:
        return hidden
    rows = places + torch.arange(len(places), device=places.device)[:, None] * tokens.shape[1]
    found: Tensor = model.cls.predictions.transform(hidden[rows.flatten()])
    return found


def head_weight(model: Any) -> Tensor:
    """The head's matrix (vocab, width), which is also the embedding."""
    weight: Tensor = model.get_output_embeddings().weight
    return weight


def head_bias(model: Any) -> nn.Parameter | None:
    """The head's bias (vocab,), which an encoder has."""
    bias: nn.Parameter | None = model.get_output_embeddings().bias
    return bias


def _is_encoder(model: Any) -> bool:
    return bool(model.config.model_type == "bert")


def pick_device(device: str | None = None) -> torch.device:
    """The device asked for, else a GPU where there is one."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def dtype_of(shape: ProxyShape, device: torch.device) -> torch.dtype:
    """The precision asked for; else bfloat16 where the hardware computes in it."""
    if shape.precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[shape.precision]
    return torch.bfloat16 if computes_in_bf16(device) else torch.float32


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the hardware does: emulated it is 100 times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and any(getattr(torch.cpu, probe, lambda: False)() for probe in BF16_PROBES)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """The body's precision: weights stay in float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def fastest_attention(shape: ProxyShape, device: torch.device, dtype: torch.dtype) -> str:
    """One of ATTENTIONS, the fastest here.

    A decoder on a CPU attends in blocks whatever the machine: 1.1 to 2 times as fast as the others in bfloat16, within
    a tenth of sdpa in float32, and a study that moves to another CPU is not trained otherwise there. Else eager or
    sdpa, measured once per machine: which one wins depends on context, width and machine (1.3 to 3.8 x either way).
    """
    if shape.init_from is not None:
        return "sdpa"  # measuring would load the checkpoint twice
    if device.type == "cpu" and shape.mask_token is None and shape.context <= attention.LONGEST:
        return attention.NAME
    key = (shape.family, shape.n_heads, shape.width // shape.n_heads, shape.context, shape.micro_batch or shape.batch)
    return _fastest_attention(*key, device, dtype, torch.get_num_threads())


@cache
def _fastest_attention(*question: Any) -> str:
    found = kept(["attention", *question], lambda: _measured_attention(*question), device=question[-3])
    return found if found in ATTENTIONS else _measured_attention(*question)


def _measured_attention(
    family: str, heads: int, head: int, context: int, batch: int, device: torch.device, dtype: torch.dtype, threads: int
) -> str:
    width = heads * head
    shape = ProxyShape(
        *(family, 256, 1, width, heads, width), context=context, batch=batch,
        n_steps=1, learning_rate=1e-3, warmup=1, checkpoint_steps=(1,),
    )  # fmt: skip
    models = {name: build(shape, 0, name).to(device) for name in ("sdpa", "eager")}
    tokens = torch.zeros((batch, context), dtype=torch.long, device=device)
    seconds = dict.fromkeys(models, float("inf"))
    clock = time.perf_counter if device.type == "cuda" else time.process_time  # whatever else keeps the cores busy
    for _ in range(6):
        for name in list(models):
            started = clock()
            try:
                _forward_and_back(models[name], tokens, device, dtype)
            except torch.OutOfMemoryError:  # eager keeps all pairs of places: sequences x heads x context^2
                models.pop(name)
                continue
            seconds[name] = min(seconds[name], clock() - started)
    log.info("attention at context %d: %s", context, {name: f"{1e3 * s:.2f} ms" for name, s in seconds.items()})
    return "eager" if seconds["eager"] * DECISIVE < seconds["sdpa"] else "sdpa"


def _forward_and_back(model: nn.Module, tokens: Tensor, device: torch.device, dtype: torch.dtype) -> None:
    with autocast(device, dtype):
        torch.autograd.backward(hidden_states(model, tokens).float().sum())
    if device.type == "cuda":
        torch.cuda.synchronize(device)
