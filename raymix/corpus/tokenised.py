"""Text that is tokenised already: Megatron's .bin and .idx, .npy arrays, raw arrays of ids.

A Megatron index (little endian): the nine bytes MMIDIDX 0 0, version 1 (u64), a code for the type of ids (u8), the
number of sequences S and of document bounds (u64 each), then S lengths (i32), S byte offsets (i64) and the bounds
(i64): documents are the sequences from one bound to the next. As written by megatron/core/datasets/indexed_dataset.py.

Arrays hold the documents one after the other. Where each begins stands in a .npy file beside them, or follows from
the end-of-text token. An end-of-text token at the end of a document is taken off here and put back when it is written.
"""

import glob
import struct
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raymix.corpus.files import CHUNKS, LARGEST, SMALLEST, Chunk
from raymix.corpus.places import File
from raymix.space import Source, SpaceError
from raymix.space_parts import several

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}  # DType of Megatron

Ids = NDArray[Any]
Ints = NDArray[np.int64]


class Index(NamedTuple):
    """What a Megatron index says: per sequence its length and byte offset, per document its first sequence."""

    dtype: np.dtype[Any]
    lengths: NDArray[np.int32]
    offsets: Ints
    bounds: Ints


def matching(source: Source, folder: Path) -> list[File]:
    """The token files of the names and globs, sorted, each once; a Megatron pair is named by its .idx.

    Raises:
        SpaceError: one of them matches nothing.
    """
    found: dict[str, File] = {}
    for pattern in several(source.tokens):
        if "://" in pattern:
            raise SpaceError(f"tokens {pattern!r}: token files are memory-mapped; copy them to a local or shared disk")
        full = str(folder / pattern)
        paths = {_index_beside(Path(match)) for name in (full, full + ".idx") for match in [*glob.glob(name), name]}
        files = {path for path in paths if path.is_file() and not _is_starts(path, source)}
        if not files:
            raise SpaceError(f"tokens {pattern!r}: no file matches (looked for {full} and {full}.idx)")
        found |= {str(path): _file(path, source) for path in files}
    return sorted(found.values())


def forget() -> None:
    """Drop what is remembered of files: they may have changed since this process last read them."""
    for remembered in (read_index, _starts_of, _mapped):
        remembered.cache_clear()


