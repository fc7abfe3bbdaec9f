"""Old records as one Parquet file: written and read back before the originals go, so a crash loses nothing.

The name carries the first 16 digits of the sha256 of the whole file: a flipped bit anywhere in it is seen at opening.
Columns: seq, kind, sha256, and the body. Bodies that are flat (rows of the observation table) are cut into columns by
their shape, `0/loss/web` and so on, which are read some ten times faster than JSON; the others stay text in `body`.
Nothing is left out: the files of lines could be written again from it.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from raymix.store.errors import StoreError
from raymix.store.log import COPY, FOLDER, NAME, Event, File, Record, arranged, decoded, parquet_parts
from raymix.store.objects import Objects

WRITER = b"raymix.writer"
MERGE_AT = 8  # small parts become one large
LARGE = 4096  # records; a part of so many stays as it is
DELETERS = 16  # at a time: an object store answers one request in tens of milliseconds
TYPES = {str: pa.string(), float: pa.float64(), int: pa.int64()}
Shape = tuple[tuple[str, type], ...]  # keys in order, and what they hold


def write_part(objects: Objects, records: Sequence[Record], writer: str) -> None:
    """Make these consecutive records durable in one file, and see that they can be read back.

    Raises:
        StoreError: it could not be written, or did not come back the same.
    """
    content = _encoded(records, writer)
    first, last, digest = records[0].seq, records[-1].seq, hashlib.sha256(content).hexdigest()[:16]
    file = File(f"{first:08d}-{last:08d}.{digest}.parquet", first, last, digest=digest)
    name = f"{FOLDER}/{file.name}"
    objects.write(name, content)
    events: list[Event] = []
    with suppress(StoreError):
        events, _ = read_part(objects, file)
    if [Record.of(first + i, kind, body) for i, (kind, body) in enumerate(events)] != list(records):
        objects.delete(name)  # or it would count in their place
        raise StoreError(f"{objects.url(name)}: did not come back as written; the records it was made from are kept")


def forget_compacted(objects: Objects, last: int) -> None:
    """Remove the files of lines up to record `last`, which a part now holds. What remains after a crash is ignored."""
    old = [name for name in objects.names(FOLDER) if (match := NAME.fullmatch(name)) and int(match[1]) <= last]
    with ThreadPoolExecutor(DELETERS) as pool:
        for _ in pool.map(lambda name: objects.delete(f"{FOLDER}/{name}"), old):
            pass


def merge_parts(objects: Objects, writer: str) -> None:
    """The small parts at the end as one large, once there are `MERGE_AT` of them: few files are opened quickly.

    Raises:
        StoreError: the large one could not be written or read back; then the small ones are kept.
    """
    parts = arranged([], parquet_parts(objects.names(FOLDER)), objects.url(FOLDER))
    small = [part for part in parts if part.last - part.first + 1 < LARGE]
    if len(small) < MERGE_AT or any(a.last + 1 != b.first for a, b in pairwise(small)):
        return
    events = [event for part in small for event in read_part(objects, part)[0]]
    write_part(objects, [Record.of(small[0].first + i, *event) for i, event in enumerate(events)], writer)
    for part in small:
        objects.delete(f"{FOLDER}/{part.name}")


def read_part(objects: Objects, file: File) -> tuple[list[Event], str]:
    """The events of a part, and the last driver that wrote any of them.

    Raises:
        StoreError: damaged; the message names the file.
    """
    name = f"{FOLDER}/{file.name}"
    content, where = objects.read(name), objects.url(name)
    if hashlib.sha256(content).hexdigest()[:16] != file.digest:
        raise StoreError(f"{where}: damaged records (the checksum in its name does not match); {COPY}")
    try:
        table = pyarrow.parquet.ParquetFile(io.BytesIO(content)).read()
        if table["seq"].to_pylist() != list(range(file.first, file.last + 1)):
            raise StoreError(f"{where}: damaged records (not the numbers in its name); {COPY}")
        events = list(zip(table["kind"].to_pylist(), _bodies(table, where), strict=True))
    except (pa.ArrowException, KeyError, TypeError, OSError) as error:
        raise StoreError(f"{where}: damaged records ({error}); {COPY}") from None
    return events, (table.schema.metadata or {}).get(WRITER, b"").decode(errors="replace")


def _encoded(records: Sequence[Record], writer: str) -> bytes:
    bodies = [json.loads(record.text) for record in records]
    shapes = [_shape(body, record.text) for body, record in zip(bodies, records, strict=True)]
    numbers = {shape: i for i, shape in enumerate(dict.fromkeys(shape for shape in shapes if shape))}
    columns = {
        "seq": pa.array([record.seq for record in records], pa.int64()),
        "kind": pa.array([record.kind for record in records], pa.string()),
        "sha256": pa.array([record.sha256 for record in records], pa.string()),
        "shape": pa.array([numbers.get(shape, -1) for shape in shapes], pa.int32()),
        "body": pa.array([None if s else r.text for s, r in zip(shapes, records, strict=True)], pa.string()),
    }
    for shape, i in numbers.items():
        for key, kind in shape:
            values = [body[key] if s == shape else None for body, s in zip(bodies, shapes, strict=True)]
            columns[f"{i}/{key}"] = pa.array(values, TYPES[kind])
    table = pa.table(columns).replace_schema_metadata({WRITER: writer.encode()})
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink, compression="zstd", use_dictionary=["kind"])
    return sink.getvalue()


def _shape(body: dict[str, Any], text: str) -> Shape:
    """Of a flat body that columns give back to the letter; empty for any other."""
    shape = tuple((key, type(value)) for key, value in body.items())
    small = all(abs(value) < 2**63 for value in body.values() if type(value) is int)
    flat = all(kind in TYPES for _, kind in shape) and small
    return shape if flat and json.dumps(body, sort_keys=True) == text else ()


def _bodies(table: pa.Table, where: str) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = [{}] * table.num_rows
    shapes = table["shape"].to_numpy()
    for number in sorted({int(shape) for shape in shapes}):
        rows = (shapes == number).nonzero()[0]
        if number < 0:
            some = table.select(["seq", "kind", "body"]).take(rows).to_pylist()
            found = [body for _, body in decoded([Record(row["seq"], row["kind"], row["body"]) for row in some], where)]
        else:
            keys = [name for name in table.column_names if name.startswith(f"{number}/")]
            columns = [_values(table[key].take(rows)) for key in keys]
            names = [key.partition("/")[2] for key in keys]
            found = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        for row, body in zip(rows.tolist(), found, strict=True):
            out[row] = body
    return out


def _values(column: pa.ChunkedArray) -> list[Any]:
    return list(column.to_pylist() if pa.types.is_string(column.type) else column.to_numpy().tolist())
