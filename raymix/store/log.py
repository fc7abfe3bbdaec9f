"""The order of events: which files hold which records, and that every byte of them is what was written.

A record is one line, `{"seq": 7, "kind": "row", "sha256": "...", "body": {...}}`; the checksum covers number, kind and
body. A file of records is named by its numbers and, on an object store, by its writer: `00000007.json` holds one,
`00000007-00000014.json` a group made durable together, `00000007.000002-5f3a9c1e.json` is of the second driver. Where
two drivers wrote the same number, the later driver's record counts: it took over before the other was acknowledged.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from raymix.store.errors import StoreError

FOLDER = "records"
NAME = re.compile(r"(\d{8})(?:-(\d{8}))?(?:\.(\d{6}-[0-9a-f]{8}))?\.json")
PART = re.compile(r"(\d{8})-(\d{8})\.([0-9a-f]{16})\.parquet")
LINE = re.compile(rb'\{"seq": (\d+), "kind": "(\w+)", "sha256": "([0-9a-f]{64})", "body": (\{.*\})\}')
DECODED = 1024  # records at a time: one call of the JSON reader keeps one copy of each key
COPY = "restore it from a copy"


Event = tuple[str, dict[str, Any]]  # kind and body


class Record(NamedTuple):
    """One event; `text` is its body as JSON on one line."""

    seq: int
    kind: str
    text: str

    @classmethod
    def of(cls, seq: int, kind: str, body: dict[str, Any]) -> "Record":
        """Raises ValueError where a number is not finite: JSON has none."""
        return cls(seq, kind, json.dumps(body, sort_keys=True, allow_nan=False))

    @property
    def sha256(self) -> str:
        """Over number, kind and body."""
        return hashlib.sha256(f"{self.seq} {self.kind} {self.text}".encode()).hexdigest()

    def line(self) -> bytes:
        """As written."""
        text = f'{{"seq": {self.seq}, "kind": "{self.kind}", "sha256": "{self.sha256}", "body": {self.text}}}'
        return text.encode()


@dataclass(frozen=True)
class File:
    """A file of records `first` to `last`; `writer` is empty on a disk, `digest` names a Parquet part."""

    name: str
    first: int
    last: int
    writer: str = ""
    digest: str = ""


def file_name(records: Sequence[Record], writer: str) -> str:
    """Of the file that holds these consecutive records."""
    first, last = records[0].seq, records[-1].seq
    return f"{first:08d}{f'-{last:08d}' if last > first else ''}{f'.{writer}' if writer else ''}.json"


def parquet_parts(names: Iterable[str]) -> list[File]:
    """Those of the names; their writers stand inside."""
    return [File(n, int(m[1]), int(m[2]), digest=m[3]) for n in names if (m := PART.fullmatch(n))]


def arranged(names: Iterable[str], parts: Sequence[File], where: str) -> list[File]:
    """The files that make up the log, in order: of the Parquet parts, and of the files of lines among the names.

    Raises:
        StoreError: numbers are missing; the message names the first.
    """
    parts = _chosen(parts)
    done, writer = (parts[-1].last, parts[-1].writer) if parts else (0, "")
    loose = [File(n, int(m[1]), int(m[2] or m[1]), m[3] or "") for n in names if (m := NAME.fullmatch(n))]
    files = parts + _resolved([f for f in loose if f.first > done and f.writer >= writer])
    expected = 1
    for file in files:
        if file.first > expected:
            raise StoreError(f"{where}: record {expected:08d}.json is missing; {COPY}")
        if file.first < expected and not file.digest:
            raise StoreError(f"{where}: {file.name} holds a number that an earlier file holds too; keep one of them")
        expected = file.last + 1
    return files


def _chosen(parts: Sequence[File]) -> list[File]:
    """Parts from the first record on, without those that others cover: the furthest reaching first."""
    out: list[File] = []
    for part in sorted(parts, key=lambda p: (p.first, -p.last)):
        if not out or part.last > out[-1].last:
            out.append(part)
    return out


def _resolved(loose: list[File]) -> list[File]:
    """In order; what an earlier driver wrote from the first number of a later one on was never acknowledged."""
    out: list[File] = []
    for file in sorted(loose, key=lambda f: (f.writer, f.first, f.last)):
        if out and file.writer > out[-1].writer:
            out = [f for f in out if f.first < file.first]
        out.append(file)
    return out


def parsed(content: bytes, file: File, where: str) -> list[Record]:
    """The records of a file of lines.

    Raises:
        StoreError: any byte of them is not as written; the message names file and offset.
    """
    records: list[Record] = []
    offset = 0
    for seq, line in zip(range(file.first, file.last + 1), content.split(b"\n"), strict=False):
        match = LINE.fullmatch(line)
        if not match or int(match[1]) != seq:
            raise StoreError(f"{where}: damaged record at byte {offset}; {COPY}")
        try:
            record = Record(seq, match[2].decode(), match[4].decode())
        except UnicodeDecodeError:
            raise StoreError(f"{where}: damaged record at byte {offset}; {COPY}") from None
        if record.line() != line:
            raise StoreError(f"{where}: damaged record at byte {offset} (its checksum does not match); {COPY}")
        records.append(record)
        offset += len(line) + 1
    if offset != len(content) + 1 or len(records) != file.last - file.first + 1:
        raise StoreError(f"{where}: damaged record at byte {min(offset, len(content))}; {COPY}")
    return records


def decoded(records: Sequence[Record], where: str) -> list[Event]:
    """(kind, body) of each.

    Raises:
        StoreError: a body is not a JSON object of finite numbers.
    """
    out: list[Event] = []
    for start in range(0, len(records), DECODED):
        some = records[start : start + DECODED]
        try:
            bodies = json.loads(f"[{','.join(record.text for record in some)}]", parse_constant=_not_a_number)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{where}: a record from {some[0].seq} on is not JSON ({error}); {COPY}") from None
        if len(bodies) != len(some) or not all(isinstance(body, dict) for body in bodies):
            raise StoreError(f"{where}: a record from {some[0].seq} on holds more than one value; {COPY}")
        out.extend(zip((record.kind for record in some), bodies, strict=True))
    return out


def _not_a_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")
