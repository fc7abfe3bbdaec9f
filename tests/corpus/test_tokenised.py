"""Token files made elsewhere: Megatron's index as it is published, arrays, and tokenizers that must agree."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymix.corpus import Corpus, prepare, tokenised
from raymix.corpus.tokenizer import Encoder
from raymix.space import SearchSpace, Source, SpaceError

Texts = Callable[[int, int], list[str]]


@pytest.fixture
def encoder(make_space: Callable[..., SearchSpace], tmp_path: Path) -> Encoder:
    """A small tokenizer, kept as tok.json beside the data."""
    corpus = prepare(make_space(), tmp_path / "first")
    (tmp_path / "tok.json").write_bytes((corpus.path / "tokenizer.json").read_bytes())
    return Encoder((tmp_path / "tok.json").read_text(), corpus.end_of_text)


def write_megatron(stem: Path, sequences: list[np.ndarray[Any, Any]], bounds: list[int], code: int = 8) -> None:
    """As Megatron's IndexedDatasetBuilder writes it (version 1)."""
    dtype = {4: "<i4", 8: "<u2"}[code]
    stem.with_suffix(".bin").write_bytes(b"".join(ids.astype(dtype).tobytes() for ids in sequences))
    lengths = np.asarray([len(ids) for ids in sequences], "<i4")
    offsets = (np.cumsum(lengths, dtype="<i8") - lengths) * np.dtype(dtype).itemsize
    head = b"MMIDIDX\x00\x00" + struct.pack("<Q", 1) + struct.pack("<B", code)
    head += struct.pack("<Q", len(sequences)) + struct.pack("<Q", len(bounds))
    stem.with_suffix(".idx").write_bytes(
        head + lengths.tobytes() + offsets.astype("<i8").tobytes() + np.asarray(bounds, "<i8").tobytes()
    )


def of_tokens(make_space: Callable[..., SearchSpace], **source: Any) -> SearchSpace:
    """Domain a from token files, b from text."""
    domains = [
        {"name": "a", "source": {"tokenizer": "tok.json", **source}},
        {"name": "b", "source": {"files": "b.jsonl"}},
    ]
    return make_space(domains=domains, tokenizer="tok.json")


def from_text(make_space: Callable[..., SearchSpace], tmp_path: Path) -> Corpus:
    return prepare(make_space(tokenizer="tok.json"), tmp_path / "text")


@pytest.mark.parametrize("code", [4, 8])
@pytest.mark.parametrize("ends", [True, False])
def test_megatron_gives_the_very_shards_that_its_text_gives(
    make_space: Callable[..., SearchSpace], tmp_path: Path, texts: Texts, encoder: Encoder, code: int, ends: bool
) -> None:
    documents = encoder.encode(texts(60, 0))  # with end of text
    sequences = documents if ends else [ids[:-1] for ids in documents]
    write_megatron(tmp_path / "a_text_document", sequences, list(range(61)), code)
    corpus = prepare(of_tokens(make_space, tokens="a_text_document"), tmp_path / "cache")
    expected = from_text(make_space, tmp_path)
    assert corpus.hash == expected.hash  # same split, same bytes: documents have one identity either way
    assert corpus.bytes_per_token == expected.bytes_per_token


def test_documents_of_several_sequences_are_joined(tmp_path: Path) -> None:
    sequences = [np.arange(i, i + 3) for i in range(0, 15, 3)]
    write_megatron(tmp_path / "x", sequences, [0, 2, 2, 5])
    source = Source(tokens="x.idx", tokenizer="any")
    listed = tokenised.matching(source, tmp_path)
    chunks = list(tokenised.plan(source, listed, 99))
    found = [ids.tolist() for chunk in chunks for ids in tokenised.read(source, chunk, 100, 99)]
    assert found == [list(range(6)), list(range(6, 15))]  # the empty document is left out


@pytest.mark.parametrize("starts", [True, False])
@pytest.mark.parametrize("form", ["npy", "uint16", "uint32"])
def test_arrays_are_cut_at_end_of_text_or_where_a_file_says(
    make_space: Callable[..., SearchSpace], tmp_path: Path, texts: Texts, encoder: Encoder, form: str, starts: bool
) -> None:
    documents = encoder.encode(texts(60, 0))
    documents = [ids[:-1] for ids in documents] if starts else documents
    joined = np.concatenate(documents)
    source: dict[str, Any] = {"tokens": "data.npy" if form == "npy" else "data.bin"}
    if form == "npy":
        np.save(tmp_path / "data.npy", joined)
    else:
        (tmp_path / "data.bin").write_bytes(joined.astype(form).tobytes())
        source["dtype"] = form
    if starts:
        lengths = [len(ids) for ids in documents]
        np.save(tmp_path / "data.starts.npy", np.cumsum(lengths) - lengths)
        source["document_starts"] = ".starts.npy"
    corpus = prepare(of_tokens(make_space, **source), tmp_path / "cache")
    assert corpus.hash == from_text(make_space, tmp_path).hash


