"""Bytes by name: whole or not at all, durable when `write` returns. On a disk, or on any store of pyarrow.fs.

Two implementations of six methods, so that everything above has one code path. A disk gets temporary file, fsync,
rename and fsync of the folder. An object store shows an object only once its upload is complete, and what it shows
it shows to everybody from then on (S3 and Google Cloud Storage promise that for reads and for listings).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from raymix.store.errors import NoStudyError, StoreError, unreadable, unwritable
from raymix.store.retries import retried

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

T = TypeVar("T")
COLLAPSED = re.compile(r"(s3|gs|gcs|abfss?|hdfs|file):/[^/]")
OPTIONS = {
    "s3": "allow_delayed_open=true",  # a small object in one PUT instead of a multipart upload
    "gs": "retry_limit_seconds=10",  # instead of 15 minutes: `retried` comes back
    "gcs": "retry_limit_seconds=10",
}
PLACES = "a study is a directory, or lives in an object store: s3://bucket/name, gs://..., abfs://..."
SECRET_KEYS = ("access_key", "secret_key", "session_token", "access_token")


class Objects(Protocol):
    """Bytes by relative name, with `/` between folders."""

    where: str
    """The place as a person would write it, without secrets."""

    def read(self, name: str) -> bytes:
        """All of it. Raises FileNotFoundError, or StoreError after the retries."""

    def write(self, name: str, content: bytes) -> None:
        """Whole, durable, over whatever had the name. Raises StoreError: the place, the cause, what to do."""

    def names(self, folder: str) -> list[str]:
        """Names directly in a folder, sorted; none where there is no such folder."""

    def delete(self, name: str) -> None:
        """Gone afterwards, also if it was before."""

    def rename(self, name: str, new: str) -> None:
        """The same bytes under another name."""

    def url(self, name: str) -> str:
        """How to name it to a person."""


def open_objects(where: str | Path) -> Objects:
    """A directory, or the address of a store that pyarrow.fs knows.

    Raises:
        StoreError: the address cannot be understood.
    """
    text = str(where)
    if not text:
        raise NoStudyError("the study has no name: give a directory, or an address such as s3://bucket/name")
    if COLLAPSED.match(text):
        raise NoStudyError(f"{text}: a slash is missing; a Path loses one of an address, so give it as text")
    if text.startswith("file://"):
        host, slash, path = text.removeprefix("file://").partition("/")
        if not slash or host not in ("", "localhost"):
            raise NoStudyError(f"{text}: write file:///the/whole/path, or the path alone")
        return LocalObjects(Path(unquote(f"/{path}")))
    return RemoteObjects(text) if "://" in text else LocalObjects(Path(where))


class LocalObjects:
    """Files below a directory; see `Objects`.

    Raises:
        NoStudyError: there is a file in its place.
    """

    def __init__(self, path: Path) -> None:
        if os.path.isfile(path):
            raise NoStudyError(f"{path}: this is a file; a study is a directory")
        self.path = path
        self.where = str(path)

    def read(self, name: str) -> bytes:
        try:
            return retried((self.path / name).read_bytes, self.url(name))
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(self.url(name)) from None
        except OSError as error:
            raise unreadable(self.url(name), error) from error

    def write(self, name: str, content: bytes) -> None:
        target = self.path / name
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            retried(lambda: _replace(target, part, content), self.url(name))
        except OSError as error:
            raise unwritable(self.url(name), error) from error

    def names(self, folder: str) -> list[str]:
        try:
            found = retried(lambda: os.listdir(self.path / folder), self.url(folder))
            return sorted(name for name in found if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise unreadable(self.url(folder), error) from error

    def delete(self, name: str) -> None:
        try:
            retried(lambda: (self.path / name).unlink(missing_ok=True), self.url(name))
        except OSError as error:
            raise unwritable(self.url(name), error) from error

    def rename(self, name: str, new: str) -> None:
        try:
            os.replace(self.path / name, self.path / new)
        except OSError as error:
            raise unwritable(self.url(new), error) from error

    def url(self, name: str) -> str:
        return str(self.path / name)

    def sweep(self, folder: str) -> None:
        """Remove what a writer left behind that died before its rename. For who holds the study."""
        for part in (self.path / folder).glob(".*.part"):
            part.unlink(missing_ok=True)


class RemoteObjects:
    """Objects below a prefix of a bucket; see `Objects`.

    Raises:
        StoreError: the address is none, or out of reach.
    """

    def __init__(self, address: str) -> None:
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem

        self.address = address
        self.where = without_secrets(address)
        parts = urlsplit(address)
        if "#" in address:
            raise NoStudyError(f"{self.where}: what follows # would be lost: write %23 for #")
        if "//" in parts.path:
            raise NoStudyError(f"{self.where}: an empty part between two slashes, which a store does not take")
        opened = _with_options(address)
        try:
            self._fs, path = FileSystem.from_uri(opened)
        except ValueError as error:  # also Arrow's: it cannot be read as an address
            why = str(error).replace(opened, self.where)
            raise NoStudyError(f"{self.where}: this address cannot be opened: {why}; {PLACES}") from None
        except (ArrowException, OSError) as error:
            raise StoreError(f"{self.where}: this address cannot be opened: {error}") from None
        self._root = path.rstrip("/")

    def read(self, name: str) -> bytes:
        return self._tried(lambda: self._read(name), name, unreadable)

    def write(self, name: str, content: bytes) -> None:
        self._tried(lambda: self._write(name, content), name, unwritable)

    def names(self, folder: str) -> list[str]:
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(f"{self._root}/{folder}".rstrip("/"), allow_not_found=True)
        found = self._tried(lambda: self._fs.get_file_info(selector), folder, unreadable)
        return sorted(info.base_name for info in found if info.type == FileType.File)

    def delete(self, name: str) -> None:
        try:
            self._tried(lambda: self._fs.delete_file(f"{self._root}/{name}"), name, unwritable)
        except FileNotFoundError:
            return

    def rename(self, name: str, new: str) -> None:
        self.write(new, self.read(name))
        self.delete(name)

    def url(self, name: str) -> str:
        parts = urlsplit(self.where)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}", query=""))

    def below(self, name: str) -> tuple[FileSystem, str]:
        """pyarrow's file system and the path of a name in it, for what is too large to be bytes in memory."""
        return self._fs, f"{self._root}/{name}"

    def _read(self, name: str) -> bytes:
        with self._fs.open_input_stream(f"{self._root}/{name}") as stream:
            return bytes(stream.read())

    def _write(self, name: str, content: bytes) -> None:
        with self._fs.open_output_stream(f"{self._root}/{name}") as stream:
            stream.write(content)

    def _tried(self, action: Callable[[], T], name: str, failed: Callable[[str, OSError], StoreError]) -> T:
        try:
            return retried(action, self.url(name))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise failed(self.url(name), error) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteObjects, (self.address,)


def without_secrets(address: str) -> str:
    """The address without user, password, or a key in its query."""
    parts = urlsplit(address)
    query = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key not in SECRET_KEYS]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=urlencode(query, safe="/:")))


def _with_options(address: str) -> str:
    """The address with what we want of pyarrow's clients, where it says nothing itself."""
    parts = urlsplit(address)
    name, _, value = OPTIONS.get(parts.scheme, "").partition("=")
    if not name or name in parts.query:
        return address
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, f"{name}={value}")))))


def _replace(target: Path, part: Path, content: bytes) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
        _sync_folder(target.parent)
    except OSError:
        with suppress(OSError):  # a read-only folder, or none: then there is nothing of ours in it
            part.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
