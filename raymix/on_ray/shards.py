"""Token shards reach a node once: from the driver through Ray's object store, into a folder on the node, hash-checked.

A node that already sees the driver's folder (one machine, a shared file system) uses that. Any other, early or late,
gets the files from its first trial on; the trials beside it wait for that one. A piece that one node has fetched is
fetched by the others from there too: Ray's object store spreads the load. RAYMIX_NODE_CACHE names a folder on a disk of
the node; it is also how to get shards off a slow shared file system.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raymix.corpus import Corpus, CorpusError, default_cache, open_corpus
from raymix.corpus.shards import MANIFEST, new_folder
from raymix.corpus.workers import cluster_address

log = logging.getLogger(__name__)

PIECE = 64 << 20  # bytes at a time: small enough for any object store, large enough to be worth the trip
AHEAD = 2  # pieces on their way while one is written


@dataclass(frozen=True)
class Shards:
    """Where a corpus is: the driver's folder, its hash, and who gives it to nodes that do not see the folder."""

    path: str
    hash: str
    server: Any


class ShardServer:
    """Gives out the files of one corpus, piece by piece; every piece is put into the object store once."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._sizes = {file.name: file.stat().st_size for file in self._path.iterdir() if file.is_file()}
        self._pieces: dict[tuple[str, int], Any] = {}

    def sizes(self) -> dict[str, int]:
        """Bytes by file name."""
        return self._sizes

    def piece(self, name: str, start: int) -> list[Any]:
        """A reference to the bytes of a file from `start` on, at most PIECE of them."""
        if name not in self._sizes:
            raise KeyError(name)
        key = name, start
        if key not in self._pieces:
            with (self._path / name).open("rb") as stream:
                stream.seek(start)
                self._pieces[key] = ray.put(stream.read(PIECE))
        return [self._pieces[key]]


def share(corpus: Corpus) -> Shards:
    """Make a corpus of this node known to all others; on one machine alone there are none."""
    if not cluster_address() and len(ray.nodes()) == 1:
        return Shards(str(corpus.path.resolve()), corpus.hash, None)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    path = str(corpus.path.resolve())
    server = ray.remote(ShardServer).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
    return Shards(path, corpus.hash, server.remote(path))


def on_this_node(shards: Shards) -> Corpus:
    """The corpus, opened from a folder that this node sees; fetched if there is none.

    Raises:
        CorpusError: what arrived is not what the manifest says.
    """
    asked = os.environ.get("RAYMIX_NODE_CACHE")
    if shards.server is None:
        return open_corpus(shards.path)
    if asked is None and _hash_at(Path(shards.path)) == shards.hash:
        return open_corpus(shards.path)
    folder = Path(asked or default_cache()) / "nodes" / shards.hash
    with _alone(folder):
        absent = _hash_at(folder) != shards.hash
        if absent:
            _fetch(shards, folder)
    corpus = open_corpus(folder, verify=not absent)  # what was just fetched has been verified on its way in
    if corpus.hash != shards.hash:
        raise CorpusError(f"{folder}: hash {shards.hash} expected, {corpus.hash} found; delete the folder")
    return corpus


def _hash_at(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / MANIFEST).read_text())["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fetch(shards: Shards, folder: Path) -> None:
    start = time.monotonic()
    sizes: dict[str, int] = ray.get(shards.server.sizes.remote())
    log.warning("fetching %.2f GB of token shards to %s", sum(sizes.values()) / 1e9, folder)
    with new_folder(folder) as temporary:
        for name, size in sizes.items():
            with (temporary / name).open("wb") as stream:
                for piece in _pieces(shards, name, size):
                    stream.write(piece)
                stream.flush()
                os.fsync(stream.fileno())
        open_corpus(temporary)  # every hash, before anybody can see it
    log.warning("token shards are here after %.1f s", time.monotonic() - start)


def _pieces(shards: Shards, name: str, size: int) -> Iterator[bytes]:
    starts = range(0, size, PIECE)
    asked = [shards.server.piece.remote(name, start) for start in starts[:AHEAD]]
    for position in range(len(starts)):
        if position + AHEAD < len(starts):
            asked.append(shards.server.piece.remote(name, starts[position + AHEAD]))
        (reference,) = ray.get(asked[position])
        yield ray.get(reference)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process of this node at a time; the others wait, and say so."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name[:16]}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("waiting for token shards: another trial on this node fetches them")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