def test_changed_tokens_are_read_anew_by_the_same_process(
    make_space: Callable[..., SearchSpace], tmp_path: Path, encoder: Encoder
) -> None:
    space = of_tokens(make_space, tokens="data.npy", document_starts=".starts.npy")

    def prepared(n: int, every: int, cache: str = "cache") -> Corpus:
        np.save(tmp_path / "data.npy", np.random.default_rng(0).integers(1, 300, n, dtype=np.uint16))
        np.save(tmp_path / "data.starts.npy", np.arange(0, n, every))
        return prepare(space, tmp_path / cache)

    prepared(3000, 30)
    longer = prepared(6000, 30)
    assert longer.hash == prepared(6000, 30, "another cache").hash
    cut_elsewhere = prepared(6000, 60).manifest
    assert cut_elsewhere["train"]["a"]["documents"] + cut_elsewhere["eval"]["a"]["documents"] == 100


def test_chunks_cover_every_document_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenised, "SMALLEST", 64)
    rng = np.random.default_rng(0)
    documents = [np.append(rng.integers(0, 50, rng.integers(1, 40)), 99) for _ in range(40)]
    np.save(tmp_path / "x.npy", np.concatenate(documents).astype(np.uint16))
    source = Source(tokens="*.npy", tokenizer="any")
    chunks = list(tokenised.plan(source, tokenised.matching(source, tmp_path), 99))
    found = [ids.tolist() for chunk in chunks for ids in tokenised.read(source, chunk, 100, 99)]
    assert len(chunks) > 5
    assert found == [ids[:-1].tolist() for ids in documents]


def test_other_tokenizer_is_refused_by_name_and_by_ids(
    make_space: Callable[..., SearchSpace], tmp_path: Path, encoder: Encoder
) -> None:
    np.save(tmp_path / "x.npy", np.asarray([1, 2, 60_000, encoder.end_of_text], np.uint16))
    with pytest.raises(SpaceError, match=r"'a'.*made by 'gpt2'.*of the space is 'tok.json'"):
        prepare(of_tokens(make_space, tokens="x.npy", tokenizer="gpt2"), tmp_path / "cache")
    with pytest.raises(SpaceError, match=r"'a'.*id 60000.*vocabulary of 'tok.json' ends at 319"):
        prepare(of_tokens(make_space, tokens="x.npy"), tmp_path / "cache")
    with pytest.raises(SpaceError, match=r"'a'.*vocab 50257.*'tok.json' has 320"):
        prepare(of_tokens(make_space, tokens="x.npy", vocab=50257), tmp_path / "cache")
    with pytest.raises(SpaceError, match="says what made them: tokenizer"):
        make_space(domains=[{"name": "a", "source": {"tokens": "x.npy"}}, {"name": "b"}])


def read_all(folder: Path, **source: Any) -> None:
    given = Source.model_validate({"tokenizer": "any", **source})
    for chunk in tokenised.plan(given, tokenised.matching(given, folder), 99):
        list(tokenised.read(given, chunk, 100, 99))


def test_damage_is_named(tmp_path: Path) -> None:
    write_megatron(tmp_path / "x", [np.arange(50)] * 3, [0, 1, 2, 3])
    index = (tmp_path / "x.idx").read_bytes()
    (tmp_path / "x.bin").write_bytes((tmp_path / "x.bin").read_bytes()[:-2])
    with pytest.raises(SpaceError, match=r"x\.bin: 300 bytes expected by x\.idx, 298 found"):
        read_all(tmp_path, tokens="x")
    for damaged, message in {
        index[:-8]: "ends before",
        b"NOTIDX" + index[6:]: "not a Megatron index",
        index[:9] + struct.pack("<Q", 2) + index[17:]: "version 2",
        index[:-8] + struct.pack("<q", 7): "not ordered from 0 to 3",
    }.items():
        tokenised.read_index.cache_clear()
        (tmp_path / "x.idx").write_bytes(damaged)
        with pytest.raises(SpaceError, match=message):
            read_all(tmp_path, tokens="x")
    (tmp_path / "empty.npy").write_bytes(b"")
    with pytest.raises(SpaceError, match=r"empty\.npy: not a NumPy array"):
        read_all(tmp_path, tokens="empty.npy")
    (tmp_path / "raw.dat").write_bytes(b"123")
    with pytest.raises(SpaceError, match="give dtype"):
        read_all(tmp_path, tokens="raw.dat")
    with pytest.raises(SpaceError, match="3 bytes are no whole number of uint16"):
        read_all(tmp_path, tokens="raw.dat", dtype="uint16")
    (tmp_path / "raw.dat").write_bytes(b"1234")
    with pytest.raises(SpaceError, match="no end-of-text token"):
        read_all(tmp_path, tokens="raw.dat", dtype="uint16")
    with pytest.raises(SpaceError, match="copy them"):
        read_all(tmp_path, tokens="s3://bucket/x")
    with pytest.raises(SpaceError, match="no file matches"):
        read_all(tmp_path, tokens="absent")
