"""Records: durable, ordered, checked; one writer."""

import errno
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from raymix.store import Store, StoreError, compact, retries, store
from raymix.store.compact import merge_parts, write_part
from raymix.store.errors import InUseError, NoStudyError
from raymix.store.lease import Lease, _machine, turn
from raymix.store.log import Record, file_name
from raymix.store.objects import LocalObjects


def filled(path: Path, n: int = 5, group: int = 1) -> Store:
    found = Store(path)
    with found.locked():
        for i in range(0, n, group):
            found.append_all([("row", {"i": j, "text": "ä <b>"}) for j in range(i, min(n, i + group))])
    return found


def test_who_comes_now_and_then_waits_for_few_turns_of_one_who_comes_in_a_loop(tmp_path: Path) -> None:
    over, turns, waited = threading.Event(), 0, 0

    def loop() -> None:
        nonlocal turns
        while not over.is_set():
            with Store(tmp_path).locked(60):
                time.sleep(0.005)
            turns += 1

    thread = threading.Thread(target=loop)
    thread.start()
    for _ in range(20):
        time.sleep(0.01)
        before = turns
        with Store(tmp_path).locked(60):
            waited += turns - before
    over.set()
    thread.join()
    assert waited < 60


def test_a_process_that_was_stopped_while_it_waited_shuts_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SAID_AFTER", 0.1)
    with Store(tmp_path).locked():
        pass
    with turn(tmp_path):  # as a process that waited has it until it goes on
        with pytest.raises(InUseError), Store(tmp_path).locked(0.05):
            pass
        with Store(tmp_path).locked(60):
            pass


def numbers(path: Path) -> list[int]:
    return [body["i"] for _, body in Store(path).records()]


def held(path: Path) -> list[int]:
    """As `numbers`, by a driver: it may set a torn record aside."""
    found = Store(path)
    with found.locked():
        return [body["i"] for _, body in found.records()]


