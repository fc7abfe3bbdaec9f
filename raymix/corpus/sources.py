"""Read the text of a source: local files, a dataset, or the built-in corpus, as documents with an origin.

The origin is what the split into training and held-out text goes by: for built-in text the file it came from (docs,
comments and code of a module share it), else a hash of the text, so that equal documents land on the same side.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from raymix.corpus import builtin
from raymix.space import Source, SpaceError

JSON_LINES = (".jsonl", ".ndjson")


class Document(NamedTuple):
    """One text and what it came from."""

    text: str
    origin: str


def documents(source: Source, folder: Path) -> Iterator[Document]:
    """The documents of a source, up to its megabytes; relative names start at `folder`. Always the same order.

    Raises:
        SpaceError: nothing is there, it cannot be read, or it has no such text field; the message says what would do.
    """
    if source.builtin is not None:
        yield from builtin_documents({source.builtin: source.megabytes})[source.builtin]
        return
    texts = _from_files(source, folder) if source.files is not None else _from_dataset(source, folder)
    left = float("inf") if source.megabytes is None else source.megabytes * 1e6
    for text in texts:
        if not text.strip():
            continue
        data = text.encode("utf-8", "replace")
        yield Document(text, hashlib.sha256(data).hexdigest()[:32])
        left -= len(data)
        if left <= 0:
            return


def builtin_documents(megabytes: dict[str, float | None]) -> dict[str, list[Document]]:
    """Several parts of the built-in corpus from one pass over its files."""
    try:
        found = builtin.collect(megabytes)
    except ValueError as error:
        raise SpaceError(str(error)) from None
    return {part: [Document(*text) for text in texts] for part, texts in found.items()}


def fingerprint(source: Source, folder: Path) -> Any:
    """Plain data that changes when the text of the source does: names, sizes and times of files, or versions."""
    described: dict[str, Any] = source.model_dump(mode="json", exclude_none=True)
    if source.builtin is not None:
        return {**described, "rule": builtin.RULE, "versions": builtin.versions()}
    if source.files is not None:
        paths = matching_files(source, folder)
    else:
        root = _local_dataset(source, folder)
        paths = sorted(path for path in root.rglob("*") if path.is_file()) if root else []
    return {**described, "files": [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]}


def matching_files(source: Source, folder: Path) -> list[Path]:
    """The files of the globs, sorted, each once.

    Raises:
        SpaceError: a glob matches nothing.
    """
    assert source.files is not None
    patterns = (source.files,) if isinstance(source.files, str) else source.files
    found: set[Path] = set()
    for pattern in patterns:
        full = str(folder / pattern)
        matches = [full] if Path(full).is_file() else glob.glob(full, recursive=True)
        files = [Path(match) for match in matches if Path(match).is_file()]
        if not files:
            raise SpaceError(f"files {pattern!r}: no file matches (looked for {full}); correct the path or the glob")
        found.update(files)
    return sorted(found)


def _from_files(source: Source, folder: Path) -> Iterator[str]:
    for path in matching_files(source, folder):
        name = path.name.removesuffix(".gz")
        if name.endswith(JSON_LINES):
            yield from _json_lines(path, source.text)
        elif name.endswith(".parquet"):
            yield from _parquet(path, source.text)
        else:
            yield _whole(path)


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return cast(IO[str], gzip.open(path, "rt", encoding="utf-8"))
    return path.open(encoding="utf-8")


def _whole(path: Path) -> str:
    try:
        with _open(path) as stream:
            return stream.read()
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise SpaceError(f"{path}: not readable as UTF-8 text ({error}); convert it or take it out of files") from None


def _json_lines(path: Path, field: str) -> Iterator[str]:
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield from _field(_record(line, f"{path}, line {number}"), field, f"{path}, line {number}")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise SpaceError(f"{path}: not readable as UTF-8 text ({error}); convert it or take it out of files") from None


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise SpaceError(f"{where}: not JSON ({error}); a .jsonl file has one object per line") from None
    if not isinstance(record, dict):
        raise SpaceError(f"{where}: a record is an object with a text field, this is {type(record).__name__}")
    return record


def _parquet(path: Path, field: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        if field not in file.schema_arrow.names:
            raise _no_field(field, file.schema_arrow.names, str(path))
        for batch in file.iter_batches(batch_size=1024, columns=[field]):
            for value in batch.column(0).to_pylist():
                yield from _field({field: value}, field, str(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise SpaceError(f"{path}: cannot be read as Parquet ({error}); write it again") from None


def _field(record: dict[str, Any], field: str, where: str) -> Iterable[str]:
    """The text of a record, or nothing where it is null."""
    if field not in record:
        raise _no_field(field, record, where)
    value = record[field]
    if value is None:
        return ()
    if not isinstance(value, str):
        raise SpaceError(f"{where}: the field {field!r} holds {type(value).__name__}, not text; name another as `text`")
    return (value,)


def _no_field(field: str, existing: Iterable[str], where: str) -> SpaceError:
    return SpaceError(
        f"{where}: there is no field {field!r}; it has {', '.join(existing)}: name one as the source's `text`"
    )


def _local_dataset(source: Source, folder: Path) -> Path | None:
    assert source.dataset is not None
    path = folder / source.dataset
    return path if path.is_dir() else None


def _from_dataset(source: Source, folder: Path) -> Iterator[str]:
    try:
        for record in _records(source, folder):
            yield from _field(record, source.text, f"dataset {source.dataset!r}, split {source.split!r}")
    except SpaceError:
        raise
    except Exception as error:  # datasets and its file systems raise some twenty kinds
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise SpaceError(
            f"dataset {source.dataset!r} (config {source.config!r}, split {source.split!r}) cannot be loaded: "
            f"{reason}. Check the names; without network, give the folder of a local copy as `dataset`, or its "
            "files as `files`"
        ) from None


def _records(source: Source, folder: Path) -> Iterable[dict[str, Any]]:
    """Records as they come: nothing is downloaded or unpacked beyond what is read."""
    import datasets

    local = _local_dataset(source, folder)
    if local is not None and ((local / "state.json").is_file() or (local / "dataset_dict.json").is_file()):
        saved = datasets.load_from_disk(str(local))
        return cast(Iterable[dict[str, Any]], saved[source.split] if isinstance(saved, dict) else saved)
    name = str(local) if local is not None else source.dataset
    loaded = datasets.load_dataset(name, source.config, split=source.split, revision=source.revision, streaming=True)
    return cast(Iterable[dict[str, Any]], loaded)
