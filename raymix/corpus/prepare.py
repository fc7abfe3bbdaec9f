"""Text to tokens, once: read, train the tokenizer, tokenise, split by origin, check, write; or find it in the cache.

The cache is keyed by everything the tokens depend on: sources (with sizes and times of files, versions of built-in
text), tokenizer, split rule and format. Parts that are tokenised stay in the cache until the corpus is whole, so a
preparation that was killed goes on where it was, and the bytes are the same whoever tokenised what.
"""

import fcntl
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from raymix.corpus import builtin, hub, shards, sources, split, tokenised, tokenizer, workers
from raymix.corpus.files import Chunk
from raymix.corpus.keys import Key, check_tokenizers, corpus_key, fingerprints, given_sources, naming, tokens_key
from raymix.corpus.parts import Job
from raymix.corpus.places import File
from raymix.corpus.records import Document
from raymix.corpus.shards import Corpus, CorpusError, open_corpus
from raymix.corpus.streams import Chosen, Stream
from raymix.corpus.tokenizer import Encoder
from raymix.corpus.workers import Feed
from raymix.space import SearchSpace, Source, SpaceError

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]


def prepare(
    space: SearchSpace, cache: Path | None = None, progress: Progress | None = None, workers: int | None = None
) -> Corpus:
    """The corpus of a space: from the cache where it is complete, else made and put there.

    Args:
        space: names the sources; needs one per domain.
        cache: folder of corpora; $RAYMIX_CACHE or ~/.cache/raymix if left out.
        progress: called with a stage ("read", "tokenizer", "tokenise", "write") and the part of it that is done.
        workers: processes that tokenise; all cores if left out (Ray tasks where RAY_ADDRESS is set).

    Raises:
        SpaceError: a source is missing or empty, a domain is too small to split or to fill a sequence, or eval text
            stands in training text.
        CorpusError: the cached corpus is damaged, or a worker died (what is done is kept).
        OSError: the cache cannot be written (what is done is kept).
    """
    if not space.trains_proxies:
        raise SpaceError(f"the domains of {space.name!r} have no source: there is no text to prepare")
    check_tokenizers(space)
    corpus = _prepared(space, cache or default_cache(), progress or (lambda stage, done: None), workers)
    for name, n_tokens in corpus.tokens.items():
        if n_tokens <= space.recipe.context:
            raise SpaceError(
                f"domain {name!r} has {n_tokens} tokens to train on, a sequence takes {space.recipe.context + 1} "
                "(recipe.context and a last target): give it more text, or make recipe.context smaller"
            )
    return corpus


