"""Shards: names that stay inside, damage that is refused, folders that are whole or not there."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raymix.corpus import Corpus, CorpusError, open_corpus, prepare
from raymix.corpus.shards import MANIFEST, file_name, new_folder
from raymix.space import SearchSpace


@pytest.fixture
def corpus(make_space: Callable[..., SearchSpace], tmp_path: Path) -> Corpus:
    return prepare(make_space(), tmp_path / "cache")


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", "\u6570\u636e", "<script>", "x" * 300, "CON", "a\0b"])
def test_file_names_are_path_safe(name: str) -> None:
    made = file_name("train", name)
    assert Path(made).name == made
    assert made.isascii()
    assert len(made) < 80
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


def test_file_names_never_collide() -> None:
    names = ["\u6570\u636e", "\u4ee3\u7801", "a b", "a-b", "A b", "\u00e4", "a"]
    assert len({file_name("train", name) for name in names}) == len(names)


def test_opens_what_was_written(corpus: Corpus) -> None:
    again = open_corpus(corpus.path)
    assert again.hash == corpus.hash
    assert again.tokens == {name: len(again.train(name)) for name in "ab"}
    assert again.train("a").dtype == np.uint16
    assert int(again.train("a").max()) < again.vocab
    assert again.train("a")[-1] == again.end_of_text
    assert (again.train("a") == again.end_of_text).sum() == again.manifest["train"]["a"]["documents"]
    assert not [path for path in corpus.path.iterdir() if path.suffix == ".tmp"]


def shard(corpus: Corpus) -> Path:
    return corpus.path / str(corpus.manifest["train"]["a"]["file"])


def test_truncated_shard_is_refused_with_both_sizes(corpus: Corpus) -> None:
    path, data = shard(corpus), shard(corpus).read_bytes()
    path.write_bytes(data[:-2])
    with pytest.raises(CorpusError, match=rf"{path.name}.*{len(data)} bytes expected, {len(data) - 2} found"):
        open_corpus(corpus.path, verify=False)


def test_flipped_bit_is_refused(corpus: Corpus) -> None:
    path, data = shard(corpus), bytearray(shard(corpus).read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=rf"{path.name}: sha256 .* expected, .* found"):
        open_corpus(corpus.path)


def test_missing_shard_and_missing_manifest_are_refused(corpus: Corpus) -> None:
    shard(corpus).unlink()
    with pytest.raises(CorpusError, match="missing"):
        open_corpus(corpus.path)
    (corpus.path / MANIFEST).unlink()
    with pytest.raises(CorpusError, match="no manifest"):
        open_corpus(corpus.path)


@pytest.mark.parametrize(
    "damage", [lambda t: t[:-40], lambda t: t.replace('"tokens": ', '"tokens": 1'), lambda t: "[]"]
)
def test_damaged_manifest_is_refused(corpus: Corpus, damage: Callable[[str], str]) -> None:
    path = corpus.path / MANIFEST
    path.write_text(damage(path.read_text()))
    with pytest.raises(CorpusError, match=MANIFEST):
        open_corpus(corpus.path)


def test_manifest_cannot_point_outside(corpus: Corpus) -> None:
    from raymix.corpus import shards

    manifest = json.loads((corpus.path / MANIFEST).read_text())
    del manifest["sha256"]
    manifest["train"]["a"]["file"] = "../outside.npy"
    signed = {**manifest, "sha256": shards.signature(manifest)}
    (corpus.path / MANIFEST).write_text(json.dumps(signed))
    with pytest.raises(CorpusError, match="outside"):
        open_corpus(corpus.path)


def test_failed_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "corpus") as folder:
        (folder / "half").write_text(str(1 / 0))
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_writers_wins(tmp_path: Path) -> None:
    with new_folder(tmp_path / "corpus") as late:
        with new_folder(tmp_path / "corpus") as early:
            (early / MANIFEST).write_text("early")
        (late / MANIFEST).write_text("late")
    assert (tmp_path / "corpus" / MANIFEST).read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
