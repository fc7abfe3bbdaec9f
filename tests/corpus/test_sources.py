"""Every kind of source is read, and what cannot be read says why."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from raymix.corpus.sources import documents
from raymix.space import Source, SpaceError


def read(folder: Path, **source: object) -> list[str]:
    return [document.text for document in documents(Source.model_validate(source), folder)]


def test_parquet_is_read_from_the_named_field(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"body": ["one", None, "two"], "n": [1, 2, 3]}), tmp_path / "a.parquet")
    assert read(tmp_path, files="a.parquet", text="body") == ["one", "two"]


def test_any_other_text_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.rst").write_text("three")
    assert read(tmp_path, files=["*.txt", "*.rst", "a.txt"]) == ["one\ntwo\n", "three"]


def test_glob_characters_in_the_name_of_a_file_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("one")
    assert read(tmp_path, files="a[1].txt") == ["one"]


def test_unreachable_dataset_is_one_error_with_name_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(SpaceError, match=r"'org/name'.*no route to host.*local copy"):
        read(tmp_path, dataset="org/name")


def test_megabytes_limit_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "0123456789"}\n' * 10)
    assert len(read(tmp_path, files="a.jsonl", megabytes=25e-6)) == 3


def test_equal_records_have_one_origin(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n{"text": "one"}\n')
    one, two, again = documents(Source(files="a.jsonl"), tmp_path)
    assert one.origin == again.origin != two.origin


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"body": "x", "id": 1}\n', r"line 1.*no field 'text'.*body, id"),
        ('{"text": "x"}\n{"text": 3}\n', r"line 2.*'text' holds int"),
        ("[1, 2]\n", "line 1.*object"),
        ("{text\n", "line 1.*not JSON"),
        ('{"text": "x", "tree": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "line 1.*not JSON.*recursion"),
    ],
)
def test_bad_record_is_named_with_file_and_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(SpaceError, match=rf"a\.jsonl.*{message}"):
        read(tmp_path, files="a.jsonl")


def test_missing_parquet_field_names_those_that_exist(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(SpaceError, match=r"no field 'text'.*body"):
        read(tmp_path, files="a.parquet")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00bad")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(bytes(range(97, 122)) * 99)[:-12])
    for name in ("a.parquet", "b.txt", "c.txt.gz"):
        with pytest.raises(SpaceError, match=name):
            read(tmp_path, files=name)


def test_glob_without_match_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"'data/\*\.jsonl'.*no file matches"):
        read(tmp_path, files="data/*.jsonl")
