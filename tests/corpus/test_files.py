"""Files are cut into chunks that together give each document once, wherever they lie and however they are packed."""

import bz2
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raymix.corpus import files, places, prepare, sources
from raymix.corpus.files import Chunk
from raymix.space import SearchSpace, Source, SpaceError

TEXTS = [f"text {i} " + "word " * (i % 7) for i in range(50)]


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(texts)).encode()


def zstandard(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


def read(source: Source, folder: Path) -> list[str]:
    return [document.text for document in sources.documents(source, folder)]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SMALLEST", 200)


@given(st.lists(st.text(min_size=1, max_size=30).filter(str.strip), max_size=20), st.integers(1, 80))
@example(["a", "b"], len(lines(["a"])))  # a line ends where the first range does
def test_byte_ranges_give_every_line_once(tmp_path_factory: pytest.TempPathFactory, texts: list[str], cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    data = lines(texts).rstrip(b"\n")
    path.write_bytes(data)
    source = Source(files="a.jsonl")
    found = []
    for start in range(0, max(len(data), 1), cut):
        chunk = Chunk("lines", (str(path),), start, min(start + cut, len(data)))
        found += [document.text for document in files.read(source, chunk)]
    assert found == texts


@pytest.mark.usefixtures("small_chunks")
def test_plain_lines_are_cut_and_packed_ones_are_not(tmp_path: Path) -> None:
    data = lines(TEXTS)
    packers = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zstandard}
    (tmp_path / "a.jsonl").write_bytes(data)
    for ending, pack in packers.items():
        (tmp_path / f"a.jsonl.{ending}").write_bytes(pack(data))
        (tmp_path / f"b.json.{ending}").write_bytes(pack(data))
        for name in ("a.jsonl", "b.json"):
            source = Source(files=f"{name}.{ending}")
            assert len(list(sources.plan(source, tmp_path))) == 1
            assert read(source, tmp_path) == TEXTS
    assert len(list(sources.plan(Source(files="a.jsonl"), tmp_path))) > 5
    assert read(Source(files="a.jsonl"), tmp_path) == TEXTS


def test_zstandard_of_several_frames_is_read_to_its_end_and_a_torn_one_refused(tmp_path: Path) -> None:
    frames = [pa.compress(lines(TEXTS[i : i + 10]), "zstd", asbytes=True) for i in range(0, 50, 10)]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    assert read(Source(files="a.jsonl.zst"), tmp_path) == TEXTS
    (tmp_path / "torn.jsonl.zst").write_bytes(pa.compress(lines(TEXTS), "zstd", asbytes=True)[:-20])
    with pytest.raises(SpaceError, match=r"torn\.jsonl\.zst"):
        read(Source(files="torn.jsonl.zst"), tmp_path)


@pytest.mark.usefixtures("small_chunks")
def test_parquet_is_cut_by_row_groups_and_filtered(tmp_path: Path) -> None:
    table = pa.table({"text": TEXTS, "meta": [{"set": "a" if i % 2 else "b", "n": i} for i in range(50)]})
    pa.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=10)
    source = Source.model_validate({"files": "a.parquet", "where": {"meta.set": "a", "meta.n": {"min": 30}}})
    chunks = list(sources.plan(source, tmp_path))
    assert [(chunk.start, chunk.stop) for chunk in chunks] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert read(source, tmp_path) == TEXTS[31::2]
    with pytest.raises(SpaceError, match=r"no field 'lang'.*text, meta.*where"):
        read(Source.model_validate({"files": "a.parquet", "where": {"lang": "en"}}), tmp_path)


def test_a_column_with_a_dot_in_its_name_comes_first(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"a.b": TEXTS, "c": [{"d": i} for i in range(50)]}), tmp_path / "a.parquet")
    source = {"files": "a.parquet", "text": "a.b", "where": {"c.d": {"min": 48}}}
    assert read(Source.model_validate(source), tmp_path) == TEXTS[48:]


@pytest.mark.parametrize("key", [{"text": "content"}, {"where": {"lang": "en"}}, {"origin": "url"}])
def test_fields_are_refused_of_a_file_that_is_one_text(tmp_path: Path, key: dict[str, Any]) -> None:
    (tmp_path / "a.json").write_text('{"content": "one", "lang": "en", "url": "x"}\n')
    with pytest.raises(SpaceError, match=rf"a\.json.*one text.*`{next(iter(key))}` would do nothing.*\.jsonl"):
        read(Source.model_validate({"files": "*.json", **key}), tmp_path)


def test_lines_of_records_are_not_read_as_one_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"text": "one"}\n{"text": "two"}\n')  # as `datasets` writes to_json
    with pytest.raises(SpaceError, match=r"a\.json: its lines are records with a field 'text'.*name it \.jsonl"):
        read(Source(files="a.json"), tmp_path)
    (tmp_path / "a.json").write_text('{"text": [1,\n{"text": 2}]}\n')
    assert len(read(Source(files="a.json"), tmp_path)) == 1


