"""The tokens on disk: one file per domain and eval domain, and a manifest that says what they must be.

    manifest.json     format version, tokenizer, sources, and per file: sha256, bytes, tokens, documents, domain
    tokenizer.json
    train-<slug>.npy  uint16 or uint32: the tokens of each document, then end of text
    eval-<slug>.npy

A corpus is written to a temporary folder and renamed when complete, so that it is whole or not there.
"""

import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from raymix.space import SpaceError

FORMAT = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"


class CorpusError(SpaceError):
    """A corpus on disk is not what its manifest says."""


@dataclass(frozen=True)
class Corpus:
    """Tokens of every domain and eval domain, memory-mapped when asked for; cheap to send to another process."""

    path: Path
    manifest: dict[str, Any]

    @property
    def hash(self) -> str:
        """Identifies the tokens: sha256 over the hashes of all files."""
        return str(self.manifest["hash"])

    @property
    def parts(self) -> dict[str, str]:
        """sha256 of the tokens of each domain and eval domain."""
        kinds = {"domain": self.manifest["train"], "eval domain": self.manifest["eval"]}
        return {f"{kind} {name!r}": entry["sha256"] for kind, found in kinds.items() for name, entry in found.items()}

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        return int(self.manifest["tokenizer"]["vocab"])

    @property
    def end_of_text(self) -> int:
        """The token that ends a document."""
        return int(self.manifest["tokenizer"]["end_of_text"])

    @cached_property
    def tokens(self) -> dict[str, int]:
        """Training tokens per domain."""
        return {name: int(entry["tokens"]) for name, entry in self.manifest["train"].items()}

    @cached_property
    def copied(self) -> dict[str, float]:
        """Part of each domain's training tokens in documents that stand there before; 0 in corpora that do not say."""
        return {name: entry.get("copied_tokens", 0) / entry["tokens"] for name, entry in self.manifest["train"].items()}

    @cached_property
    def eval_tokens(self) -> dict[str, int]:
        """Held-out tokens per eval domain."""
        return {name: int(entry["tokens"]) for name, entry in self.manifest["eval"].items()}

    @cached_property
    def bytes_per_token(self) -> dict[str, float]:
        """UTF-8 bytes of text per token of each eval domain: nats per token / ln 2 / this = bits per byte."""
        return {name: entry["text_bytes"] / entry["tokens"] for name, entry in self.manifest["eval"].items()}

    def train(self, domain: str) -> NDArray[Any]:
        """Training tokens (tokens,) of a domain."""
        return self._array(self.manifest["train"][domain])

    def eval(self, eval_domain: str) -> NDArray[Any]:
        """Held-out tokens (tokens,) of an eval domain."""
        return self._array(self.manifest["eval"][eval_domain])

    def _array(self, entry: dict[str, Any]) -> NDArray[Any]:
        found: NDArray[Any] = np.load(self.path / entry["file"], mmap_mode="r", allow_pickle=False)
        return found


def open_corpus(path: str | Path, verify: bool = True) -> Corpus:
    """The corpus at `path`, after a check of its files: sizes always, contents if `verify`.

    Raises:
        CorpusError: the manifest or a file is missing or damaged; the message names it, with expected and found.
    """
    path = Path(path)
    manifest = _read_manifest(path / MANIFEST)
    for entry in _entries(manifest):
        _check_file(path / entry["file"], entry, verify)
    return Corpus(path, manifest)


def file_name(kind: str, name: str) -> str:
    """A path-safe file name: what is ASCII of the name, and a hash that keeps any two names apart."""
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", ascii_only).strip("-").lower()[:40]
    return "-".join(filter(None, (kind, slug, hashlib.sha256(name.encode()).hexdigest()[:8]))) + ".npy"


def write_tokens(path: Path, pieces: Iterator[NDArray[Any]], n_tokens: int, dtype: Any) -> dict[str, Any]:
    """Write token arrays one after the other; returns the file's entry for the manifest, without its names."""
    with path.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (n_tokens,)}
        np.lib.format.write_array_header_1_0(stream, header)
        written = 0
        for piece in pieces:
            stream.write(piece.tobytes())
            written += len(piece)
        assert written == n_tokens, f"{path}: {written} tokens came, {n_tokens} were announced"
    sync(path)
    return {"file": path.name, "tokens": n_tokens, "bytes": path.stat().st_size, "sha256": file_hash(path)}


def write_manifest(folder: Path, manifest: dict[str, Any], definition: str) -> None:
    """Write tokenizer and manifest, the last things a corpus needs; fills in its hash."""
    write_text(folder / TOKENIZER, definition)
    tokenizer = folder / TOKENIZER
    manifest["tokenizer"] |= {"file": TOKENIZER, "bytes": tokenizer.stat().st_size, "sha256": file_hash(tokenizer)}
    contents = [(entry["file"], entry["sha256"]) for entry in _entries(manifest)]
    manifest |= {"format": FORMAT, "hash": hashlib.sha256(json.dumps(contents).encode()).hexdigest()}
    signed = {**manifest, "sha256": signature(manifest)}
    write_text(folder / MANIFEST, json.dumps(signed, indent=1, sort_keys=True, allow_nan=False) + "\n")


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final` that becomes it at the end of the block; whoever comes first wins."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.parent / f".{final.name[:16]}.{uuid4().hex[:8]}.tmp"
    temporary.mkdir()
    try:
        yield temporary
        sync(temporary)
        if final.exists() and not (final / MANIFEST).exists():
            shutil.rmtree(final)  # the remains of something that was not a corpus
        try:
            temporary.rename(final)
        except OSError:
            if not (final / MANIFEST).exists():
                raise
        else:
            sync(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def writing_to(cache: Path) -> Iterator[None]:
    """Name the place where writing fails, which the system does not where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(
            f"{cache}: {error}; free some space there, or set RAYMIX_CACHE, and run the same command again: "
            "what is done is kept"
        ) from error


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write and bring to disk."""
    path.write_bytes(text.encode())
    sync(path)


def signature(plain: dict[str, Any]) -> str:
    """sha256 of plain data."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, allow_nan=False).encode()).hexdigest()


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        expected, found = manifest.pop("sha256"), signature(manifest)
    except FileNotFoundError:
        raise CorpusError(f"{path}: there is no manifest; prepare the corpus again") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{path}: cannot be read ({error}); {_AGAIN}") from None
    if found != expected:
        raise CorpusError(f"{path}: sha256 {expected} expected, {found} found; {_AGAIN}")
    if manifest.get("format") != FORMAT:
        raise CorpusError(f"{path}: format {manifest.get('format')}, this version reads {FORMAT}; {_AGAIN}")
    return manifest


_AGAIN = "delete the folder and prepare the corpus again"


def _entries(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [manifest["tokenizer"], *manifest["train"].values(), *manifest["eval"].values()]


def _check_file(path: Path, entry: dict[str, Any], verify: bool) -> None:
    if path.parent.resolve() != path.resolve().parent or Path(entry["file"]).name != entry["file"]:
        raise CorpusError(f"{path}: lies outside its corpus; {_AGAIN}")
    if not path.is_file():
        raise CorpusError(f"{path}: the file is missing; {_AGAIN}")
    if path.stat().st_size != entry["bytes"]:
        raise CorpusError(f"{path}: {entry['bytes']} bytes expected, {path.stat().st_size} found; {_AGAIN}")
    if verify and (found := file_hash(path)) != entry["sha256"]:
        raise CorpusError(f"{path}: sha256 {entry['sha256']} expected, {found} found; {_AGAIN}")
