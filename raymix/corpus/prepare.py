"""Text to tokens, once: read, train the tokenizer, tokenise, split by origin, check, write; or find it in the cache.

The cache is keyed by everything the tokens depend on: sources (with sizes and times of local files, versions of
built-in text), tokenizer, split rule and format.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raymix.corpus import shards, split, tokenizer
from raymix.corpus.shards import Corpus, CorpusError, open_corpus
from raymix.corpus.sources import Document, builtin_documents, documents, fingerprint
from raymix.corpus.split import DocumentTable
from raymix.corpus.tokenizer import Encoder
from raymix.space import SearchSpace, Source, SpaceError

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
Reader = Callable[[], Iterable[Document]]
BATCH = 256  # documents tokenised at a time
BATCH_BYTES = 4_000_000


class _Stream(NamedTuple):
    """A tokenised source: all tokens in one temporary file, and the table of its documents."""

    path: Path
    table: DocumentTable

    def pieces(self, chosen: NDArray[np.bool_], dtype: Any) -> Iterator[NDArray[Any]]:
        """Encoder of the chosen documents, in order."""
        if not self.table.n_tokens.sum():
            return
        tokens = np.memmap(self.path, dtype=dtype, mode="r")
        for start, n in zip(self.table.start[chosen], self.table.n_tokens[chosen], strict=True):
            yield tokens[start : start + n]


def prepare(space: SearchSpace, cache: Path | None = None, progress: Progress | None = None) -> Corpus:
    """The corpus of a space: from the cache where it is complete, else made and put there.

    Args:
        space: names the sources; needs one per domain.
        cache: folder of corpora; $RAYMIX_CACHE or ~/.cache/raymix if left out.
        progress: called with a stage ("read", "tokenizer", "tokenise", "write") and the part of it that is done.

    Raises:
        SpaceError: a source is missing or empty, a domain is too small to split, or eval text stands in training text.
    """
    if not space.trains_proxies:
        raise SpaceError(f"the domains of {space.name!r} have no source: there is no text to prepare")
    tell = progress or (lambda stage, done: None)
    folder = (cache or default_cache()) / "corpora" / corpus_key(space)
    if (folder / shards.MANIFEST).exists():
        try:
            return open_corpus(folder)
        except CorpusError as error:
            raise CorpusError(f"the cached corpus is damaged: {error}") from None
    log.info("preparing the corpus of %s in %s", space.name, folder)
    with shards.new_folder(folder) as temporary:
        _make(space, temporary, tell)
    return open_corpus(folder, verify=False)


def default_cache() -> Path:
    """$RAYMIX_CACHE, or ~/.cache/raymix."""
    named = os.environ.get("RAYMIX_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "raymix"


def corpus_key(space: SearchSpace) -> str:
    """Hash of everything the tokens depend on."""
    eval_sources = [(e.name, e.own, _fingerprint(e.name, e.source, space)) for e in space.eval_domains]
    described = {
        "format": shards.FORMAT,
        "split": split.RULE,
        "domains": [(d.name, _fingerprint(d.name, d.source, space)) for d in space.domains],
        "eval_domains": eval_sources,
        "tokenizer": tokenizer.fingerprint(space.tokenizer, space.folder),
        "eval_tokens": space.recipe.eval_tokens,
        "allow_eval_overlap": space.allow_eval_overlap,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]


def _fingerprint(name: str, source: Source | None, space: SearchSpace) -> Any:
    if source is None:
        return None
    try:
        return fingerprint(source, space.folder)
    except SpaceError as error:
        raise SpaceError(f"domain {name!r}: {error}") from None


def _make(space: SearchSpace, folder: Path, tell: Progress) -> None:
    tell("read", 0.0)
    readers = _readers(space)
    tell("tokenizer", 0.0)
    own_text = [readers["domain", domain.name]() for domain in space.domains]
    encoder = tokenizer.make_tokenizer(space.tokenizer, own_text, space.folder)
    streams: dict[tuple[str, str], _Stream] = {}
    for i, (key, reader) in enumerate(readers.items()):
        tell("tokenise", i / len(readers))
        streams[key] = _tokenise(reader(), encoder, folder / f"stream-{i}.tmp")
    train, evals = _split(space, streams)
    _check(space, streams, train, evals, encoder)
    tell("write", 0.0)
    _write(space, folder, streams, train, evals, encoder)
    for stream in streams.values():
        stream.path.unlink(missing_ok=True)
    tell("write", 1.0)


def _readers(space: SearchSpace) -> dict[tuple[str, str], Reader]:
    """How to read each source, named in its errors; parts of the built-in corpus are read together, once."""
    sources = {("domain", d.name): d.source for d in space.domains}
    sources |= {("eval domain", e.name): e.source for e in space.eval_domains}
    given = {key: source for key, source in sources.items() if source is not None}
    built_in: dict[str, list[Source]] = {}
    for source in given.values():
        if source.builtin is not None:
            built_in.setdefault(source.builtin, []).append(source)
    texts = builtin_documents({part: _largest(wanted) for part, wanted in built_in.items()}) if built_in else {}
    return {key: _reader(key, source, space.folder, texts) for key, source in given.items()}


def _largest(sources: list[Source]) -> float | None:
    sizes = [source.megabytes for source in sources]
    return None if None in sizes else max(size for size in sizes if size is not None)


def _reader(key: tuple[str, str], source: Source, folder: Path, texts: dict[str, list[Document]]) -> Reader:
    def read() -> Iterator[Document]:
        if source.builtin is not None:
            yield from _up_to(source.megabytes, texts[source.builtin])
            return
        try:
            yield from documents(source, folder)
        except SpaceError as error:
            raise SpaceError(f"{key[0]} {key[1]!r}: {error}") from None

    return read


def _up_to(megabytes: float | None, texts: Iterable[Document]) -> Iterator[Document]:
    left = float("inf") if megabytes is None else megabytes * 1e6
    for document in texts:
        if left <= 0:
            return
        left -= len(document.text.encode())
        yield document


def _tokenise(texts: Iterable[Document], encoder: Encoder, path: Path) -> _Stream:
    rows: list[tuple[int, int, int, int]] = []
    with path.open("wb") as stream:
        for batch in _batches(texts):
            for document, ids in zip(batch, encoder.encode([d.text for d in batch]), strict=True):
                stream.write(ids.tobytes())
                rows.append((*split.identify(document), len(ids), len(document.text.encode("utf-8", "replace"))))
    return _Stream(path, split.as_document_table(rows))


def _batches(texts: Iterable[Document]) -> Iterator[list[Document]]:
    iterator = iter(texts)
    while batch := list(islice(iterator, 1)):
        size = len(batch[0].text)
        while len(batch) < BATCH and size < BATCH_BYTES and (more := next(iterator, None)):
            batch.append(more)
            size += len(more.text)
        yield batch


Chosen = dict[str, tuple[_Stream, NDArray[np.bool_]]]


def _split(space: SearchSpace, streams: dict[tuple[str, str], _Stream]) -> tuple[Chosen, Chosen]:
    """Which documents each domain trains on, and which each eval domain is evaluated on."""
    owned = {e.own for e in space.eval_domains if e.source is None}
    tables = {d.name: streams["domain", d.name].table for d in space.domains}
    for name, table in tables.items():
        split.require_text("domain", name, int(table.n_tokens.sum()), "")
    evaluated = {name: table for name, table in tables.items() if name in owned}
    away = split.held_out_origins(evaluated, space.recipe.eval_tokens)
    is_away = {name: np.isin(table.origin, away) for name, table in tables.items()}
    train = {name: (streams["domain", name], ~is_away[name]) for name in tables}
    evals: Chosen = {}
    for eval_domain in space.eval_domains:
        if eval_domain.source is None:
            assert eval_domain.own is not None  # the space is checked
            evals[eval_domain.name] = (streams["domain", eval_domain.own], is_away[eval_domain.own])
        else:
            stream = streams["eval domain", eval_domain.name]
            evals[eval_domain.name] = (stream, np.ones(len(stream.table), dtype=bool))
    return train, evals


def _check(
    space: SearchSpace, streams: dict[tuple[str, str], _Stream], train: Chosen, evals: Chosen, encoder: Encoder
) -> None:
    for name, (stream, chosen) in train.items():
        remedy = "all of it is held out for evaluation; give more documents, or an eval domain with its own source"
        split.require_text("domain", name, int(stream.table.n_tokens[chosen].sum()), remedy)
    for name, (stream, chosen) in evals.items():
        remedy = "its domain has too few documents to hold one out; give more documents, or the eval domain a source"
        split.require_text("eval domain", name, int(stream.table.n_tokens[chosen].sum()), remedy)
    contents = [{n: s.table.content[chosen] for n, (s, chosen) in side.items()} for side in (train, evals)]
    overlap = split.check_overlap(contents[0], contents[1])
    if overlap is None:
        return
    count, name, place = overlap
    stream, chosen = evals[name]
    ids = next(islice(stream.pieces(chosen, encoder.dtype), place, None))
    message = (
        f"{count} document(s) of the eval domains also stand in the training text, for example in eval domain "
        f"{name!r}: {encoder.decode(ids[:24])!r}..."
    )
    if not space.allow_eval_overlap:
        raise SpaceError(f"{message}; take them out on one side, or set allow_eval_overlap: true")
    log.warning("%s", message)


def _write(
    space: SearchSpace,
    folder: Path,
    streams: dict[tuple[str, str], _Stream],
    train: Chosen,
    evals: Chosen,
    encoder: Encoder,
) -> None:
    def entries(kind: str, side: Chosen) -> dict[str, Any]:
        found = {}
        for name, (stream, chosen) in side.items():
            n_tokens = int(stream.table.n_tokens[chosen].sum())
            pieces = stream.pieces(chosen, encoder.dtype)
            written = shards.write_tokens(folder / shards.file_name(kind, name), pieces, n_tokens, encoder.dtype)
            text_bytes = int(stream.table.n_bytes[chosen].sum())
            found[name] = {**written, "name": name, "documents": int(chosen.sum()), "text_bytes": text_bytes}
        return found

    manifest = {
        "train": entries("train", train),
        "eval": entries("eval", evals),
        "tokenizer": {"hash": encoder.hash, "vocab": encoder.vocab, "end_of_text": encoder.end_of_text},
        "sources": {
            "domains": {d.name: _fingerprint(d.name, d.source, space) for d in space.domains},
            "eval_domains": {e.name: _fingerprint(e.name, e.source, space) for e in space.eval_domains},
        },
        "versions": _versions(),
    }
    shards.write_manifest(folder, manifest, encoder.definition)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("numpy", "tokenizers", "transformers", "datasets", "pyarrow")}
