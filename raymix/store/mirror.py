"""Folders of a study in an object store: checkpoints, where every machine finds them.

Files are copied as they are, in pieces: a checkpoint of billions of parameters does not pass through memory. A copy is
not atomic, so what is in such a folder must say itself whether it is whole (a checkpoint's state holds its hashes).
"""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pyarrow.fs import FileSelector, FileType

from raymix.store.objects import RemoteObjects
from raymix.store.retries import retried

T = TypeVar("T")
PIECE = 2**23  # bytes read at a time


class Mirror:
    """The folders below `name` in an object store. All methods raise OSError once the retries are used up."""

    def __init__(self, objects: RemoteObjects, name: str) -> None:
        self.objects = objects
        self.name = name
        self._fs, self._root = objects.below(name)

    def of(self, name: str) -> "Mirror":
        """The folders one level down."""
        return Mirror(self.objects, f"{self.name}/{name}")

    def names(self) -> list[str]:
        """Folders that are there, sorted."""
        selector = FileSelector(self._root, allow_not_found=True)
        found = self._tried(lambda: self._fs.get_file_info(selector))
        return sorted(info.base_name for info in found if info.type == FileType.Directory)

    def put(self, folder: Path) -> None:
        """Copy a local folder here, under its own name; files directly in it."""
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            self._tried(partial(self._upload, path, f"{self._root}/{folder.name}/{path.name}"))

    def get(self, name: str, folder: Path) -> None:
        """Copy the files directly in a folder from here into a local one, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        selector = FileSelector(f"{self._root}/{name}")
        for info in self._tried(lambda: self._fs.get_file_info(selector)):
            if info.type == FileType.File:
                self._tried(partial(self._download, info.path, folder / info.base_name))

    def drop(self, name: str) -> None:
        """The folder is gone afterwards, also if it was before."""
        try:
            self._tried(lambda: self._fs.delete_dir(f"{self._root}/{name}"))
        except FileNotFoundError:
            return

    def _upload(self, path: Path, target: str) -> None:
        # Not pyarrow's copy_files: it drops the error of an upload that fails at its end.
        with path.open("rb") as source, self._fs.open_output_stream(target) as sink:
            shutil.copyfileobj(source, sink, PIECE)

    def _download(self, source: str, path: Path) -> None:
        with self._fs.open_input_stream(source) as stream, path.open("wb") as sink:
            shutil.copyfileobj(stream, sink, PIECE)

    def _tried(self, action: Callable[[], T]) -> T:
        return retried(action, self.objects.url(self.name))

    def __reduce__(self) -> tuple[Any, ...]:
        return Mirror, (self.objects, self.name)
