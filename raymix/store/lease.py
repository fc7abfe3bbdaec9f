"""One driver per study: a lock that the kernel frees on a disk, a lease that can be taken over on an object store.

pyarrow.fs has no conditional put, so the lease needs none. A driver claims the study by writing an object of its own,
`driver/000002-5f3a9c1e.json` (one more than the highest claim, and something random), waits `SETTLE` seconds for who
claims in the same moment, and lists the claims: the highest holds the study, the others are refused. Before it
acknowledges a record it lists them again: a driver that was taken over while it slept finds the higher claim and stops,
and what it wrote in between carries its own claim in its name and does not count (`log.py`). That needs only that a
listing shows what was written before it, and no clock.

Time is needed for one thing, to see that a holder is dead: it rewrites `driver/<claim>.beat`, and who wants the study
waits `PATIENCE` seconds of its own clock for the beat to change. Clocks are never compared.
"""

import fcntl
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from raymix.store.errors import InUseError, StoreError, unwritable
from raymix.store.objects import Objects

log = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds without a beat after which a holder counts as dead
SETTLE = 0.3  # seconds from a claim to the look that decides, in which who had not seen it yet has claimed too
FOLDER = "driver"
CLAIM = re.compile(r"(\d{6})-[0-9a-f]{8}\.json")


def in_use(where: str, holder: str) -> InUseError:
    """What the second driver is told."""
    return InUseError(f"{where}: this study is being run by {holder}; wait for it or stop it")


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a directory; the kernel frees it when the holder dies.

    Raises:
        StoreError: somebody else holds it; the message names host, process and start.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise unwritable(str(path / "lock"), error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise in_use(str(path), os.read(handle, 500).decode(errors="replace") or "another process") from None
        with suppress(OSError):  # a full disk: the lock holds, only its holder's name is missing
            os.ftruncate(handle, 0)
            os.pwrite(handle, _me().encode(), 0)
        yield
    finally:
        os.close(handle)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Be the next to hold a directory, by a lock on itself: who holds it in a loop comes after who waits.

    Raises:
        StoreError: somebody else is; the message names who holds it now.
    """
    with ExitStack() as stack:
        with suppress(OSError):  # no such directory yet, or no locks there
            handle = os.open(path, os.O_RDONLY)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise in_use(str(path), (path / "lock").read_text(errors="replace") or "another process") from None
        yield


class Lease:
    """A claim on a study in an object store: `acquire`, `check` before every acknowledgement, `release`."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.claim = ""
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> str:
        """The claim, which is part of the name of every record written under it.

        Raises:
            StoreError: somebody else holds the study; the message names host, process and start.
        """
        highest = max(self._claims(), default=None)
        if highest is not None and not self._is_free(highest):
            raise in_use(self.objects.where, self._holder(highest))
        if (now := max(self._claims(), default=None)) != highest:  # while we looked whether it is free
            raise in_use(self.objects.where, self._holder(now or ""))
        number = int(highest[:6]) + 1 if highest else 1
        self.claim = f"{number:06d}-{secrets.token_hex(4)}"
        about = {"holder": _me(), "machine": _machine(), "process": os.getpid(), "start": _start_of(os.getpid())}
        self.objects.write(f"{FOLDER}/{self.claim}.json", json.dumps(about).encode())
        time.sleep(SETTLE)
        self.check()
        self._beat(0)
        self._thread = threading.Thread(target=self._beats, name="raymix-lease", daemon=True)
        self._thread.start()
        self._forget_older()
        return self.claim

    def check(self) -> None:
        """Returns while the study is ours.

        Raises:
            StoreError: another driver took over; what it did not see of ours was never acknowledged.
        """
        claims = self._claims()
        highest = max(claims, default="")
        if highest > self.claim:
            raise in_use(self.objects.where, self._holder(highest))
        if self.claim not in claims:
            raise StoreError(f"{self.objects.url(FOLDER)}: the claim of this process was deleted; start it again")

    def release(self) -> None:
        """Let the next driver in at once. If that cannot be written, it waits for the beat instead."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(StoreError):
            self.objects.write(f"{FOLDER}/{self.claim}.ended", b"")

    def _claims(self) -> list[str]:
        return [name.removesuffix(".json") for name in self.objects.names(FOLDER) if CLAIM.fullmatch(name)]

    def _about(self, claim: str) -> dict[str, Any]:
        try:
            about = json.loads(self.objects.read(f"{FOLDER}/{claim}.json"))
        except (FileNotFoundError, ValueError):
            return {}
        return about if isinstance(about, dict) else {}

    def _holder(self, claim: str) -> str:
        return str(self._about(claim).get("holder") or "another driver")

    def _is_free(self, claim: str) -> bool:
        """Whether its holder ended, died on this machine, or has not moved for `PATIENCE` seconds."""
        if self._has_ended(claim):
            return True
        about = self._about(claim)
        if about.get("machine") == _machine() and isinstance(about.get("process"), int):
            start = _start_of(about["process"])
            return start is None or start != about.get("start")
        log.warning(
            "%s: held by %s; waiting up to %.0f s to see whether it is alive",
            self.objects.where, about.get("holder", "another driver"), PATIENCE,
        )  # fmt: skip
        first, until = self._last_beat(claim), time.monotonic() + PATIENCE
        while time.monotonic() < until:
            time.sleep(PATIENCE / 10)
            if self._has_ended(claim):
                return True
            if self._last_beat(claim) != first or max(self._claims()) != claim:
                return False
        return True

    def _has_ended(self, claim: str) -> bool:
        return f"{claim}.ended" in self.objects.names(FOLDER)

    def _last_beat(self, claim: str) -> bytes | None:
        try:
            return self.objects.read(f"{FOLDER}/{claim}.beat")
        except FileNotFoundError:
            return None

    def _beats(self) -> None:
        count = 0
        while not self._stopped.wait(PATIENCE / 5):
            count += 1
            try:
                self._beat(count)
            except StoreError as error:  # records meet the same fault and say so; if it lasts, somebody takes over
                log.debug("%s", error)

    def _beat(self, count: int) -> None:
        self.objects.write(f"{FOLDER}/{self.claim}.beat", str(count).encode())

    def _forget_older(self) -> None:
        """Claims below ours can never hold the study again."""
        with suppress(StoreError):
            for name in self.objects.names(FOLDER):
                if name[: len(self.claim)] < self.claim:
                    self.objects.delete(f"{FOLDER}/{name}")


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"


def _machine() -> str:
    """Equal for two processes that can see each other's process ids, and never otherwise; empty where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {os.getpid()}"  # nobody's equal: then the beat decides


def _start_of(process: int) -> str | None:
    """When a process began, in ticks since boot; None if there is none. Process ids are used again, this is not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