def default_cache() -> Path:
    """$RAYMIX_CACHE, or ~/.cache/raymix."""
    named = os.environ.get("RAYMIX_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "raymix"


def _prepared(space: SearchSpace, cache: Path, tell: Progress, n_workers: int | None) -> Corpus:
    folder = cache / "corpora" / corpus_key(space)
    if not (folder / shards.MANIFEST).exists():
        hub.forget()
        tokenised.forget()
        prints = fingerprints(space)
        with _locked(cache / "parts" / tokens_key(space, prints)) as staging:
            if not (folder / shards.MANIFEST).exists():  # somebody else's while we waited
                log.info("preparing the corpus of %s in %s", space.name, folder)
                with shards.writing_to(cache), shards.new_folder(folder) as temporary:
                    _make(space, temporary, staging, prints, tell, n_workers)
            _remove(staging)
            return open_corpus(folder, verify=False)
    try:
        return open_corpus(folder)
    except CorpusError as error:
        raise CorpusError(f"the cached corpus is damaged: {error}") from None


@contextmanager
def _locked(staging: Path) -> Iterator[Path]:
    """The folder of parts, for one preparation at a time; it stays when the block fails, so that work is not lost."""
    while True:
        staging.parent.mkdir(parents=True, exist_ok=True)  # what this raises would be raised again
        try:
            staging.mkdir(exist_ok=True)
            opened = (staging / "lock").open("w")
        except (FileExistsError, FileNotFoundError):
            if staging.exists() and not staging.is_dir():
                raise
            continue  # taken away between two looks
        with opened as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if getattr(multiprocessing.current_process(), "_inheriting", False):
                    raise CorpusError("begun anew by a worker of its own, which would wait for it for ever") from None
                log.warning("another process prepares the same corpus; waiting for it (%s)", staging)
                fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                current = os.path.samestat(os.fstat(lock.fileno()), (staging / "lock").stat())
            except FileNotFoundError:
                continue  # whoever had it took the folder away
            if current:
                yield staging
                return


def _remove(staging: Path) -> None:
    """Remove the folder of parts; at once, so that nobody waits for a lock in half a folder."""
    going = staging.with_name(f"{staging.name}.{uuid4().hex[:8]}.tmp")
    staging.rename(going)
    shutil.rmtree(going)


def _make(
    space: SearchSpace, folder: Path, staging: Path, prints: dict[Key, Any], tell: Progress, n_workers: int | None
) -> None:
    given = given_sources(space)
    tell("read", 0.0)
    spooled = _spool_builtin(given, staging)
    tell("tokenizer", 0.0)
    encoder = _tokenizer(space, staging, spooled)
    commits = {key: hub.commit(source, space.folder) for key, source in given.items()}
    feeds = {}
    for i, (key, source) in enumerate(given.items()):
        pinned = source.model_copy(update={"revision": commits[key] or source.revision})
        feeds[key] = _feed(pinned, space.folder, staging, i, encoder, spooled, prints[key])
    tell("tokenise", 0.0)
    workers.make_all(feeds, n_workers, partial(tell, "tokenise"), staging)
    streams = {key: Stream.of(feed.source, feed.in_order(), encoder.dtype) for key, feed in feeds.items()}
    train, evals = _split(space, streams)
    _check(space, train, evals, encoder)
    tell("write", 0.0)
    manifest = {
        "train": _write(folder, "train", train),
        "eval": _write(folder, "eval", evals),
        "tokenizer": {"hash": encoder.hash, "vocab": encoder.vocab, "end_of_text": encoder.end_of_text},
        "sources": {
            f"{kind}s": {n: prints[k, n] | ({"commit": c} if c else {}) for (k, n), c in commits.items() if k == kind}
            for kind in ("domain", "eval domain")
        },
        "versions": {name: version(name) for name in ("numpy", "tokenizers", "transformers", "datasets", "pyarrow")},
    }
    shards.write_manifest(folder, manifest, encoder.definition)
    tell("write", 1.0)


def _spool_builtin(given: dict[Key, Source], staging: Path) -> dict[str, Path]:
    """The parts of the built-in corpus as files of records, all from one pass; kept ones are taken."""
    sizes: dict[str, list[float | None]] = {}
    for source in given.values():
        if source.builtin is not None:
            sizes.setdefault(source.builtin, []).append(source.megabytes)
    paths = {part: staging / f"builtin-{part}.jsonl" for part in sizes}
    if all(path.is_file() for path in paths.values()):
        return paths
    wanted = {part: None if None in asked else max(filter(None, asked)) for part, asked in sizes.items()}
    for part, texts in builtin.collect(wanted).items():
        unfinished = paths[part].with_suffix(".tmp")
        sources.spool(texts, unfinished)
        os.replace(unfinished, paths[part])
    return paths


def _tokenizer(space: SearchSpace, staging: Path, spooled: dict[str, Path]) -> Encoder:
    """The tokenizer, also as a file for the workers."""
    texts = [_texts(("domain", d.name), d.source, space.folder, spooled) for d in space.domains if d.source is not None]
    encoder = tokenizer.make_tokenizer(space.tokenizer, texts, space.folder)
    for (kind, name), source in given_sources(space).items():
        if source.vocab is not None and source.vocab != encoder.vocab:
            raise SpaceError(f"{kind} {name!r}: vocab {source.vocab}, but {source.tokenizer!r} has {encoder.vocab} ids")
    unfinished = staging / f"{shards.TOKENIZER}.tmp"
    shards.write_text(unfinished, encoder.definition)
    os.replace(unfinished, staging / shards.TOKENIZER)
    return encoder


def _texts(key: Key, source: Source, folder: Path, spooled: dict[str, Path]) -> Iterable[Document]:
    with naming(key):
        yield from sources.documents(*_read_from(source, folder, spooled))


def _read_from(source: Source, folder: Path, spooled: dict[str, Path]) -> tuple[Source, Path]:
    """A source as the workers read it: the built-in corpus from its file of records."""
    if source.builtin is None:
        return source, folder
    limits = {"megabytes": source.megabytes, "max_tokens": source.max_tokens}
    path = spooled[source.builtin]
    return sources.SPOOLED.model_copy(update={**limits, "files": path.name}), path.parent


def _feed(
    source: Source, folder: Path, staging: Path, i: int, encoder: Encoder, spooled: dict[str, Path], fingerprint: Any
) -> Feed:
    source, folder = _read_from(source, folder, spooled)
    at_hand = [File(*file) for file in fingerprint["files"]] if "files" in fingerprint else []

    def job(chunk: Chunk, index: int) -> Job:
        stem = staging / f"source-{i:03d}" / f"part-{index:06d}"
        return Job(source, folder, chunk, stem, staging / shards.TOKENIZER, encoder.end_of_text)

    chunks = sources.plan(source, folder, encoder.end_of_text)
    size = workers.size_of(source, sum(file.size for file in at_hand))
    return Feed(source, folder, chunks, size, job)


def _split(space: SearchSpace, streams: dict[Key, Stream]) -> tuple[Chosen, Chosen]:
    """Which documents each domain trains on, and which each eval domain is evaluated on."""
    owned = {e.own for e in space.eval_domains if e.source is None}
    tables = {d.name: streams["domain", d.name].table for d in space.domains}
    for (kind, name), stream in streams.items():
        split.require_text(kind, name, int(stream.table["n_tokens"].sum()), stream.remedy)
    evaluated = {name: table for name, table in tables.items() if name in owned}
    away = split.held_out_origins(evaluated, space.recipe.eval_tokens)
    is_away = {name: np.isin(table["origin"], away) for name, table in tables.items()}
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


def _check(space: SearchSpace, train: Chosen, evals: Chosen, encoder: Encoder) -> None:
    away = "all of it is held out for evaluation; give more documents, or an eval domain its own source"
    few = "its domain has too few documents to hold one out; give more documents, or the eval domain a source"
    for kind, side, remedy in (("domain", train, away), ("eval domain", evals, few)):
        for name, (stream, chosen) in side.items():
            split.require_text(kind, name, int(stream.table["n_tokens"][chosen].sum()), remedy, " left")
    contents = [{n: s.table["content"][chosen] for n, (s, chosen) in side.items()} for side in (train, evals)]
    overlap = split.check_overlap(contents[0], contents[1])
    if overlap is None:
        return
    count, name, place = overlap
    example = next(islice(evals[name][0].documents(evals[name][1]), place, None))
    message = (
        f"{count} document(s) of the eval domains also stand in the training text, for example in eval domain "
        f"{name!r}: {encoder.decode(example[:24])!r}..."
    )
    if not space.allow_eval_overlap:
        raise SpaceError(f"{message}; take them out on one side, or set allow_eval_overlap: true")
    log.warning("%s", message)


def _write(folder: Path, kind: str, side: Chosen) -> dict[str, Any]:
    """Write the shards of one side; their entries for the manifest."""
    found = {}
    for name, (stream, chosen) in side.items():
        table = stream.table[chosen]
        n_tokens, text_bytes = int(table["n_tokens"].sum()), int(table["n_bytes"].sum())
        _, first = np.unique(table["content"], return_index=True)
        copies = n_tokens - int(table["n_tokens"][first].sum())
        path = folder / shards.file_name(kind, name)
        written = shards.write_tokens(path, stream.runs(chosen), n_tokens, stream.dtype)
        counted = {"documents": len(table), "text_bytes": text_bytes, "copied_tokens": copies}
        found[name] = {**written, "name": name, **counted}
    return found
