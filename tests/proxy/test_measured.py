"""A choice by timing is made once per machine."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from raymix.proxy import attention
from raymix.proxy import model as models
from raymix.proxy.loop import rows_that_fit
from raymix.proxy.measured import kept
from raymix.proxy.recipe import resolve
from raymix.space import Recipe

CPU = torch.device("cpu")


def test_the_first_answer_stays_and_a_cache_that_cannot_be_written_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYMIX_CACHE", str(tmp_path / "cache"))
    assert kept(["attention", 1], lambda: "eager", CPU) == "eager"
    assert kept(["attention", 1], lambda: "sdpa", CPU) == "eager"
    assert kept(["attention", 2], lambda: "sdpa", CPU) == "sdpa"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAYMIX_CACHE", str(tmp_path / "file"))
    assert kept(["attention", 1], lambda: "sdpa", CPU) == "sdpa"


def test_processes_agree_whatever_they_would_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMIX_CACHE", str(tmp_path))
    shape = resolve(Recipe(family="bert", context=32, batch=4), 1e4, 1e4, 300)
    found = []
    for name in ("eager", "sdpa"):
        monkeypatch.setattr(models, "_measured_attention", lambda *question, name=name: name)
        models._fastest_attention.cache_clear()  # as in another process
        found.append(models.fastest_attention(shape, CPU, torch.float32))
    models._fastest_attention.cache_clear()
    assert found == ["eager", "eager"]


def test_a_decoder_on_a_cpu_attends_alike_on_every_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMIX_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "_measured_attention", lambda *question: pytest.fail("measured"))
    for precision in (torch.float32, torch.bfloat16):
        shape = resolve(Recipe(context=1024, batch=4), 1e4, 1e4, 300)
        assert models.fastest_attention(shape, CPU, precision) == attention.NAME


def test_attention_that_does_not_fit_into_memory_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden_states = models.hidden_states

    def on_a_small_gpu(model: Any, tokens: torch.Tensor) -> torch.Tensor:
        if model.config._attn_implementation != "sdpa":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return hidden_states(model, tokens)

    monkeypatch.setattr(models, "hidden_states", on_a_small_gpu)
    assert models._measured_attention("gpt2", 1, 16, 16, 2, CPU, torch.float32, 1) == "sdpa"


def test_eager_attention_counts_its_pairs_of_places(monkeypatch: pytest.MonkeyPatch) -> None:
    gigabyte = SimpleNamespace(total_memory=1 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gigabyte)
    shape = resolve(Recipe(context=1024, batch=512), 1e7, 1e9, 300)
    linear, pairs = 34 * 1024 * shape.width, 5 * shape.n_heads * 1024**2
    gpu = torch.device("cuda", 0)
    assert rows_that_fit(shape, gpu, "sdpa", 1.0) == (1 << 29) // (linear * shape.n_layers)
    assert rows_that_fit(shape, gpu, "eager", 1.0) == (1 << 29) // ((linear + pairs) * shape.n_layers)
    assert rows_that_fit(shape, CPU, "eager", 1.0) == 512
    assert rows_that_fit(shape, gpu, "sdpa", 0.25) == (1 << 27) // (linear * shape.n_layers)  # others have the rest
