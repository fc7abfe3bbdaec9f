"""Files of text: cut into chunks, read as documents.

.jsonl .ndjson, and .json if packed    one record a line; plain ones are cut by bytes, at lines
.parquet                               cut by row groups
.arrow .feather                        an IPC file or stream
anything else                          one document a file; small ones share a chunk
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from raymix.corpus.places import File, bare, named, open_file, packing
from raymix.corpus.records import Document, document, fields, no_field
from raymix.space import Source, SpaceError

LINES = (".jsonl", ".ndjson")
ARROW = (".arrow", ".feather")
SMALLEST, LARGEST = 1 << 22, 1 << 28  # bytes of a chunk: some seconds of work, lost at most when a process dies
CHUNKS = 512  # about so many of a large source


class Chunk(NamedTuple):
    """A piece of a source that is read by itself, whoever reads the others."""

    kind: str
    paths: tuple[str, ...]
    start: int = 0
    stop: int | None = None
    """Bytes, row groups, rows, shards or documents, as the kind has it; None: to the end."""
    size: int = 0
    """Bytes on disk, about; 0 where nobody knows."""


def plan(source: Source, files: list[File]) -> Iterator[Chunk]:
    """The chunks of files, in order; they depend on the files alone, not on who will read them.

    Of a source with a limit the files come in the order of a hash of their names: its part is then not all of the
    first year or language, and is the same wherever the files lie.
    """
    if limited(source):
        files = sorted(files, key=lambda file: (sort_key("/".join(file.path.split("/")[-2:])), file.path))
    goal = min(max(sum(file.size for file in files) // CHUNKS, SMALLEST), LARGEST)
    texts: list[File] = []
    size = 0
    for file in files:
        kind, packed = _kind(file.path)
        if kind == "text":
            _no_records(source, file.path)
            texts.append(file)
            size += file.size
            if size < goal:
                continue
        if texts:
            yield _together(texts)
            texts, size = [], 0
        if kind == "lines" and not packed:
            for start in range(0, max(file.size, 1), goal):
                stop = min(start + goal, file.size)
                yield Chunk(kind, (file.path,), start, stop, stop - start)
        elif kind == "parquet":
            yield from _row_groups(file, source, goal)
        elif kind != "text":
            yield Chunk(kind, (file.path,), size=file.size)
    if texts:
        yield _together(texts)


def limited(source: Source) -> bool:
    """Whether only a part of the source is taken."""
    return source.max_tokens is not None or source.megabytes is not None


def sort_key(name: str) -> bytes:
    """A hash of a name: sorted by it, names stand in a random order that is always the same."""
    return hashlib.sha256(name.encode("utf-8", "replace")).digest()


def read(source: Source, chunk: Chunk) -> Iterator[Document]:
    """The documents of a chunk.

    Raises:
        SpaceError: a file cannot be read, or a record has no text; the message names the place.
    """
    readers = {"lines": _lines, "parquet": _parquet, "arrow": _arrow, "text": _texts}
    with named(chunk.paths[0]):
        yield from readers[chunk.kind](source, chunk)


def _kind(path: str) -> tuple[str, str | None]:
    """What a file holds, and how it is packed, by its name."""
    packed, name = packing(path), bare(path)
    name = name.rpartition(".")[0] if packed else name
    if name.endswith(LINES) or (packed and name.endswith(".json")):
        return "lines", packed
    return "parquet" if name.endswith(".parquet") else "arrow" if name.endswith(ARROW) else "text", packed


def _no_records(source: Source, path: str) -> None:
    """Refuse keys that speak of the fields of records, where a file is taken as one text."""
    default = Source(files="")
    for key in ("text", "where", "origin"):
        if getattr(source, key) != getattr(default, key):
            raise SpaceError(
                f"{path}: it is read as one text, which has no fields, so `{key}` would do nothing; records stand in "
                ".jsonl, .ndjson, .json.gz, .parquet or .arrow files"
            )


def _together(files: list[File]) -> Chunk:
    return Chunk("text", tuple(file.path for file in files), size=sum(file.size for file in files))


def _texts(source: Source, chunk: Chunk) -> Iterator[Document]:
    for path in chunk.paths:
        with named(path), open_file(path) as stream:
            text = stream.read().decode("utf-8-sig").replace("\r\n", "\n")
            if bare(path).endswith(".json") and _is_lines(source, text):
                raise SpaceError(
                    f"{path}: its lines are records with a field {source.text!r}, a .json file is read as one text: "
                    "name it .jsonl"
                )
            if text.strip():
                yield Document(text, text)


def _is_lines(source: Source, text: str) -> bool:
    """Whether a text is rather records, one a line, with the field a source reads: as `datasets` writes .json."""
    first, _, others = text.partition("\n")
    try:
        return others.startswith("{") and source.text in json.loads(first)
    except (ValueError, TypeError, RecursionError):
        return False


def _lines(source: Source, chunk: Chunk) -> Iterator[Document]:
    """The lines that begin inside the chunk."""
    path = chunk.paths[0]
    with open_file(path) as stream:
        place = chunk.start
        if place:
            stream.seek(place - 1)
            place += len(stream.readline()) - 1
        begin = f" after byte {place}" if place else ""
        for number, line in enumerate(stream, 1):
            if chunk.stop is not None and place >= chunk.stop:
                return
            place += len(line)
            if line.strip():
                where = f"{path}, line {number}{begin}"
                found = document(_record(line, where), source, where)
                if found is not None:
                    yield found


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except UnicodeDecodeError as error:
        raise SpaceError(f"{where}: not UTF-8 ({error}); convert the file, or take the line out") from None
    except (ValueError, RecursionError) as error:
        raise SpaceError(f"{where}: not JSON ({error}); a .jsonl file has one object per line") from None
    if not isinstance(record, dict):
        raise SpaceError(f"{where}: a record is an object with a text field, this is {type(record).__name__}")
    return record


def _row_groups(file: File, source: Source, goal: int) -> Iterator[Chunk]:
    """Neighbouring row groups of about `goal` bytes."""
    import pyarrow.parquet

    with named(file.path), open_file(file.path) as stream:
        about = pyarrow.parquet.ParquetFile(stream).metadata
        sizes = [about.row_group(i).total_byte_size for i in range(about.num_row_groups)]
    start, size = 0, 0
    scale = file.size / max(sum(sizes), 1)
    for i, group in enumerate(sizes):
        size += group
        if size >= goal or i + 1 == len(sizes):
            yield Chunk("parquet", (file.path,), start, i + 1, int(size * scale))
            start, size = i + 1, 0


def _parquet(source: Source, chunk: Chunk) -> Iterator[Document]:
    import pyarrow.parquet

    with open_file(chunk.paths[0]) as stream:
        file = pyarrow.parquet.ParquetFile(stream)
        names = columns(source, file.schema_arrow.names, chunk.paths[0])
        groups = range(chunk.start, chunk.stop or file.num_row_groups)
        yield from _rows(file.iter_batches(1024, row_groups=list(groups), columns=names), source, chunk.paths[0])


def _arrow(source: Source, chunk: Chunk) -> Iterator[Document]:
    import pyarrow.ipc

    with open_file(chunk.paths[0]) as stream:
        try:
            file = pyarrow.ipc.open_file(stream)
            batches: Iterable[Any] = (file.get_batch(i) for i in range(file.num_record_batches))
        except pyarrow.ArrowInvalid:  # not the file form: the stream form
            stream.seek(0)
            batches = file = pyarrow.ipc.open_stream(stream)
        names = columns(source, file.schema.names, chunk.paths[0])
        yield from _rows((batch.select(names) for batch in batches), source, chunk.paths[0])


def columns(source: Source, existing: list[str], where: str) -> list[str]:
    """The columns a source reads: of a dotted name the one called so, else what stands before its first dot."""
    names = {name: name if name in existing else name.partition(".")[0] for name in fields(source)}
    for name, column in names.items():
        if column not in existing:
            raise no_field(column, existing, where, "text" if name == source.text else "where` or `origin")
    return list(dict.fromkeys(names.values()))


def _rows(batches: Iterable[Any], source: Source, path: str) -> Iterator[Document]:
    for batch in batches:
        for record in batch.to_pylist():
            found = document(record, source, path)
            if found is not None:
                yield found
