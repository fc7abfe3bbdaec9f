"""study.json and space.yaml: what a study is, written once, and checked whenever it is read.

A flipped digit in a seed or a size would change a search without a word, so both files carry a checksum. That of
space.yaml is a comment; the file remains one that `raymix run` takes.
"""

import hashlib
import json
import platform
import re
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from raymix.space import SearchSpace
from raymix.store import Store, StoreError
from raymix.yaml12 import parse_yaml, write_yaml

FORMAT, READS = 2, (1, 2)  # of a study; 2 adds groups of records, Parquet parts and these checksums
VERSIONS = ("raymix", "ray", "torch", "transformers", "numpy", "scipy")
HEADER = "# The search space as resolved. Change it with --set or in a file of your own. sha256 "


def write_identity(store: Store, space: SearchSpace, seed: int) -> None:
    """study.json: its presence makes a study."""
    about = _identity(space, seed)
    store.write_json("study.json", {**about, "sha256": _digest(about)})


def read_identity(store: Store) -> dict[str, Any]:
    """study.json.

    Raises:
        StoreError: missing, damaged, or of a format that this version does not read.
    """
    about = store.read_json("study.json")
    if not isinstance(about, dict):
        raise StoreError(f"{store.url('study.json')}: damaged (not an object); restore it from a copy")
    if about.get("format") not in READS:
        raise StoreError(f"{store.where}: written in format {about.get('format')}, this raymix reads {READS}")
    expected = about.pop("sha256", None)
    if expected != _digest(about) and not (expected is None and about["format"] == 1):
        raise StoreError(f"{store.url('study.json')}: damaged (its checksum does not match); restore it from a copy")
    return about


def upgrade(store: Store, space: SearchSpace, about: dict[str, Any]) -> None:
    """A study of an earlier format as one of this, before anything is recorded that the earlier could not read."""
    about = {**about, "format": FORMAT}
    write_space(store, space)
    store.write_json("study.json", {**about, "sha256": _digest(about)})


def write_space(store: Store, space: SearchSpace) -> None:
    """space.yaml; what differs from the last one is budget, objective or constraints."""
    text = write_yaml(space.plain()).encode()
    store.write("space.yaml", f"{HEADER}{hashlib.sha256(text).hexdigest()}\n".encode() + text)


def read_space(store: Store, about: dict[str, Any]) -> SearchSpace:
    """space.yaml, with files named relative to where the study was begun, or to here where that is not to be seen.

    Raises:
        StoreError: missing or damaged.
    """
    where = store.url("space.yaml")
    try:
        head, _, text = store.read("space.yaml").partition(b"\n")
    except FileNotFoundError:
        raise StoreError(f"{where}: missing; restore it from a copy") from None
    expected = f"{HEADER}{hashlib.sha256(text).hexdigest()}".encode()
    if about["format"] > 1 and head != expected:
        raise StoreError(f"{where}: not as written: undo the edit (changes go in --set), or restore it from a copy")
    folder = Path(about["folder"])
    raw = parse_yaml(text.decode(errors="replace"), where)
    if not isinstance(raw, dict):
        raise StoreError(f"{where}: damaged (not a mapping); restore it from a copy")
    return SearchSpace.parse(raw, folder=folder if folder.is_dir() else Path.cwd())


def _digest(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _identity(space: SearchSpace, seed: int) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "format": FORMAT,
        "name": space.name,
        "seed": seed,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "space_hash": space.hash(),
        "folder": str(space.folder),
        "versions": versions,
    }


def folder_name(name: str) -> str:
    """A name as that of one folder: itself where it can be, else what is ASCII of it and a hash."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")
    return name if slug == name else f"{slug[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