@pytest.mark.parametrize("call", ["listdir", "fsync", "replace"])
def test_a_file_system_that_fails_once_is_asked_again(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one on a network does whose server comes back."""
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.0)
    study, works, failures = filled(tmp_path), getattr(os, call), [OSError(errno.ESTALE, "Stale file handle")]

    def fails_once(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return works(*args)

    monkeypatch.setattr(os, call, fails_once)
    with study.locked():
        assert not study.changed()
        study.append("row", {"i": 5})
    assert not failures
    assert numbers(tmp_path) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("group", [1, 5])
def test_records_come_back_in_order(tmp_path: Path, group: int) -> None:
    filled(tmp_path, 12, group)
    assert numbers(tmp_path) == list(range(12))


def test_append_continues_after_reopening(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    again = Store(tmp_path)
    with again.locked():
        again.append("row", {"i": 2})
    assert numbers(tmp_path) == [0, 1, 2]


def test_a_group_is_one_file(tmp_path: Path) -> None:
    filled(tmp_path, 7, group=5)
    assert sorted(file.name for file in (tmp_path / "records").iterdir()) == [
        "00000001-00000005.json",
        "00000006-00000007.json",
    ]


@pytest.mark.parametrize("group", [1, 3])
def test_a_missing_file_is_refused_by_name(tmp_path: Path, group: int) -> None:
    filled(tmp_path, 9, group)
    sorted((tmp_path / "records").iterdir())[1].unlink()
    with pytest.raises(StoreError, match=rf"0000000{group + 1}\.json is missing"):
        Store(tmp_path).records()


def test_records_without_a_study_are_not_hidden_by_a_new_one(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    with pytest.raises(StoreError, match=r"study\.json: missing, though there are records"):
        assert Store(tmp_path).exists


def test_a_reader_leaves_a_torn_record_where_it_is(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    (tmp_path / "records" / "00000003.json").write_bytes(b"{")
    assert numbers(tmp_path) == [0, 1]
    assert (tmp_path / "records" / "00000003.json").is_file()
    assert held(tmp_path) == [0, 1]
    assert (tmp_path / "records" / "00000003.json.damaged").is_file()


def test_what_a_dead_writer_left_is_swept(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    left = tmp_path / "records" / ".00000002.json.123.part"
    left.write_bytes(b"half a reco")
    assert held(tmp_path) == [0]
    assert not left.exists()


def test_second_writer_is_told_who_holds_the_study(tmp_path: Path) -> None:
    holder = (
        "import sys; from raymix.store import Store\n"
        "with Store(sys.argv[1]).locked(): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"process {process.pid} on "), Store(tmp_path).locked():
            pass
        process.kill()
        process.wait()
    with Store(tmp_path).locked():  # the kernel freed it
        pass


def test_of_two_claims_at_once_one_waits_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both held the study, and the first stopped at its next record: asks of several processes failed in an S3."""
    slow, fast = Lease(LocalObjects(tmp_path)), Lease(LocalObjects(tmp_path))
    looked, write, main = threading.Event(), slow.objects.write, threading.current_thread()

    def slow_write(name: str, content: bytes) -> None:
        looked.set()  # a claim on its way; `fast` has not claimed yet
        time.sleep(0.15)
        write(name, content)

    monkeypatch.setattr("secrets.token_hex", lambda n: ("f" if threading.current_thread() is not main else "0") * 2 * n)
    slow.objects.write = slow_write  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(slow.acquire)
        looked.wait()
        try:
            with pytest.raises(InUseError, match="this study is being run by"):
                fast.acquire()
            assert second.result() > fast.claim
            slow.check()
        finally:
            for lease in (slow, fast):
                lease.release()


def test_who_was_first_while_another_looked_whether_the_study_is_free_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, first, late = (Lease(LocalObjects(tmp_path)) for _ in range(3))
    tokens = iter(("0" * 8, "0" * 8, "f" * 8))  # by which alone the late one would come out as the highest
    monkeypatch.setattr("secrets.token_hex", lambda n: next(tokens))
    ended.acquire()
    ended.release()
    monkeypatch.setattr(late, "_is_free", lambda claim: bool(first.acquire()))
    with pytest.raises(InUseError, match="this study is being run by"):
        late.acquire()
    first.check()
    first.objects.delete(f"driver/{first.claim}.json")
    with pytest.raises(StoreError, match="was deleted"):
        first.check()
    first.release()


def test_a_record_that_arrived_though_its_write_failed_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = filled(tmp_path, 1)
    write = study.objects.write

    def no_answer(name: str, content: bytes) -> None:
        write(name, content)
        raise StoreError("the store does not answer")

    with study.locked():
        assert len(study.records()) == 1
        monkeypatch.setattr(study.objects, "write", no_answer)
        with pytest.raises(StoreError, match="does not answer"):
            study.append("row", {"i": 1})
        monkeypatch.undo()
        study.append("row", {"i": 2})
    assert numbers(tmp_path) == [0, 1, 2]


def test_what_a_driver_writes_after_another_took_over_and_compacted_does_not_count(tmp_path: Path) -> None:
    objects, late = LocalObjects(tmp_path), Record.of(4, "row", {"i": 99})
    write_part(objects, [Record.of(i + 1, "row", {"i": i}) for i in range(3)], "000002-00000000")
    objects.write(f"records/{file_name([late], '000001-00000000')}", late.line())
    assert numbers(tmp_path) == [0, 1, 2]


@pytest.mark.parametrize("fault", ["other values", "torn"])
def test_a_part_that_does_not_come_back_as_written_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    study, encoded, write = filled(tmp_path, 3), compact._encoded, LocalObjects.write
    records = [Record.of(i + 1, kind, body) for i, (kind, body) in enumerate(study.records())]
    if fault == "torn":
        monkeypatch.setattr(LocalObjects, "write", lambda self, name, content: write(self, name, content[:-1]))
    else:
        others = [record._replace(text='{"i": 9}') for record in records]
        monkeypatch.setattr(compact, "_encoded", lambda records, writer: encoded(others, writer))
    with pytest.raises(StoreError, match="did not come back as written"):
        write_part(study.objects, records, "")
    assert numbers(tmp_path) == [0, 1, 2]


def test_small_parts_on_either_side_of_a_large_one_are_not_made_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "MERGE_AT", 2)
    monkeypatch.setattr(compact, "LARGE", 4)
    records = [Record.of(i + 1, "row", {"i": i}) for i in range(9)]
    for some in (records[:2], records[2:7], records[7:]):
        write_part(LocalObjects(tmp_path), some, "")
    merge_parts(LocalObjects(tmp_path), "")
    assert numbers(tmp_path) == list(range(9))


def test_a_claim_dies_with_its_process_also_where_another_has_its_number_now(tmp_path: Path) -> None:
    about = {"holder": "a dead one", "machine": _machine(), "process": os.getpid(), "start": "1"}
    LocalObjects(tmp_path).write("driver/000001-00000000.json", json.dumps(about).encode())
    found = Lease(LocalObjects(tmp_path))
    assert found.acquire().startswith("000002-")
    found.release()


