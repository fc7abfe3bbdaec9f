"""Any source as documents: cut into chunks in a fixed order, each read by itself.

The origin of a document is what the split into training and held-out text goes by: for built-in text the file it
came from (docs, comments and code of a module share it), else the field named as `origin`, else the text itself, so
that equal documents land on the same side.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from raymix.corpus import builtin, files, hub, places, tokenised
from raymix.corpus.files import Chunk
from raymix.corpus.places import File
from raymix.corpus.records import Document
from raymix.space import Source
from raymix.space_parts import several

SPOOLED = Source(files="*.jsonl", origin="origin")  # how the built-in text is read back


def documents(source: Source, folder: Path) -> Iterator[Document]:
    """The documents of a source of text, up to its megabytes; relative names start at `folder`. Always the same order.

    Raises:
        SpaceError: nothing is there, it cannot be read, or it has no such text field; the message says what would do.
    """
    every = (document for chunk in plan(source, folder) for document in read(source, chunk, folder))
    yield from up_to(source.megabytes, every)


def up_to(megabytes: float | None, texts: Iterable[Document]) -> Iterator[Document]:
    """Documents until the limit is reached; the one that reaches it is the last."""
    left = float("inf") if megabytes is None else megabytes * 1e6
    for document in texts:
        yield document
        left -= len(document.text.encode("utf-8", "replace"))
        if left <= 0:
            return


def spool(texts: Iterable[Document], path: Path) -> None:
    """Write documents as records, to be read back in chunks."""
    with path.open("w", encoding="utf-8", errors="replace") as stream:
        stream.writelines(json.dumps(document._asdict()) + "\n" for document in texts)


def plan(source: Source, folder: Path, end_of_text: int | None = None) -> Iterator[Chunk]:
    """The chunks of a source, in order, found as they are asked for; the built-in corpus has none of its own."""
    if source.dataset is not None:
        return hub.plan(source, folder)
    if source.tokens is not None:
        assert end_of_text is not None
        return tokenised.plan(source, tokenised.matching(source, folder), end_of_text)
    return files.plan(source, listed(source, folder))


def read(source: Source, chunk: Chunk, folder: Path) -> Iterator[Document]:
    """The documents of a chunk of text."""
    return hub.read(source, chunk, folder) if source.dataset is not None else files.read(source, chunk)


def listed(source: Source, folder: Path) -> list[File]:
    """The files of a source; none for the built-in corpus and for what the hub keeps."""
    if source.files is not None:
        return places.matching(source.files, folder)
    if source.tokens is not None:
        return tokenised.matching(source, folder)
    root = hub.local(source, folder) if source.dataset is not None else None
    return [places.on_disk(path) for path in sorted(root.rglob("*")) if path.is_file()] if root else []


def fingerprint(source: Source, folder: Path, reach: bool = True) -> Any:
    """Plain data that changes when the text of the source does: names, sizes and times of files, or versions.

    Without `reach` no network is asked: a URL, like a hub dataset, is then known by its name alone.
    """
    described: dict[str, Any] = source.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    if source.builtin is not None:
        return {**described, "rule": builtin.RULE, "versions": dict(builtin.versions())}
    if not reach and any("://" in pattern for pattern in several(source.files)):
        return described
    return {**described, "files": [list(file) for file in listed(source, folder)]}