def plan(source: Source, files: list[File], end_of_text: int) -> Iterator[Chunk]:
    """The chunks of token files, in order: ranges of documents, or of tokens where no index says where they are."""
    goal = min(max(sum(file.size for file in files) // CHUNKS, SMALLEST), LARGEST)
    for file in files:
        documents = _starts(source, file.path, end_of_text)
        edges = np.arange(goal, file.size, goal) / max(file.size, 1)
        cuts = [0, *(np.unique((edges * len(documents)).astype(np.int64))), len(documents)]
        for start, stop in pairwise(cuts):
            if stop > start:
                share = file.size * (stop - start) // len(documents)
                yield Chunk("tokens", (file.path,), int(start), int(stop), int(share))


def read(source: Source, chunk: Chunk, vocab: int, end_of_text: int) -> Iterator[Ids]:
    """The ids of each document of a chunk, without end of text; empty documents are left out.

    Raises:
        SpaceError: an id lies outside the vocabulary, so another tokenizer made it.
    """
    path = chunk.paths[0]
    assert chunk.stop is not None
    for place in range(chunk.start, chunk.stop):
        ids = _document(source, path, place, end_of_text)
        if len(ids) and ids[-1] == end_of_text:
            ids = ids[:-1]
        if not len(ids):
            continue
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocab:
            raise SpaceError(
                f"{path}: document {place} has the id {high if low >= 0 else low}, the vocabulary of "
                f"{source.tokenizer!r} ends at {vocab - 1}: another tokenizer made it, or dtype is wrong"
            )
        yield ids


@lru_cache(maxsize=8)
def read_index(path: str) -> Index:
    """A Megatron index, checked against its own size and that of its .bin.

    Raises:
        SpaceError: it is not one, or is damaged.
    """
    size = Path(path).stat().st_size
    with open(path, "rb") as stream:
        head = stream.read(HEADER.size)
    if len(head) < HEADER.size or not head.startswith(MAGIC):
        raise SpaceError(f"{path}: not a Megatron index (it does not begin with MMIDIDX)")
    _, version, code, sequences, n_bounds = HEADER.unpack(head)
    if version != 1 or code not in TYPES or code in (6, 7):
        raise SpaceError(f"{path}: a Megatron index of version {version} with type code {code}; version 1 of integers "
                         "is read")  # fmt: skip
    if size < HEADER.size + 12 * sequences + 8 * n_bounds:
        raise SpaceError(f"{path}: {sequences} sequences and {n_bounds} bounds are announced, the file ends before")
    lengths = np.memmap(path, "<i4", "r", HEADER.size, sequences) if sequences else np.empty(0, "<i4")
    offsets = np.frombuffer(_bytes(path, HEADER.size + 4 * sequences, 8 * sequences), "<i8")
    bounds = np.frombuffer(_bytes(path, HEADER.size + 12 * sequences, 8 * n_bounds), "<i8")
    index = Index(np.dtype(TYPES[code]), lengths, offsets, bounds)
    _check(path, index)
    return index


def _bytes(path: str, start: int, length: int) -> bytes:
    with open(path, "rb") as stream:
        stream.seek(start)
        return stream.read(length)


def _check(path: str, index: Index) -> None:
    ordered = bool((np.diff(index.bounds) >= 0).all()) and bool((index.lengths >= 0).all())
    if not len(index.bounds) or not ordered or index.bounds[0] != 0 or index.bounds[-1] != len(index.lengths):
        raise SpaceError(f"{path}: its document bounds are not ordered from 0 to {len(index.lengths)}: it is damaged")
    body = Path(path).with_suffix(".bin")
    if not body.is_file():
        raise SpaceError(f"{path}: {body.name} is missing beside it")
    needed = int((index.offsets + index.lengths.astype(np.int64) * index.dtype.itemsize).max(initial=0))
    if body.stat().st_size < needed or index.offsets.min(initial=0) < 0:
        raise SpaceError(f"{body}: {needed} bytes expected by {Path(path).name}, {body.stat().st_size} found")


def _document(source: Source, path: str, place: int, end_of_text: int) -> Ids:
    if path.endswith(".idx"):
        index, body = read_index(path), _array(source, str(Path(path).with_suffix(".bin")))
        sequences = range(int(index.bounds[place]), int(index.bounds[place + 1]))
        size = index.dtype.itemsize
        parts = [body[index.offsets[i] : index.offsets[i] + index.lengths[i] * size] for i in sequences]
        joined = np.concatenate([*parts, np.empty(0, np.uint8)]) if len(parts) != 1 else np.asarray(parts[0])
        return np.frombuffer(joined.tobytes(), index.dtype)
    ids, starts = _array(source, path), _starts(source, path, end_of_text)
    stop = starts[place + 1] if place + 1 < len(starts) else len(ids)
    return np.asarray(ids[starts[place] : stop])


@lru_cache(maxsize=8)
def _starts_of(path: str, beside: str | None, dtype: str | None, end_of_text: int) -> Ints:
    ids = _mapped(path, dtype)
    if beside is not None:
        starts = np.load(beside, allow_pickle=False)
        ordered = starts.ndim == 1 and len(starts) and starts[0] == 0 and (np.diff(starts) >= 0).all()
        if not ordered or starts[-1] > len(ids):
            raise SpaceError(f"{beside}: not the places of documents in {path} (from 0, ordered, at most {len(ids)})")
        return np.asarray(starts, dtype=np.int64)
    ends = np.flatnonzero(np.asarray(ids) == end_of_text) + 1
    if not len(ends):
        raise SpaceError(
            f"{path}: there is no end-of-text token ({end_of_text}) in it, so where do documents end? Name the files "
            "that say so: document_starts: .starts.npy"
        )
    starts = np.concatenate([[0], ends])
    return starts[:-1] if starts[-1] == len(ids) else starts


def _starts(source: Source, path: str, end_of_text: int) -> Ints:
    """Where the documents begin; of an index, their numbers."""
    if path.endswith(".idx"):
        return np.arange(len(read_index(path).bounds) - 1)
    beside = None
    if source.document_starts is not None:
        file = _starts_beside(Path(path), source)
        if not file.is_file():
            raise SpaceError(f"{path}: {file.name} is missing beside it (document_starts)")
        beside = str(file)
    return _starts_of(path, beside, source.dtype, end_of_text)


def _array(source: Source, path: str) -> Ids:
    return _mapped(path, "uint8" if path.endswith(".bin") and _index_beside(Path(path)) != Path(path) else source.dtype)


@lru_cache(maxsize=8)
def _mapped(path: str, dtype: str | None) -> Ids:
    if path.endswith(".npy"):
        try:
            ids: Ids = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise SpaceError(f"{path}: not a NumPy array ({error})") from None
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise SpaceError(f"{path}: an array of {ids.dtype} of shape {ids.shape}; ids are one row of integers")
        return ids
    if dtype is None:
        raise SpaceError(f"{path}: its type of ids is not known (no .idx, no .npy): give dtype: uint16 or uint32")
    size, width = Path(path).stat().st_size, np.dtype(dtype).itemsize
    if size % width or not size:
        raise SpaceError(f"{path}: {size} bytes are no whole number of {dtype} ids: dtype is wrong, or it is cut short")
    return np.memmap(path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r")


def _index_beside(path: Path) -> Path:
    index = path.with_suffix(".idx")
    return index if path.suffix == ".bin" and index.is_file() else path


def _starts_beside(path: Path, source: Source) -> Path:
    return Path(f"{path.with_suffix('')}{source.document_starts}")


def _is_starts(path: Path, source: Source) -> bool:
    return source.document_starts is not None and path.name.endswith(source.document_starts)


def _file(path: Path, source: Source) -> File:
    """With the times of all that is read with it: index, ids, places of documents."""
    body = path.with_suffix(".bin") if path.suffix == ".idx" else path
    about = (body if body.is_file() else path).stat()
    beside = dict.fromkeys([path, body, *([_starts_beside(path, source)] if source.document_starts else [])])
    return File(str(path), about.st_size, "-".join(str(file.stat().st_mtime_ns) for file in beside if file.is_file()))