def test_not_a_number_never_reaches_a_record(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Store(tmp_path).append("row", {"loss": float("nan")})
    assert numbers(tmp_path) == []


def test_missing_study_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no study here"):
        Store(tmp_path).read_json("study.json")


def test_what_is_out_of_reach_is_not_called_damaged(tmp_path: Path) -> None:
    """Another user's file, say, or a store whose credentials expired."""
    (tmp_path / "study.json").mkdir()
    with pytest.raises(StoreError, match=r"cannot be read: .*\(EISDIR\)$"):
        Store(tmp_path).read_json("study.json")


def test_an_address_in_a_path_is_refused() -> None:
    with pytest.raises(StoreError, match="a Path loses one of an address"):
        Store(Path("s3://bucket/study"))


@pytest.mark.parametrize("name", ["my study", "a#b", "a?b", "100%", "\u7db2"])
def test_a_file_address_is_the_folder_it_names(tmp_path: Path, name: str) -> None:
    """What followed # or ? was cut off, so that two studies were one; %20 stayed as it is written."""
    filled(tmp_path / name, 2)
    assert len(Store((tmp_path / name).as_uri()).records()) == 2
    assert len(Store(f"file://{tmp_path / name}").records()) == 2
    assert len(Store(f"file://localhost{tmp_path / name}").records()) == 2


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("file://runs/mine", "file:///"),  # was /mine
        ("s3:/bucket/name", "a slash is missing"),  # was a folder s3:
        ("", "the study has no name"),  # was the folder one is in
        ("s3://bucket/a#b?scheme=http", "write %23 for #"),  # was s3://bucket/a
        ("s3://bucket/a b", "cannot be opened"),  # was the exit code of work that failed
        ("s3://bucket//name", "an empty part"),  # was "study.json: damaged"
        ("http://example.org/study", "a study is a directory, or lives in an object store: s3://bucket/name"),
    ],
)
def test_what_is_no_address_is_no_study(where: str, says: str) -> None:
    with pytest.raises(NoStudyError, match=says):
        Store(where)


@pytest.mark.parametrize("where", ["s3://key:planted@bucket/a b", "http://user:planted@example.org/study"])
def test_an_address_that_is_none_is_said_without_its_password(where: str) -> None:
    with pytest.raises(NoStudyError, match="cannot be opened") as caught:
        Store(where)
    assert "planted" not in str(caught.value)


def test_a_pickled_copy_reads_and_has_no_lock(tmp_path: Path) -> None:
    original = filled(tmp_path, 3)
    with original.locked():
        copy = pickle.loads(pickle.dumps(original))
        assert [body["i"] for _, body in copy.records()] == [0, 1, 2]
        with pytest.raises(StoreError, match="is being run by"), copy.locked():
            pass


BODIES = [
    {"loss/web": 2.5, "n_tokens": 1e9, "seed": 3, "trial_id": "é", "reason": "<b>"},
    {"loss/web": 1e-300, "n_tokens": -0.0, "seed": -(2**62), "trial_id": "", "reason": "\n\u2028"},
    {"loss/web": None, "seed": 1},
    {"nested": {"b": [1, {"a": True}], "a": 0.1}, "seed": 2},
    {"seed": 2**70},
]


def test_compaction_keeps_every_kind_of_body_to_the_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "COMPACT_AT", 10)
    found = Store(tmp_path)
    wanted = [("row" if i % 3 else "proposed", {**BODIES[i % 5], "i": i}) for i in range(137)]
    with found.locked():
        for event in wanted:
            found.append(*event)
    names = sorted(file.name for file in (tmp_path / "records").iterdir())
    assert sum(name.endswith(".parquet") for name in names) == 6  # 8 small ones became one, 5 are small
    assert sum(name.endswith(".json") for name in names) == 7
    again = Store(tmp_path).records()
    assert again == wanted
    assert [list(map(type, body.values())) for _, body in again] == [
        list(map(type, b.values())) for _, b in map_sorted(wanted)
    ]


def map_sorted(events: list[tuple[str, dict[str, object]]]) -> list[tuple[str, dict[str, object]]]:
    """Records are written with their keys sorted."""
    return [(kind, dict(sorted(body.items()))) for kind, body in events]


def test_reopening_and_appending_go_on_after_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "COMPACT_AT", 4)
    for start in range(0, 30, 3):
        found = Store(tmp_path)
        with found.locked():
            assert [body["i"] for _, body in found.records()] == list(range(start))
            for i in range(start, start + 3):
                found.append("row", {"i": i})
    assert numbers(tmp_path) == list(range(30))


def test_a_flipped_bit_anywhere_in_a_part_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "COMPACT_AT", 8)
    filled(tmp_path, 8)
    (part,) = (tmp_path / "records").glob("*.parquet")
    whole = part.read_bytes()
    for position in range(0, len(whole), 41):
        part.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
        with pytest.raises(StoreError, match=part.name):
            Store(tmp_path).records()


def test_a_writer_sees_what_another_wrote_since(tmp_path: Path) -> None:
    mine = filled(tmp_path, 2)
    assert not mine.changed()
    other = Store(tmp_path)
    with other.locked():
        other.append("row", {"i": 2})
    assert mine.changed()
    assert not other.changed()


def test_a_file_is_no_place_for_a_study(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").touch()
    with pytest.raises(NoStudyError, match="this is a file; a study is a directory"):
        Store(tmp_path / "space.yaml")
