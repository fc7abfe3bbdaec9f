"""`Store`: the records and files of one study, wherever it lives. `append` is the one way to change what is known."""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymix.store.compact import forget_compacted, merge_parts, write_part
from raymix.store.errors import InUseError, NoStudyError, StoreError, unwritable
from raymix.store.lease import Lease, file_lock, turn
from raymix.store.log import COPY, FOLDER, Event, File, Record, decoded, file_name
from raymix.store.objects import LocalObjects, RemoteObjects, open_objects
from raymix.store.reading import Log, read_log

if TYPE_CHECKING:
    from raymix.store.mirror import Mirror

log = logging.getLogger(__name__)

COMPACT_AT = 512  # files of records after which they become one Parquet file
POLL = 0.01  # seconds between two looks at a study that somebody holds for a moment
SAID_AFTER = 5.0  # seconds of waiting after which it is said for whom
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # some network file systems


class Store:
    """The storage of one study. `append` may be used only while `locked()` is held, and after `records()`."""

    def __init__(self, where: str | Path) -> None:
        self.objects = open_objects(where)
        self._address = where
        self.held = False
        """Whether this process holds the study (`locked`)."""
        self._lease: Lease | None = None
        self._writer = ""
        self._log: Log | None = None
        self._compact_at = COMPACT_AT

    @property
    def where(self) -> str:
        """The study as a person names it: a directory or an address, without secrets."""
        return self.objects.where

    @property
    def is_local(self) -> bool:
        """Whether the study is a directory."""
        return isinstance(self.objects, LocalObjects)

    @property
    def path(self) -> Path:
        """The directory.

        Raises:
            StoreError: the study is in an object store.
        """
        if not isinstance(self.objects, LocalObjects):
            raise StoreError(f"{self.where}: this needs a study in a directory")
        return self.objects.path

    def mirror(self, name: str) -> Mirror | None:
        """Folders of the study that every machine sees; None for a directory, which is one itself."""
        if not isinstance(self.objects, RemoteObjects):
            return None
        from raymix.store.mirror import Mirror

        return Mirror(self.objects, name)

    @property
    def exists(self) -> bool:
        """Whether a study was begun here.

        Raises:
            StoreError: there are records but not what they belong to; a new study would hide them.
        """
        if self.has("study.json"):
            return True
        if self.objects.names(FOLDER):
            raise StoreError(f"{self.url('study.json')}: missing, though there are records; {COPY}")
        return False

    def url(self, name: str) -> str:
        """A file of the study as a person names it."""
        return self.objects.url(name)

    @contextmanager
    def locked(self, wait: float = 0.0) -> Iterator[None]:
        """Hold the study: on a disk the kernel frees it when the holder dies, elsewhere it can be taken over.

        Args:
            wait: seconds to wait for somebody who may hold it for a moment only, as ask and tell do.

        Raises:
            InUseError: somebody else holds it; the message names host, process and start.
        """
        with ExitStack() as stack:
            self._take_within(stack, wait)
            self.held = True
            try:
                yield
            finally:
                self.held, self._lease = False, None

    def append(self, kind: str, body: dict[str, Any]) -> None:
        """Make one event durable; returns when it is. See `append_all`."""
        self.append_all([(kind, body)])

    def append_all(self, events: Sequence[Event]) -> None:
        """Make events durable together, all or none; returns when they are and the study is still ours.

        Raises:
            StoreError: they could not be written (disk full, permissions, another driver); the message says why.
        """
        if not events:
            return
        known = self._known()
        first = known.done + len(known.tail) + 1
        records = [Record.of(first + i, kind, body) for i, (kind, body) in enumerate(events)]
        file = File(file_name(records, self._writer), first, records[-1].seq, self._writer)
        self._log = None  # if the next lines fail, the object may have arrived all the same: then look again
        self.objects.write(f"{FOLDER}/{file.name}", b"\n".join(record.line() for record in records))
        if self._lease is not None:
            self._lease.check()
        known.tail += records
        known.loose.append(file)
        known.names.append(file.name)
        self._log = known
        if self.held and len(known.loose) >= self._compact_at:
            self._compact(known)

    def records(self) -> list[Event]:
        """All events (kind, body) in order.

        A damaged last record is left out with a warning, and set aside by who holds the study: it was never
        acknowledged, or its loss is one trial.

        Raises:
            StoreError: a record other than the last is missing or damaged; the message names the file.
        """
        self._log = known = read_log(self.objects, self.held)
        if not self._lease:  # a disk that was copied from an object store goes on under its last driver's name
            self._writer = known.writer
        out = known.compacted + decoded(known.tail, self.url(FOLDER))
        known.compacted = []
        if self.held and len(known.loose) >= self._compact_at:
            self._compact(known)
        return out

    def changed(self) -> bool:
        """Whether somebody else recorded anything since we read or wrote the records last."""
        return self._log is None or sorted(self._log.names) != self.objects.names(FOLDER)

    def read(self, name: str) -> bytes:
        """A file of the study. Raises FileNotFoundError, or StoreError where it is out of reach."""
        return self.objects.read(name)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        folder, _, base = name.rpartition("/")
        return base in self.objects.names(folder)

    def write(self, name: str, content: bytes) -> None:
        """A file of the study, whole or not at all.

        Raises:
            StoreError: it could not be written.
        """
        self.objects.write(name, content)

    def write_json(self, name: str, value: Any) -> None:
        """A JSON file without NaN, keys in the order given."""
        self.write(name, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """A JSON file of the study.

        Raises:
            StoreError: it is missing (NoStudyError), out of reach or not JSON.
        """
        try:
            return json.loads(self.read(name))
        except FileNotFoundError:
            raise NoStudyError(
                f"{self.where}: no study here ({name} is missing); start one with raymix run, "
                "or with a trainer of your own: raymix ask DIR --space SPACE.yaml"
            ) from None
        except StoreError:
            raise  # another user's file, or credentials that expired: nothing is damaged
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self.url(name)}: damaged ({error}); {COPY}") from None

    def __getstate__(self) -> dict[str, Any]:
        """A copy (Tune pickles its searcher) knows the place alone: the lock stays here."""
        return {"where": self._address}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["where"])  # type: ignore[misc]

    def _take_within(self, stack: ExitStack, wait: float) -> None:
        began, said, queued = time.monotonic(), False, not (wait and self.is_local)
        with ExitStack() as place:
            while True:
                try:
                    if not queued:
                        place.enter_context(turn(self.path))
                        queued = True
                    return self._take(stack)
                except InUseError as error:
                    waited = time.monotonic() - began
                    if waited >= wait:
                        raise
                    if waited >= SAID_AFTER and not said:
                        log.warning("%s; waiting up to %.0f s", str(error).partition(";")[0], wait)
                        said = queued = True  # from here without a turn: who has it may be a process that was stopped
                time.sleep(POLL)

    def _take(self, stack: ExitStack) -> None:
        if isinstance(self.objects, LocalObjects):
            try:
                stack.enter_context(file_lock(self.objects.path))
                return self.objects.sweep(FOLDER)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise unwritable(self.url("lock"), error) from error
        lease = Lease(self.objects)
        self._writer = lease.acquire()
        stack.callback(lease.release)
        self._lease = lease

    def _known(self) -> Log:
        if self._log is None:
            self.records()
        assert self._log is not None
        return self._log

    def _compact(self, known: Log) -> None:
        """Loose records into one part. Where that fails it is tried again later: the records themselves are safe."""
        self._compact_at = len(known.loose) + COMPACT_AT
        try:
            write_part(self.objects, known.tail, self._writer)
            forget_compacted(self.objects, known.tail[-1].seq)
            merge_parts(self.objects, self._writer)
            known.names = self.objects.names(FOLDER)
        except StoreError as error:
            log.warning("%s; older records stay uncompacted for now", error)
            self._log = None
            return
        known.done += len(known.tail)
        known.tail, known.loose = [], []
        self._compact_at = COMPACT_AT
