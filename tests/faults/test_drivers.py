"""Rows 22, 24 and 25 of the faults: two drivers on one study, clocks that jump, object stores that fail."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raymix import SearchSpace, Study
from raymix.store import Store, StoreError, lease, retries, store
from raymix.store.lease import Lease
from raymix.store.objects import LocalObjects
from tests.faults.object_store import ObjectStore
from tests.faults.test_records import SPACE


def numbers(where: str | Path) -> list[int]:
    return [body["i"] for _, body in Store(where).records()]


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks: the lease of object stores is used on it, at the speed of a disk."""
    monkeypatch.setattr(store, "file_lock", _without_locks)


def _without_locks(path: Path) -> AbstractContextManager[None]:
    raise OSError(store.NO_LOCKS[0], os.strerror(store.NO_LOCKS[0]))


class Driver:
    """One driver, run step by step; what it was told is durable is in `acknowledged`."""

    def __init__(self, path: Path, name: int, meanwhile: Callable[[], None]) -> None:
        self.store = Store(path)
        self.store.objects = _Watched(path, meanwhile)
        self.name, self.tried = name, 0
        self.acknowledged: list[list[int]] = []
        self.hold: AbstractContextManager[None] | None = None
        self.alive = self.busy = False

    def step(self) -> None:
        """Take the study if not begun, else append; refused means dead."""
        if self.busy:
            return
        self.busy = True
        with suppress(StoreError):
            if not self.alive:
                self.close()
                self.hold = self.store.locked()
                self.hold.__enter__()
                self.store.records()
                self.alive = True
            else:
                self.alive = False
                self.tried += 1
                self.store.append("row", {"i": [self.name, self.tried]})
                self.acknowledged.append([self.name, self.tried])
                self.alive = True
        self.busy = False

    def close(self) -> None:
        if self.hold is not None:
            with suppress(StoreError):
                self.hold.__exit__(None, None, None)
            self.hold = None


class _Watched(LocalObjects):
    """Lets others act between any two of its operations."""

    def __init__(self, path: Path, meanwhile: Callable[[], None]) -> None:
        super().__init__(path)
        self.meanwhile = meanwhile

    def write(self, name: str, content: bytes) -> None:
        self.meanwhile()
        super().write(name, content)
        self.meanwhile()

    def names(self, folder: str) -> list[str]:
        self.meanwhile()
        return super().names(folder)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=st.lists(st.integers(0, 8), min_size=60, max_size=200))
def test_whatever_drivers_do_at_once_acknowledged_records_are_kept_and_counted_once(
    tmp_path_factory: pytest.TempPathFactory, no_locks: None, schedule: list[int]
) -> None:
    path = tmp_path_factory.mktemp("study")
    left = list(schedule)
    drivers: list[Driver] = []

    def next_step() -> None:
        if left and (which := left.pop()) < 3:  # 3 to 8: nobody else acts here
            drivers[which].step()

    drivers += [Driver(path, name, next_step) for name in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lease, "_is_free", lambda self, claim: True)  # everybody thinks the others dead
        patch.setattr(lease, "PATIENCE", 1000.0)
        patch.setattr(lease, "SETTLE", 0.0)  # one thread: nobody acts while another waits
        while left:
            next_step()
        for driver in drivers:
            driver.close()
    log = [body["i"] for _, body in Store(path).records()]
    for driver in drivers:
        mine = [number for number in log if number[0] == driver.name]
        assert [n for n in mine if n in driver.acknowledged] == driver.acknowledged


def test_a_driver_that_was_taken_over_cannot_append(
    tmp_path: Path, no_locks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lease, "_is_free", lambda self, claim: True)
    asleep, awake = Store(tmp_path), Store(tmp_path)
    with asleep.locked():
        asleep.append("row", {"i": 0})
        with awake.locked():
            awake.append("row", {"i": 1})
            with pytest.raises(StoreError, match=r"is being run by process \d+ on "):
                asleep.append("row", {"i": 99})
            awake.append("row", {"i": 2})
    assert numbers(tmp_path) == [0, 1, 2]


