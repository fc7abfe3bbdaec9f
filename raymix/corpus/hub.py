"""Hugging Face datasets: a name on the hub, a local dataset repository, or a folder of `save_to_disk`.

A streamed dataset is read shard by shard (of few Parquet files: row group by row group), no more of it than is needed;
one that is downloaded or saved, by ranges of rows. Columns that nothing asks for are not decoded: there may be images.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from raymix.corpus.files import CHUNKS, SMALLEST, Chunk, columns, limited, sort_key
from raymix.corpus.places import in_short
from raymix.corpus.records import Document, document
from raymix.space import Source, SpaceError

log = logging.getLogger(__name__)

FEW = 64  # files: to cut them at their row groups each process has to look into all of them first


def plan(source: Source, folder: Path) -> Iterator[Chunk]:
    """The chunks of a dataset, in order."""
    assert source.dataset is not None
    found = load(source, folder)
    if hasattr(found, "num_rows"):
        size = int(found.data.nbytes)
        rows = max(1, int(found.num_rows * max(SMALLEST, size // CHUNKS) / max(size, 1)))
        starts = list(range(0, found.num_rows, rows))
        for start in sorted(starts, key=lambda i: sort_key(str(i))) if limited(source) else starts:
            stop = min(start + rows, found.num_rows)
            yield Chunk("dataset", (source.dataset,), start, stop, size * (stop - start) // found.num_rows)
        return
    order = list(range(found.num_shards))
    for shard in sorted(order, key=lambda i: sort_key(str(i))) if limited(source) else order:
        # Of how many, so that a part that was made of another cut (by an earlier version, say) is not taken for this.
        yield Chunk("dataset", (source.dataset,), shard, found.num_shards)


def read(source: Source, chunk: Chunk, folder: Path) -> Iterator[Document]:
    """The documents of a chunk."""
    where = f"dataset {source.dataset!r}, split {source.split!r}"
    found = load(source, folder)
    with _explained(source):
        if hasattr(found, "num_rows"):
            rows = found.select(range(chunk.start, chunk.stop or found.num_rows))
        else:
            rows = found.shard(chunk.stop, chunk.start)
        if rows.column_names is not None:
            rows = rows.select_columns(columns(source, rows.column_names, where))
        for record in rows:
            if (one := document(record, source, where)) is not None:
                yield one


def load(source: Source, folder: Path) -> Any:
    """The `datasets.Dataset` or, streamed, `IterableDataset`; once per process."""
    with _explained(source):
        return _load(source.dataset, source.config, source.split, source.revision, source.streaming, folder)


def forget() -> None:
    """Drop what is loaded: a local dataset may have changed since this process last read it."""
    _load.cache_clear()


def local(source: Source, folder: Path) -> Path | None:
    """The folder of a dataset that is not on the hub."""
    assert source.dataset is not None
    path = folder / source.dataset
    return path if path.is_dir() else None


def commit(source: Source, folder: Path) -> str | None:
    """The commit of a hub dataset that its revision names today; None where nobody can say."""
    if source.dataset is None or local(source, folder) is not None:
        return None
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(source.dataset, revision=source.revision).sha
    except Exception as error:  # offline, gated, gone: what reads it will say so if it matters
        log.info("no commit known of dataset %s: %s", source.dataset, error)
        return None


@cache
def _load(name: str, config: str | None, split: str, revision: str | None, streaming: bool, folder: Path) -> Any:
    import datasets

    root = folder / name
    if (root / "state.json").is_file() or (root / "dataset_dict.json").is_file():
        saved = datasets.load_from_disk(str(root))
        if isinstance(saved, dict):
            return saved[split]
        if split not in ("train", str(saved.split)):
            raise SpaceError(f"dataset {name!r}: it was saved without splits, so there is no split {split!r} in it")
        return saved
    full = str(root) if root.is_dir() else name
    found = datasets.load_dataset(full, config, split=split, revision=revision, streaming=streaming)
    return found.reshard() if streaming and hasattr(found, "reshard") and found.num_shards < FEW else found


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    try:
        yield
    except SpaceError:
        raise
    except Exception as error:  # datasets and its file systems raise some twenty kinds
        raise SpaceError(
            f"dataset {source.dataset!r} (config {source.config!r}, split {source.split!r}) cannot be loaded: "
            f"{in_short(error)}. Check the names, and HF_TOKEN where it is gated; without network, give the folder of "
            "a local copy as `dataset`, or its files as `files`"
        ) from None
