"""A corpus of random text, small enough to train on in a second; and a Ray to train on."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from raymix.corpus import Corpus, shards
from raymix.proxy import WORKER_ENV
from raymix.space import SearchSpace

VOCAB = 300


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Domains a and b of 5000 tokens, each with its own habits, and held-out text of both."""
    definition = "{}"

    def written(kind: str, name: str, n: int) -> dict[str, Any]:
        rng = np.random.default_rng(list(f"{kind}{name}".encode()))
        tokens = (rng.zipf(1.5, n) % 100 + (100 if name == "b" else 0)).astype(np.uint16)
        entry = shards.write_tokens(folder / shards.file_name(kind, name), iter([tokens]), n, np.uint16)
        return {**entry, "name": name, "documents": 1, "text_bytes": 3 * n}

    with shards.new_folder(tmp_path / "corpus") as folder:
        manifest: dict[str, Any] = {
            "train": {name: written("train", name, 5000) for name in "ab"},
            "eval": {name: written("eval", name, 700) for name in "ab"},
            "tokenizer": {"hash": "", "vocab": VOCAB, "end_of_text": 0},
        }
        shards.write_manifest(folder, manifest, definition)
    return shards.open_corpus(tmp_path / "corpus")


@pytest.fixture
def make_space() -> Callable[..., SearchSpace]:
    """A space with domains a and b; keywords replace keys of the recipe."""

    def make(**recipe: Any) -> SearchSpace:
        return SearchSpace.parse(
            {
                "name": "small",
                "domains": [{"name": n, "source": {"files": "unused"}} for n in "ab"],
                "eval_domains": [{"name": n, "own": n} for n in "ab"],
                "ladder": [{"n_params": 2e4, "n_tokens": 2048}],
                "target": {"n_params": 1e5, "n_tokens": 8192, "max_epochs": None},
                "recipe": {"context": 32, "batch": 4, "eval_tokens": 128, **recipe},
            }
        )

    return make


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of our own with one core, whose workers find the tests."""
    folder = tempfile.mkdtemp(prefix="r", dir=os.path.realpath(os.environ.get("TMPDIR", "/tmp")))  # short, for sockets
    env = {"env_vars": {**WORKER_ENV, "PYTHONPATH": str(Path(__file__).parents[2])}}
    ray.init(address="local", num_cpus=1, include_dashboard=False, _temp_dir=folder, runtime_env=env)
    yield
    ray.shutdown()