def test_a_clock_that_jumps_takes_no_study_away(
    tmp_path: Path, no_locks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder's and the challenger's clocks are never compared: only the beat and the challenger's own patience."""
    monkeypatch.setattr(lease, "PATIENCE", 4.0)
    monkeypatch.setattr(lease, "_machine", lambda: f"another {threading.get_ident()} {time.monotonic_ns()}")
    with Store(tmp_path).locked():
        for jump in (-1e9, 1e9):
            with monkeypatch.context() as patch:
                patch.setattr(time, "time", lambda jump=jump: 1.7e9 + jump)
                with pytest.raises(StoreError, match="is being run by"), Store(tmp_path).locked():
                    pass


HOLDER = """
import sys
from raymix.store import Store, lease
lease.PATIENCE = 4.0
if len(sys.argv) > 2:
    lease._machine = lambda: "elsewhere"
found = Store(sys.argv[1])
with found.locked():
    found.records()
    for i in range(5):
        found.append("row", {"i": i})
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(s3: ObjectStore) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Another process that holds a study of five records."""
    begun: list[subprocess.Popen[str]] = []

    def start(where: str, *elsewhere: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", HOLDER, where, *elsewhere]
        begun.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert begun[-1].stdout is not None
        assert begun[-1].stdout.readline() == "held\n"
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("elsewhere", [(), ("elsewhere",)])
def test_on_an_object_store_the_second_driver_is_refused_until_the_first_is_dead(
    s3: ObjectStore, holder: Callable[..., subprocess.Popen[str]], elsewhere: tuple[str, ...]
) -> None:
    where = s3.uri("two-drivers" + "".join(elsewhere))
    first = holder(where, *elsewhere)
    with (
        pytest.raises(StoreError, match=rf"{where.partition('?')[0]}.* run by process {first.pid} on "),
        Store(where).locked(),
    ):
        pass
    first.kill()
    first.wait()
    second = Store(where)
    with second.locked():
        assert [body["i"] for _, body in second.records()] == list(range(5))
        second.append("row", {"i": 5})
    assert numbers(where) == list(range(6))


def test_a_study_on_an_object_store_from_beginning_to_report(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from raymix.results import results

    monkeypatch.setattr(store, "COMPACT_AT", 8)
    where = s3.uri("whole")
    study = Study.create(SearchSpace.parse(SPACE), where, seed=0)
    for i, trial in enumerate(study.ask(8)):
        study.tell(trial.trial_id, {"a": 2.0 + 0.1 * i + 0.5 * trial.mixture["a"]})
    again = Study.open(where)
    found = results(again)
    assert results(Study.open(where)) == found
    for name in ("recommendation.json", "report.html", "law.json", "observations.parquet"):
        assert again.store.has(name)
    with pytest.raises(StoreError, match="there is a study already"):
        Study.create(SearchSpace.parse(SPACE), where)
    everything = b"".join(again.store.read(name) for name in again.store.objects.names(""))
    assert b"planted-secret" not in everything


@pytest.mark.slow  # the S3 client inside pyarrow tries some thirty times before our first retry
def test_unavailable_for_a_while_is_waited_for_and_said_once(s3: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    found = Store(s3.uri("busy"))
    with found.locked():
        found.append("row", {"i": 0})
        s3.fail(35, lambda method, path: method == "PUT" and "records" in path)
        found.append("row", {"i": 1})
    assert numbers(s3.uri("busy")) == [0, 1]
    assert caplog.text.count("trying again") == 1


def test_what_does_not_pass_is_not_tried_again(s3: ObjectStore) -> None:
    before = time.monotonic()
    with pytest.raises(StoreError, match="NO_SUCH_BUCKET"):
        Store(s3.uri("x").replace("bucket/", "no-such-bucket/")).write("a", b"")
    assert time.monotonic() - before < 5


def test_credentials_that_expire_end_a_study_at_once_with_what_to_do(s3: ObjectStore) -> None:
    found = Store(s3.uri("expires"))
    with found.locked():
        found.append("row", {"i": 0})
        s3.fail(1, lambda method, path: method == "PUT" and "records" in path, status=400, code="ExpiredToken")
        with pytest.raises(StoreError, match=r"ExpiredToken .*\(renew the credentials .* the same command again\)"):
            found.append("row", {"i": 1})
    assert numbers(s3.uri("expires")) == [0]


def test_retries_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    calls: list[int] = []
    monkeypatch.setattr(time, "sleep", pauses.append)

    def always() -> None:
        calls.append(1)
        raise OSError("AWS Error NETWORK_CONNECTION during PutObject operation")

    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        retries.retried(always, "s3://bucket/study")
    assert len(calls) == retries.ATTEMPTS == len(pauses) + 1
    assert sum(pauses) < 30
    assert max(pauses) <= retries.LONGEST_PAUSE


@pytest.mark.parametrize("arrives", [False, True])
def test_killed_in_mid_upload(s3: ObjectStore, arrives: bool) -> None:
    """The half-sent record is not there; one that was stored but not acknowledged is there once."""
    where = s3.uri(f"killed-{arrives}")
    s3.hold(lambda method, path: method == "PUT" and "/00000004" in path, arrives)
    process = subprocess.Popen([sys.executable, "-c", HOLDER, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert s3.reached.wait(60)
    process.kill()
    process.communicate()
    s3.let_go.set()
    found = Store(where)
    with found.locked():
        assert [body["i"] for _, body in found.records()] == list(range(4 if arrives else 3))
        found.append("row", {"i": "next"})
    assert len(numbers(where)) == (5 if arrives else 4)


def test_an_address_shows_no_secrets() -> None:
    found = Store("s3://key:planted-secret@bucket/study?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1")
    assert found.where == "s3://bucket/study?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1"
    assert "planted" not in found.url("study.json")
