"""The study directory: immutable, numbered, checksummed records, one writer, everything else derived.

    DIR/space.yaml           the space as resolved
    DIR/study.json           seed, versions, hashes, when it began
    DIR/records/00000001.json ...   every event, in order; the truth
    DIR/observations.parquet, law.json, recommendation.json, report.html   derived, may be deleted

A record is written to a temporary name, fsynced, and renamed before anybody is told of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class StoreError(ValueError):
    """A study directory that is missing, damaged, in use, or of another study."""


class Store:
    """The records of one study directory. `append` may be used only while `locked()` is held."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._next = 1

    @property
    def exists(self) -> bool:
        """Whether a study was begun here."""
        return (self.path / "study.json").is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the study; the kernel frees it when the holder dies.

        Raises:
            StoreError: somebody else holds it; the message names host, process and start.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(handle, 500).decode(errors="replace") or "another process"
                raise StoreError(f"{self.path}: this study is being run by {holder}; wait for it or stop it") from None
            os.ftruncate(handle, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode(), 0)
            yield
        finally:
            os.close(handle)

    def append(self, kind: str, body: dict[str, Any]) -> None:
        """Make one event durable; returns when it is on disk.

        Raises:
            StoreError: it could not be written (disk full, permissions); the message names the path and why.
        """
        text = json.dumps(body, sort_keys=True, allow_nan=False)
        line = (
            f'{{"seq": {self._next}, "kind": "{kind}", "sha256": "{_digest(self._next, kind, text)}", "body": {text}}}'
        )
        self.write(f"records/{self._next:08d}.json", line.encode())
        self._next += 1

    def records(self) -> list[tuple[str, dict[str, Any]]]:
        """All events (kind, body) in order.

        A damaged last record is set aside with a warning: it was never acknowledged, or its loss is one trial.

        Raises:
            StoreError: a record other than the last is missing or damaged; the message names the file.
        """
        folder = self.path / "records"
        files = sorted(folder.glob("[0-9]*.json")) if folder.is_dir() else []
        for position, file in enumerate(files, start=1):
            if int(file.stem) != position:
                raise StoreError(f"{folder}: record {position:08d}.json is missing; restore it from a copy")
        out: list[tuple[str, dict[str, Any]]] = []
        for position, file in enumerate(files, start=1):
            try:
                out.append(_parse(file, position))
            except StoreError as error:
                if position < len(files):
                    raise
                log.warning("%s; it is the last record: set aside as %s.damaged", error, file.name)
                file.rename(file.with_name(file.name + ".damaged"))
        self._next = len(out) + 1
        return out

    def write(self, name: str, content: bytes) -> None:
        """A file of the study, whole or not at all.

        Raises:
            StoreError: it could not be written.
        """
        target = self.path / name
        part = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
            _sync_folder(target.parent)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise StoreError(
                f"{target}: cannot be written: {error.strerror}; nothing recorded so far is lost"
            ) from error

    def write_json(self, name: str, value: Any) -> None:
        """A JSON file without NaN, keys in the order given."""
        self.write(name, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """A JSON file of the study.

        Raises:
            StoreError: it is missing or not JSON.
        """
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            raise StoreError(f"{self.path}: no study here ({name} is missing); start one with raymix run") from None
        except ValueError as error:
            raise StoreError(f"{self.path / name}: damaged ({error})") from None


def _digest(seq: int, kind: str, text: str) -> str:
    return hashlib.sha256(f"{seq} {kind} {text}".encode()).hexdigest()


def _parse(file: Path, position: int) -> tuple[str, dict[str, Any]]:
    try:
        record = json.loads(file.read_text())
        kind, body = str(record["kind"]), record["body"]
        intact = record["seq"] == position and record["sha256"] == _digest(
            position, kind, json.dumps(body, sort_keys=True, allow_nan=False)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file}: damaged record ({error}); restore it from a copy") from None
    if not intact:
        raise StoreError(f"{file}: damaged record (its checksum does not match); restore it from a copy")
    return kind, body


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