def test_arrow_files_and_streams_are_read(tmp_path: Path) -> None:
    table = pa.table({"text": TEXTS})
    with pa.ipc.new_file(tmp_path / "file.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    with pa.ipc.new_stream(tmp_path / "stream.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    for name in ("file.arrow", "stream.arrow"):
        assert read(Source(files=name), tmp_path) == TEXTS
    (tmp_path / "bad.arrow").write_bytes(b"ARROW1 not really")
    with pytest.raises(SpaceError, match=r"bad\.arrow"):
        read(Source(files="bad.arrow"), tmp_path)


def test_many_small_texts_share_a_chunk_in_order(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / f"{i:02d}.txt").write_text(TEXTS[i])
    assert len(list(sources.plan(Source(files="*.txt"), tmp_path))) == 1
    assert read(Source(files="*.txt"), tmp_path) == TEXTS[:30]


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder of the memory file system."""
    system = fsspec.filesystem("memory")
    system.mkdirs("/corpus/sub", exist_ok=True)
    system.pipe("/corpus/a.jsonl", lines(TEXTS[:30]))
    system.pipe("/corpus/sub/b.jsonl.gz", gzip.compress(lines(TEXTS[30:])))
    yield "memory://corpus"
    system.rm("/corpus", recursive=True)


@pytest.mark.usefixtures("small_chunks")
def test_files_behind_a_url_are_found_and_read_in_chunks(memory: str, tmp_path: Path) -> None:
    source = Source(files=f"{memory}/**/*.jsonl*")
    assert read(source, tmp_path) == TEXTS
    assert len(list(sources.plan(source, tmp_path))) > 3
    before = sources.fingerprint(source, tmp_path)
    assert before == sources.fingerprint(source, tmp_path)
    fsspec.filesystem("memory").pipe("/corpus/a.jsonl", lines(TEXTS[:29]))
    assert before != sources.fingerprint(source, tmp_path)


def test_a_prepared_corpus_needs_no_network(
    memory: str, make_space: Callable[..., SearchSpace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = {"name": "a", "source": {"files": f"{memory}/a.jsonl"}}
    space = make_space(domains=[remote, {"name": "b", "source": {"files": "b.jsonl"}}])
    first = prepare(space, tmp_path / "cache")
    assert first.manifest["sources"]["domains"]["a"]["files"][0][0] == "memory:///corpus/a.jsonl"

    def refuse(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(places, "_opener", refuse)
    assert prepare(space, tmp_path / "cache").hash == first.hash
    with pytest.raises(SpaceError, match=r"domain 'a'.*memory://corpus/a\.jsonl.*no network"):
        prepare(space, tmp_path / "another")


def test_a_file_that_links_lead_to_by_several_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.jsonl").write_bytes(lines(TEXTS))
    (tmp_path / "text" / "b.jsonl").symlink_to("a.jsonl")
    (tmp_path / "text" / "again").symlink_to(tmp_path / "text")  # a loop, which ** follows
    assert read(Source(files=("text/**/*.jsonl", "text/../text/a.jsonl")), tmp_path) == TEXTS


def test_a_mark_of_byte_order_is_no_text_and_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbftext")
    assert read(Source(files="a.txt"), tmp_path) == ["text"]
    (tmp_path / "a.jsonl").write_bytes(lines(TEXTS[:3]) + b'{"text": "caf\xe9"}\n')
    with pytest.raises(SpaceError, match=r"a\.jsonl, line 4: not UTF-8 .* take the line out"):
        read(Source(files="a.jsonl"), tmp_path)


def test_unknown_places_are_named(memory: str, tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"memory://corpus/\*\.parquet.*no file matches"):
        read(Source(files=f"{memory}/*.parquet"), tmp_path)
    with pytest.raises(SpaceError, match=r"nosuch://bucket/a\.jsonl.*cannot be opened"):
        read(Source(files="nosuch://bucket/a.jsonl"), tmp_path)


@pytest.mark.slow
def test_s3_is_read_through_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto.server", reason="moto is not installed: no S3 server to read from")
    import pyarrow.fs

    server = moto.ThreadedMotoServer(port=0)
    server.start()
    try:
        for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        host, port = server.get_host_and_port()
        query = f"?endpoint_override={host}:{port}&scheme=http&allow_bucket_creation=true"
        system, _ = pyarrow.fs.FileSystem.from_uri(f"s3://texts/{query}")
        system.create_dir("texts")
        with system.open_output_stream("texts/a.jsonl", compression=None) as stream:
            stream.write(lines(TEXTS))
        assert read(Source(files=f"s3://texts/*.jsonl{query}"), tmp_path) == TEXTS
        with pytest.raises(SpaceError, match="no file matches"):
            read(Source(files=f"s3://texts/*.parquet{query}"), tmp_path)
    finally:
        server.stop()
