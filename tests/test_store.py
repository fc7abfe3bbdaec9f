"""Records: durable, ordered, checked; one writer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raymix.store import Store, StoreError


def filled(path: Path, n: int = 5) -> Store:
    store = Store(path)
    store.records()
    for i in range(n):
        store.append("row", {"i": i, "text": "ä <b>"})
    return store


def test_records_come_back_in_order(tmp_path: Path) -> None:
    filled(tmp_path, 12)
    assert [body["i"] for _, body in Store(tmp_path).records()] == list(range(12))


def test_append_continues_after_reopening(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    again = Store(tmp_path)
    again.records()
    again.append("row", {"i": 2})
    assert len(Store(tmp_path).records()) == 3


def test_every_truncation_of_the_last_record_is_set_aside(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    last = tmp_path / "records" / "00000003.json"
    whole = last.read_bytes()
    for length in range(len(whole)):
        last.write_bytes(whole[:length])
        assert len(Store(tmp_path).records()) == 2
        (tmp_path / "records" / "00000003.json.damaged").unlink()


@pytest.mark.parametrize("position", range(0, 200, 7))
def test_a_flipped_bit_elsewhere_is_refused_by_name(tmp_path: Path, position: int) -> None:
    filled(tmp_path, 3)
    middle = tmp_path / "records" / "00000002.json"
    content = bytearray(middle.read_bytes())
    content[position % len(content)] ^= 1
    same_value = json_equal(bytes(content), middle.read_bytes())  # white space between JSON tokens
    middle.write_bytes(bytes(content))
    if same_value:
        assert len(Store(tmp_path).records()) == 3
        return
    with pytest.raises(StoreError, match=r"00000002\.json"):
        Store(tmp_path).records()


def json_equal(left: bytes, right: bytes) -> bool:
    try:
        return bool(json.loads(left) == json.loads(right))
    except ValueError:
        return False


def test_a_missing_record_is_refused_by_name(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    (tmp_path / "records" / "00000002.json").unlink()
    with pytest.raises(StoreError, match=r"00000002\.json is missing"):
        Store(tmp_path).records()


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


def test_not_a_number_never_reaches_a_record(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        filled(tmp_path, 0).append("row", {"loss": float("nan")})


def test_missing_study_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no study here"):
        Store(tmp_path).read_json("study.json")
