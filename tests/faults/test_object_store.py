"""Row 8 of the faults: token shards larger than Ray's object store reach a node all the same."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from raymix.corpus import Corpus, shards
from raymix.on_ray import shards as shards_on_nodes

MEMORY = 80 * 2**20  # bytes: a little above the least that Ray takes
TOKENS = 100 * 2**20  # 200 MiB in uint16


@pytest.fixture
def large(tmp_path: Path) -> Corpus:
    """Two and a half times the object store."""
    rng = np.random.default_rng(0)

    def written(kind: str, n_pieces: int) -> dict[str, Any]:
        piece, n = rng.integers(0, 300, 2**20).astype(np.uint16), n_pieces * 2**20
        entry = shards.write_tokens(folder / shards.file_name(kind, "a"), iter([piece] * n_pieces), n, np.uint16)
        return {**entry, "name": "a", "documents": 1, "text_bytes": 3 * n}

    with shards.new_folder(tmp_path / "corpus") as folder:
        manifest: dict[str, Any] = {
            "train": {"a": written("train", TOKENS // 2**20)},
            "eval": {"a": written("eval", 1)},
            "tokenizer": {"hash": "", "vocab": 300, "end_of_text": 0},
        }
        shards.write_manifest(folder, manifest, "{}")
    return shards.open_corpus(tmp_path / "corpus")


@pytest.mark.slow  # starts two nodes of Ray
def test_shards_larger_than_the_object_store_arrive(large: Corpus, tmp_path: Path) -> None:
    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": False}
    )
    try:
        nodes.add_node(num_cpus=1, object_store_memory=MEMORY)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")

        @ray.remote(num_cpus=1)
        def arrived(of: Any, cache: str) -> tuple[str, str]:
            os.environ["RAYMIX_NODE_CACHE"] = cache
            found = shards_on_nodes.on_this_node(of)
            return str(found.path), found.hash

        path, found = ray.get(arrived.remote(shards_on_nodes.share(large), str(tmp_path / "node")))
        assert path.startswith(str(tmp_path / "node"))
        assert found == large.hash
        assert shards.open_corpus(path).hash == large.hash
    finally:
        ray.shutdown()
        nodes.shutdown()
