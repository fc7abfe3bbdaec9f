"""Where files lie and how they are opened: here or behind a URL, plain or packed.

A URL's file system is fsspec's; for s3:// and gs:// pyarrow's own, which comes with it, where fsspec's is not
installed. .gz, .bz2 and .zst are unpacked on the way.
"""

import bz2
import glob
import gzip
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from raymix.space import SpaceError
from raymix.space_parts import several

PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
BUFFER = 1 << 20  # bytes unpacked at a time


class File(NamedTuple):
    """A file's full name or URL, its size in bytes, and what changes when it does."""

    path: str
    size: int
    stamp: str


def matching(patterns: str | tuple[str, ...], folder: Path) -> list[File]:
    """The files of the names, globs and URLs, sorted, each once: also where links lead to it by several names.

    Raises:
        SpaceError: one of them matches nothing, or its place cannot be reached.
    """
    found: set[File] = set()
    for pattern in several(patterns):
        found.update(_remote(pattern) if "://" in pattern else _local(pattern, folder))
    real = cache(os.path.realpath)  # it looks at every name on the way, so what it says of a folder is kept

    def place(path: str) -> str:
        if "://" in path:
            return path
        return real(path) if os.path.islink(path) else os.path.join(real(os.path.dirname(path)), os.path.basename(path))

    return sorted({place(file.path): file for file in sorted(found, reverse=True)}.values())


def bare(path: str) -> str:
    """A name or URL without the options of its URL."""
    return path.removesuffix(_query(path)) if "://" in path else path


def packing(path: str) -> str | None:
    """How a file is packed, by its name."""
    return next((how for ending, how in PACKED.items() if bare(path).endswith(ending)), None)


def _local(pattern: str, folder: Path) -> list[File]:
    full = str(folder / pattern)
    matches = [full] if Path(full).is_file() else glob.glob(full, recursive=True)
    files = [Path(match) for match in matches if Path(match).is_file()]
    if not files:
        raise SpaceError(f"files {pattern!r}: no file matches (looked for {full}); correct the path or the glob")
    return [on_disk(path) for path in files]


def on_disk(path: Path) -> File:
    """A file of this machine."""
    return File(str(path), path.stat().st_size, str(path.stat().st_mtime_ns))


def _remote(pattern: str) -> list[File]:
    system, path = _system(pattern)
    with named(pattern):
        found = system.glob(path, detail=True)
    files = [info for info in found.values() if info["type"] == "file"]
    if not files:
        raise SpaceError(f"files {pattern!r}: no file matches; correct the URL or the glob")
    return [File(_url(info["name"], pattern), int(info["size"] or 0), _stamp(info)) for info in files]


def _url(name: str, pattern: str) -> str:
    """The URL of a file that a pattern found."""
    return name if "://" in name else f"{pattern.partition('://')[0]}://{name}{_query(pattern)}"


def _stamp(info: dict[str, Any]) -> str:
    """What the store says of a file, hashed: it changes when the file does."""
    return hashlib.sha256(repr(sorted((key, str(value)) for key, value in info.items())).encode()).hexdigest()[:16]


def _query(url: str) -> str:
    """Options of an s3:// or gs:// URL (?endpoint_override=...&scheme=http), which each of its files needs again."""
    mark, query = url.partition("?")[1:]
    return mark + query if "=" in query else ""


@lru_cache(maxsize=64)
def _opener(url: str) -> tuple[Any, str]:
    import fsspec

    scheme = url.partition("://")[0]
    if scheme in ("s3", "gs", "gcs") and (_query(url) or not _installed("s3fs" if scheme == "s3" else "gcsfs")):
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow.fs import FileSystem

        system, path = FileSystem.from_uri(url.replace("gcs://", "gs://"))
        return ArrowFSWrapper(system), path
    system, path = fsspec.core.url_to_fs(url)
    return system, path


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL and the name there."""
    try:
        return _opener(url)
    except (ImportError, ValueError, OSError) as error:
        raise SpaceError(f"{url}: its file system cannot be opened ({in_short(error)})") from None


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


@contextmanager
def named(path: str) -> Iterator[None]:
    """Errors of reading a file, as one sentence with its name."""
    import pyarrow

    try:
        yield
    except SpaceError:
        raise
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise SpaceError(f"{path}: not readable as UTF-8 text ({error}); convert it or take it out of files") from None
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise SpaceError(f"{path}: cannot be read ({in_short(error)}); check the file and your access") from None
    except Exception as error:
        if "://" not in path:
            raise
        raise SpaceError(  # each store has errors of its own
            f"{path}: cannot be reached ({in_short(error)}); check the network and your access (HF_TOKEN where gated)"
        ) from None


def in_short(error: Exception) -> str:
    """What an error says, on one line and without a stop."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


@contextmanager
def open_file(path: str) -> Iterator[IO[bytes]]:
    """The file as bytes, unpacked."""
    system, name = _system(path) if "://" in path else (None, path)
    with system.open(name, "rb") if system is not None else open(name, "rb") as raw:
        yield _unpacked(raw, packing(path))


def _unpacked(raw: IO[bytes], packed: str | None) -> IO[bytes]:
    if packed is None:
        return raw
    if packed == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if packed == "bz2":
        return bz2.BZ2File(raw)
    import pyarrow

    stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), packed)
    return io.BufferedReader(cast(Any, stream), BUFFER)
