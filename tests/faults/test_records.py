"""Rows 7 and 9 of the faults: full disks, torn and damaged files, writers killed anywhere. Nothing is lost silently."""

import itertools
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raymix import SearchSpace, Study
from raymix.space import SpaceError
from raymix.store import Store, StoreError, compact, store
from raymix.store.objects import LocalObjects
from raymix.study.files import read_identity, read_space

SPACE = {
    "name": "tiny",
    "domains": [{"name": "a"}, {"name": "b"}],
    "eval_domains": [{"name": "a"}],
    "ladder": [{"n_params": 1e5, "n_tokens": 5e5}],
    "target": {"n_params": 4e6, "n_tokens": 1e7},
}
Events = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two trials proposed together, one checkpoint, one end."""
    found = Study.create(SearchSpace.parse(SPACE), tmp_path / "study", seed=0)
    one, two = found.ask(2)
    found.tell(one.trial_id, {"a": 2.5}, n_tokens=1e5, status="checkpoint")
    found.tell(two.trial_id, {"a": 2.25})
    return tmp_path / "study"


def events(path: Path) -> Events:
    """As a driver reads them."""
    found = Store(path)
    with found.locked():
        return found.records()


def what(path: Path) -> tuple[dict[str, Any], SearchSpace]:
    about = read_identity(Store(path))
    return about, read_space(Store(path), about)


def judge(path: Path, name: str, truth: tuple[Any, Events], said: pytest.LogCaptureFixture) -> None:
    """Whole, or refused by name, or without its last record and with a warning; nothing else."""
    said.clear()
    try:
        if name in ("study.json", "space.yaml"):
            assert what(path) == truth[0]  # a last line feed may go
            return
        found = events(path)
    except (StoreError, SpaceError) as error:
        assert name in str(error)
        return
    assert found == truth[1][: len(found)]
    assert len(truth[1]) - len(found) == 1
    assert f"{name}: damaged record at byte" in said.text
    (path / "records" / f"{name}.damaged").unlink()


def files(study: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in study.rglob("*") if file.is_file() and file.name != "lock"}


def test_every_truncation_of_every_file_is_seen(study: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth, points = (what(study), events(study)), 0
    for file, content in files(study).items():
        for length in range(len(content)):
            file.write_bytes(content[:length])
            judge(study, file.name, truth, caplog)
            points += 1
        file.write_bytes(content)
    assert points > 1500
    assert events(study) == truth[1]


def test_every_flipped_bit_is_seen(study: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth, rng = (what(study), events(study)), random.Random(0)
    for file, content in files(study).items():
        for _ in range(80):
            damaged = bytearray(content)
            damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            file.write_bytes(damaged)
            judge(study, file.name, truth, caplog)
        file.write_bytes(content)
    assert events(study) == truth[1]


def test_a_file_that_is_gone_is_never_a_new_study(study: Path) -> None:
    whole = files(study)
    last = max(file.name for file in whole if file.parent.name == "records")
    for file, content in whole.items():
        if file.name == last:  # without its last record a study is a shorter study
            continue
        file.unlink()
        with pytest.raises((StoreError, SpaceError), match=r"missing|no study here"):
            Study.resume(SearchSpace.parse(SPACE), study)
        file.write_bytes(content)


@pytest.mark.parametrize("name", ["study.json", "space.yaml", "records/00000003.json"])
def test_deeply_nested_json_is_refused(study: Path, name: str) -> None:
    (study / name).write_bytes(b"[" * 100_000)
    with pytest.raises((StoreError, SpaceError), match=Path(name).name):
        Study.open(study)


class Killed(BaseException):
    """As `kill -9`: no handler of ours catches it."""


class Mortal(LocalObjects):
    """Dies at the n-th change it makes, before or after making it."""

    def __init__(self, path: Path, dies_at: int, after: bool) -> None:
        super().__init__(path)
        self.left, self.after = dies_at, after

    def _change(self, change: Callable[[], None]) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        change()
        if self.left == 0:
            raise Killed

    def write(self, name: str, content: bytes) -> None:
        self._change(lambda: LocalObjects.write(self, name, content))

    def delete(self, name: str) -> None:
        self._change(lambda: LocalObjects.delete(self, name))


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compacts and merges after a few records, one deletion at a time."""
    monkeypatch.setattr(store, "COMPACT_AT", 4)
    monkeypatch.setattr(compact, "MERGE_AT", 3)
    monkeypatch.setattr(compact, "DELETERS", 1)


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_change_loses_nothing_acknowledged(tmp_path: Path, eager: None, after: bool) -> None:
    for dies_at in range(1 + after, 48, 2):
        path = tmp_path / str(dies_at)
        found, acknowledged = Store(path), 0
        found.objects = Mortal(path, dies_at, after)
        try:
            with found.locked():
                for i in range(26):
                    found.append("row", {"i": i})
                    acknowledged = i + 1
        except Killed:
            pass
        again = Store(path)
        with again.locked():  # whoever comes next also compacts what was left
            numbers = [body["i"] for _, body in again.records()]
            assert numbers == list(range(len(numbers)))
            assert acknowledged <= len(numbers) <= acknowledged + 1
            for i in range(len(numbers), 40):
                again.append("row", {"i": i})
        assert [body["i"] for _, body in Store(path).records()] == list(range(40))


