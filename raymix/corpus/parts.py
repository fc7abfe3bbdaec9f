"""One chunk tokenised: the unit of work, of progress and of what a kill can cost.

A part is three files: ids (raw), the table of its documents (.npy), and last a receipt (.json) with what it was made
from, its counts and the hashes of the other two. A part without receipt, or with files that are not those of its
receipt, is made again.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from raymix.corpus import sources, split, tokenised
from raymix.corpus.files import Chunk
from raymix.corpus.records import Document
from raymix.corpus.shards import file_hash
from raymix.corpus.tokenizer import Encoder
from raymix.space import Source

log = logging.getLogger(__name__)

BATCH = 256  # documents tokenised at a time
BATCH_BYTES = 1_000_000


class Job(NamedTuple):
    """What a worker needs to make a part."""

    source: Source
    folder: Path
    chunk: Chunk
    stem: Path
    """Of the part's files, without ending."""
    tokenizer: Path
    end_of_text: int


class Part(NamedTuple):
    """A finished part."""

    stem: Path
    n_documents: int
    n_tokens: int
    n_bytes: int
    """UTF-8 bytes of text."""

    @property
    def ids(self) -> Path:
        """The file of ids."""
        return self.stem.with_suffix(".ids")

    def records(self) -> NDArray[Any]:
        """The table of documents: an array of `split.COLUMNS`."""
        found: NDArray[Any] = np.load(self.stem.with_suffix(".npy"), allow_pickle=False)
        return found


def make(job: Job) -> Part:
    """The part of a job: the finished one where there is one, else made."""
    made_from = json.loads(json.dumps([job.source.model_dump(mode="json"), job.chunk]))
    return finished(job.stem, made_from) or _make(job, made_from)


def finished(stem: Path, made_from: Any) -> Part | None:
    """The part at `stem`, if it is whole and was made from just this."""
    try:
        receipt = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        if receipt["made_from"] != made_from:
            return None
        for ending in (".ids", ".npy"):
            if file_hash(stem.with_suffix(ending)) != receipt["sha256"][ending]:
                log.warning("%s%s is damaged and is made again", stem, ending)
                return None
        return Part(stem, receipt["documents"], receipt["tokens"], receipt["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _make(job: Job, made_from: Any) -> Part:
    job.stem.parent.mkdir(parents=True, exist_ok=True)
    encoder = _encoder(job.tokenizer, job.end_of_text)
    unfinished = job.stem.with_name(f"{job.stem.name}.{uuid4().hex[:8]}")
    written = {ending: unfinished.with_name(f"{unfinished.name}{ending}.tmp") for ending in (".ids", ".npy", ".json")}
    try:
        part = _written(job, encoder, made_from, written)
        for ending, path in written.items():
            os.replace(path, job.stem.with_suffix(ending))
        return part
    finally:
        for path in written.values():
            path.unlink(missing_ok=True)  # of a disk that is full, say


def _written(job: Job, encoder: Encoder, made_from: Any, paths: dict[str, Path]) -> Part:
    """The files of a part, by their endings."""
    rows: list[tuple[int, int, int, int]] = []
    with paths[".ids"].open("wb") as stream:
        for row, tokens in _limited(_encoded(job, encoder), job.source):
            stream.write(tokens.tobytes())
            rows.append(row)
    records = np.asarray(rows, dtype=split.COLUMNS)
    with paths[".npy"].open("wb") as stream:
        np.save(stream, records)
    part = Part(job.stem, len(rows), int(records["n_tokens"].sum()), int(records["n_bytes"].sum()))
    receipt = {
        "made_from": made_from,
        "documents": part.n_documents,
        "tokens": part.n_tokens,
        "bytes": part.n_bytes,
        "sha256": {ending: file_hash(paths[ending]) for ending in (".ids", ".npy")},
    }
    paths[".json"].write_text(json.dumps(receipt), encoding="utf-8")
    return part


Row = tuple[int, int, int, int]


def _encoded(job: Job, encoder: Encoder) -> Iterator[tuple[Row, NDArray[Any]]]:
    """(origin, content, tokens, bytes) and ids of each document, end of text included."""
    for batch, ids in _tokens(job, encoder) if job.source.tokens is not None else _text(job, encoder):
        for document, tokens in zip(batch, ids, strict=True):
            n_bytes = len(document.text.encode("utf-8", "replace"))
            yield (*split.identify(document), len(tokens), n_bytes), tokens


def _text(job: Job, encoder: Encoder) -> Iterator[tuple[list[Document], list[NDArray[Any]]]]:
    for batch in _batches(sources.read(job.source, job.chunk, job.folder)):
        yield batch, encoder.encode([document.text for document in batch])


def _tokens(job: Job, encoder: Encoder) -> Iterator[tuple[list[Document], list[NDArray[Any]]]]:
    """Ids that are there already; their text is decoded for its identity and its bytes."""
    documents = tokenised.read(job.source, job.chunk, encoder.vocab, job.end_of_text)
    while batch := list(islice(documents, BATCH)):
        texts = encoder.texts(batch)
        end = np.asarray([job.end_of_text], dtype=encoder.dtype)
        ids = [np.concatenate([tokens.astype(encoder.dtype), end]) for tokens in batch]
        yield [Document(text, text) for text in texts], ids


def _limited(found: Iterable[tuple[Row, NDArray[Any]]], source: Source) -> Iterator[tuple[Row, NDArray[Any]]]:
    """No more than the whole source may give: what comes after is cut when the parts are joined."""
    tokens, n_bytes = 0, 0
    for row, ids in found:
        yield row, ids
        tokens, n_bytes = tokens + row[2], n_bytes + row[3]
        if enough(source, tokens, n_bytes):
            return


def enough(source: Source, n_tokens: float, n_bytes: float) -> bool:
    """Whether a source has reached one of its limits."""
    over_tokens = source.max_tokens is not None and n_tokens >= source.max_tokens
    return over_tokens or (source.megabytes is not None and n_bytes >= source.megabytes * 1e6)


def _batches(texts: Iterable[Document]) -> Iterator[list[Document]]:
    iterator = iter(texts)
    while batch := list(islice(iterator, 1)):
        size = len(batch[0].text)
        while len(batch) < BATCH and size < BATCH_BYTES and (more := next(iterator, None)):
            batch.append(more)
            size += len(more.text)
        yield batch


@lru_cache(maxsize=2)
def _encoder(path: Path, end_of_text: int) -> Encoder:
    return Encoder(path.read_text(encoding="utf-8"), end_of_text)
