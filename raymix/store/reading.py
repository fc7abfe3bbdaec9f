"""All records of a study from its files, while a driver may be writing and compacting them."""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from raymix.store.compact import read_part
from raymix.store.errors import StoreError
from raymix.store.log import FOLDER, Event, File, Record, arranged, parquet_parts, parsed
from raymix.store.objects import Objects

log = logging.getLogger(__name__)
S = TypeVar("S")
T = TypeVar("T")

READERS = 16  # at a time: an object store answers one request in tens of milliseconds
LOOKS = 20  # at a folder that changes while we read it


@dataclass
class Log:
    """What was read: records in parts, those after them, and the files of the latter."""

    compacted: list[Event] = field(default_factory=list)
    tail: list[Record] = field(default_factory=list)
    loose: list[File] = field(default_factory=list)
    done: int = 0
    """How many records the parts hold."""
    writer: str = ""
    """The last driver's; empty on a disk."""
    names: list[str] = field(default_factory=list)
    """The listing it was read from."""


def read_log(objects: Objects, held: bool) -> Log:
    """The log as it is. With `held` we are the one driver, and a damaged last record is set aside.

    Raises:
        StoreError: a record other than the last is missing or damaged; the message names the file.
    """
    names = objects.names(FOLDER)
    for _ in range(LOOKS):
        try:
            return _read(objects, names, held)
        except (FileNotFoundError, StoreError) as error:
            again = objects.names(FOLDER)
            if again == names:  # nobody moved anything: what we saw is how it is
                raise StoreError(str(error)) from None
            names = again
    raise StoreError(f"{objects.url(FOLDER)}: changes faster than it can be read; try again")


def _read(objects: Objects, names: list[str], held: bool) -> Log:
    parts = parquet_parts(names)
    read = dict(zip(parts, _together(lambda part: read_part(objects, part), parts), strict=True))
    written = {replace(part, writer=writer): events for part, (events, writer) in read.items()}
    files = arranged(names, list(written), objects.url(FOLDER))
    found = Log(writer=files[-1].writer if files else "", names=names)
    for file in files:
        if file.digest:
            found.compacted += written[file][len(found.compacted) - file.first + 1 :]
    found.done = len(found.compacted)
    loose = [file for file in files if not file.digest]
    for file, content in zip(loose, _together(lambda f: objects.read(f"{FOLDER}/{f.name}"), loose), strict=True):
        try:
            found.tail += parsed(content, file, objects.url(f"{FOLDER}/{file.name}"))
            found.loose.append(file)
        except StoreError as error:
            if file is not loose[-1]:
                raise
            _leave_out(objects, file, error, held)
            found.names = [name for name in names if name != file.name]
    return found


def _together(read: Callable[[S], T], files: Sequence[S]) -> Iterable[T]:
    if len(files) < 2:
        return map(read, files)
    with ThreadPoolExecutor(min(READERS, len(files))) as pool:
        return list(pool.map(read, files))


def _leave_out(objects: Objects, file: File, error: StoreError, held: bool) -> None:
    """The damaged last record: it was never acknowledged, or its loss is one trial."""
    if not held:
        log.warning("%s; it is the last record and is left out here", error)
        return
    log.warning("%s; it is the last record: set aside as %s.damaged", error, file.name)
    objects.rename(f"{FOLDER}/{file.name}", f"{FOLDER}/{file.name}.damaged")
