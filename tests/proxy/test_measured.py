"""A choice by timing is made once per machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raymix.proxy import model as models
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
    shape = resolve(Recipe(context=32, batch=4), 1e4, 1e4, 300)
    found = []
    for name in models.ATTENTIONS:
        monkeypatch.setattr(models, "_measured_attention", lambda *question, name=name: name)
        models._fastest_attention.cache_clear()  # as in another process
        found.append(models.fastest_attention(shape, CPU, torch.float32))
    models._fastest_attention.cache_clear()
    assert found == ["eager", "eager"]