WRITER = """
import sys
from raymix.store import Store, store
store.COMPACT_AT = 16
found = Store(sys.argv[1])
with found.locked():
    found.records()
    for i in range(int(sys.argv[2]), 100_000):
        found.append("row", {"i": i})
        print(i, flush=True)
"""


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    rng, known = random.Random(1), 0
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(known)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(rng.randrange(1, 90)):
            process.stdout.readline()
        process.kill()
        said = process.stdout.read().split()  # what it acknowledged before it died
        process.wait()
        numbers = [body["i"] for _, body in Store(tmp_path).records()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= (int(said[-1]) + 1 if said and said[-1].isdigit() else known)
        known = len(numbers)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.root
def test_a_full_disk_is_named_and_nothing_is_lost(small_disk: Path) -> None:
    study = Study.create(SearchSpace.parse(SPACE), small_disk / "study", seed=0)
    filler = small_disk / "filler"
    told: list[str] = []

    def fill() -> None:
        for trial in study.ask(4):
            study.tell(trial.trial_id, {"a": 2.0})
            told.append(trial.trial_id)

    fill()
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        file.writelines(itertools.repeat(b"x" * 4096))
    with pytest.raises(StoreError, match=r"records/0.*No space left on device \(ENOSPC\); free some space"):
        fill()
    before = list(told)
    again = Study.open(small_disk / "study")
    assert again.ledger.count("done") == len(before)
    filler.unlink()
    fill()
    assert Study.open(small_disk / "study").ledger.count("done") == len(told) == len(before) + 4


@pytest.mark.root
def test_a_disk_that_fills_during_compaction_stops_nothing(small_disk: Path, eager: None) -> None:
    found, written = Store(small_disk / "study"), []

    def write() -> None:
        for i in itertools.count():
            found.append("row", {"i": i, "text": os.urandom(2500).hex()})
            written.append(i)

    with found.locked(), pytest.raises(StoreError, match="ENOSPC"):
        write()
    assert [body["i"] for _, body in Store(small_disk / "study").records()] == written


@pytest.mark.root
def test_a_read_only_study_can_be_looked_at_and_says_why_it_cannot_be_run(small_disk: Path) -> None:
    Study.create(SearchSpace.parse(SPACE), small_disk / "study", seed=0).ask(2)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    found = Study.open(small_disk / "study")
    assert len(found.ledger.trials) == 2
    with pytest.raises(
        StoreError, match=r"lock: cannot be written: Read-only file system \(EROFS\); mount it writable"
    ):
        found.ask(1)


def test_a_study_behind_a_link_to_a_disk_that_is_not_mounted_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(tmp_path / "scratch")
    said = f"{tmp_path / 'runs'}: cannot be written: File exists (EEXIST); a folder must be there, and not a file or"
    with pytest.raises(StoreError, match=re.escape(said)):
        Study.create(SearchSpace.parse(SPACE), tmp_path / "runs" / "study")


@pytest.mark.parametrize("changed", [False, True])
def test_a_study_of_the_first_format_is_read_and_raised(study: Path, changed: bool) -> None:
    about = json.loads((study / "study.json").read_text())
    about.pop("sha256")
    (study / "study.json").write_text(json.dumps({**about, "format": 1}))
    text = (study / "space.yaml").read_text().partition("\n")[2]
    (study / "space.yaml").write_text("# as of old\n" + text)
    other = {"objective": {"reduce": "worst"}} if changed else {}
    found = Study.resume(SearchSpace.parse(SPACE | other), study)
    assert len(found.ledger.trials) == 2
    found.ask(1)
    assert json.loads((study / "study.json").read_text())["format"] == 2
    assert len(Study.open(study).ledger.trials) == 3


def test_a_study_of_a_later_format_is_refused(study: Path) -> None:
    text = (study / "study.json").read_text().replace('"format": 2', '"format": 3')
    (study / "study.json").write_text(text)
    with pytest.raises(StoreError, match=r"written in format 3, this raymix reads \(1, 2\)"):
        Study.open(study)
