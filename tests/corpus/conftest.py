"""A small space over local files, and text to fill it with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymix.space import SearchSpace

WORDS = ["mix", "share", "domain", "token", "law", "proxy", "scale", "target", "loss", "trial", "batch", "seed"]


def texts(n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{seed}-{i} " + " ".join(rng.choice(WORDS, 40)) for i in range(n)]


def write_jsonl(path: Path, records: list[str], field: str = "text") -> Path:
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in records), encoding="utf-8")
    return path


@pytest.fixture(name="texts")
def texts_fixture() -> Callable[[int, int], list[str]]:
    """n different texts of a seed."""
    return texts


@pytest.fixture(name="write_jsonl")
def write_jsonl_fixture() -> Callable[[Path, list[str]], Path]:
    """Write texts as records."""
    return write_jsonl


@pytest.fixture
def make_space(tmp_path: Path) -> Callable[..., SearchSpace]:
    """A space with domains a and b of 60 documents each; keywords replace top-level keys."""

    def make(**changes: Any) -> SearchSpace:
        for seed, name in enumerate("ab"):
            if not (tmp_path / f"{name}.jsonl").exists():
                write_jsonl(tmp_path / f"{name}.jsonl", texts(60, seed))
        raw: dict[str, Any] = {
            "name": "small",
            "domains": [{"name": n, "source": {"files": f"{n}.jsonl"}} for n in "ab"],
            "eval_domains": [{"name": n, "own": n} for n in "ab"],
            "ladder": [{"n_params": 2e4, "n_tokens": 2048}],
            "target": {"n_params": 1e5, "n_tokens": 8192},
            "recipe": {"context": 16, "batch": 4, "eval_tokens": 128},
            "tokenizer": {"train": {"vocab": 320}},
        }
        return SearchSpace.parse(raw | changes, folder=tmp_path)

    return make
