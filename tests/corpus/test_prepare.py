"""Preparing a corpus: split by origin, overlap refused, cached by everything it depends on."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymix.corpus import Corpus, CorpusError, Document, prepare
from raymix.corpus.split import COLUMNS, Documents, held_out_origins, identify
from raymix.corpus.tokenizer import Encoder
from raymix.plan import plan
from raymix.space import SearchSpace, SpaceError

MakeSpace = Callable[..., SearchSpace]
Texts = Callable[[int, int], list[str]]
Write = Callable[[Path, list[str]], Path]


def decoded(corpus: Corpus, tokens: np.ndarray[Any, Any]) -> set[str]:
    tokenizer = Encoder((corpus.path / "tokenizer.json").read_text(), corpus.end_of_text)
    ends = np.flatnonzero(tokens == corpus.end_of_text)
    return {tokenizer.decode(piece) for piece in np.split(tokens, ends + 1)[:-1]}


def test_every_document_is_on_one_side_and_none_is_lost(
    make_space: MakeSpace, tmp_path: Path, texts: Texts, write_jsonl: Write
) -> None:
    write_jsonl(tmp_path / "a.jsonl", texts(50, 0) + texts(10, 0))  # duplicates stay, on their side
    corpus = prepare(make_space(), tmp_path / "cache")
    for seed, name in enumerate("ab"):
        train, held = decoded(corpus, corpus.train(name)), decoded(corpus, corpus.eval(name))
        assert not train & held
        assert train | held == set(texts(50 if name == "a" else 60, seed))
        assert corpus.eval_tokens[name] >= 128
    assert corpus.manifest["train"]["a"]["documents"] + corpus.manifest["eval"]["a"]["documents"] == 60


def test_text_in_two_domains_is_on_the_same_side_in_both(
    make_space: MakeSpace, tmp_path: Path, texts: Texts, write_jsonl: Write
) -> None:
    write_jsonl(tmp_path / "a.jsonl", texts(60, 0))
    write_jsonl(tmp_path / "b.jsonl", texts(60, 0) + texts(20, 1))
    corpus = prepare(make_space(), tmp_path / "cache")
    held = decoded(corpus, corpus.eval("a")) | decoded(corpus, corpus.eval("b"))
    assert not held & (decoded(corpus, corpus.train("a")) | decoded(corpus, corpus.train("b")))


def of_rows(rows: list[tuple[int, int, int, int]]) -> Documents:
    return np.asarray(rows, dtype=COLUMNS)


def test_what_one_domain_holds_out_no_domain_trains_on() -> None:
    rows = [(*identify(Document(f"text {i}", f"file {i}")), 100, 400) for i in range(100)]
    away = held_out_origins({"docs": of_rows(rows)}, 200)
    assert len(away) == 8  # 5% are 5, and 1.5 x eval_tokens 3
    assert len(held_out_origins({"docs": of_rows(rows)}, 1000)) == 15
    assert np.array_equal(np.sort(of_rows(rows)["origin"])[: len(away)], away)


def test_large_domain_holds_out_no_more_than_it_needs() -> None:
    rows = [(*identify(Document(f"text {i}", f"file {i}")), 100, 400) for i in range(5000)]
    assert len(held_out_origins({"web": of_rows(rows)}, 100)) == 16  # 16 x eval_tokens, not 5%


@pytest.mark.parametrize("huge", range(20))
def test_one_huge_document_is_trained_on_wherever_its_hash_lies(huge: int) -> None:
    rows = [(i, i, 1_000_000 if i == huge else 100, 400) for i in range(40)]
    away = held_out_origins({"books": of_rows(rows)}, 200)
    assert huge not in away and len(away) == 32  # 16 x eval_tokens


@given(st.lists(st.integers(1, 400), min_size=2, max_size=60), st.integers(1, 2000), st.integers(0, 2**32 - 1))
def test_a_domain_holds_out_enough_and_at_most_a_fifth(sizes: list[int], eval_tokens: int, seed: int) -> None:
    """Origins in the order of their places: eight, or one and a half times what evaluation reads, and the next not."""
    place_O = np.sort(np.random.default_rng(seed).choice(2**40, len(sizes), replace=False))
    away = held_out_origins({"a": of_rows([(int(p), i, sizes[i], 4) for i, p in enumerate(place_O)])}, eval_tokens)
    size_O, limit = np.array(sizes), 0.2 * sum(sizes)
    held_O = np.isin(place_O, away)
    if (size_O > limit).all():
        assert size_O[held_O].tolist() == [size_O.min()]
        return
    assert size_O[held_O].sum() <= limit and size_O[held_O].max(initial=0) <= limit
    small_O = np.flatnonzero(size_O <= limit)
    assert np.array_equal(np.flatnonzero(held_O), small_O[: held_O.sum()])
    following = size_O[small_O[held_O.sum() :]][:1].sum()
    enough = held_O.sum() >= 8 and size_O[held_O].sum() >= 1.5 * eval_tokens
    assert enough or following == 0 or size_O[held_O].sum() + following > limit


def test_of_a_few_large_documents_the_smallest_is_held_out() -> None:
    rows = [(0, 0, 900, 4), (1, 1, 300, 4), (2, 2, 700, 4)]
    assert held_out_origins({"books": of_rows(rows)}, 200).tolist() == [1]


def test_overlap_of_an_eval_source_is_refused_with_count_and_example(
    make_space: MakeSpace, tmp_path: Path, texts: Texts, write_jsonl: Write
) -> None:
    write_jsonl(tmp_path / "exams.jsonl", [*texts(3, 9), *texts(2, 0)])
    evals = [{"name": "exams", "source": {"files": "exams.jsonl"}}]
    with pytest.raises(SpaceError, match=r"2 document\(s\).*'exams'.*'0-0.*allow_eval_overlap"):
        prepare(make_space(eval_domains=evals), tmp_path / "cache")
    corpus = prepare(make_space(eval_domains=evals, allow_eval_overlap=True), tmp_path / "cache")
    assert corpus.manifest["eval"]["exams"]["documents"] == 5
    assert corpus.manifest["train"]["a"]["documents"] == 60  # nothing needs to be held out


def test_cache_is_used_and_a_changed_file_makes_a_new_corpus(make_space: MakeSpace, tmp_path: Path) -> None:
    stages: list[str] = []
    first = prepare(make_space(), tmp_path / "cache", lambda stage, done: stages.append(stage))
    assert [*dict.fromkeys(stages)] == ["read", "tokenizer", "tokenise", "write"]
    again = prepare(make_space(), tmp_path / "cache", lambda stage, done: stages.append("made"))
    assert again.path == first.path
    assert "made" not in stages
    with (tmp_path / "a.jsonl").open("a") as stream:
        stream.write('{"text": "one more"}\n')
    assert prepare(make_space(), tmp_path / "cache").path != first.path


def test_same_text_gives_the_same_corpus(make_space: MakeSpace, tmp_path: Path) -> None:
    first = prepare(make_space(), tmp_path / "one")
    os.utime(tmp_path / "a.jsonl", (1, 1))  # another key, the same tokens
    second = prepare(make_space(), tmp_path / "two")
    assert first.path.name != second.path.name
    assert first.hash == second.hash


def test_damaged_cache_is_refused_not_remade(make_space: MakeSpace, tmp_path: Path) -> None:
    corpus = prepare(make_space(), tmp_path / "cache")
    (corpus.path / "tokenizer.json").write_text("{}")
    with pytest.raises(CorpusError, match=r"tokenizer\.json"):
        prepare(make_space(), tmp_path / "cache")


def test_empty_domain_is_named(make_space: MakeSpace, tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(SpaceError, match="domain 'b' has no text"):
        prepare(make_space(), tmp_path / "cache")
    assert list((tmp_path / "cache" / "corpora").iterdir()) == []


def test_missing_source_names_the_domain(make_space: MakeSpace, tmp_path: Path) -> None:
    space = make_space()
    (tmp_path / "b.jsonl").unlink()
    with pytest.raises(SpaceError, match=r"'b'.*no file matches"):
        prepare(space, tmp_path / "cache")


def test_domain_of_one_document_cannot_be_held_out_from(
    make_space: MakeSpace, tmp_path: Path, write_jsonl: Write
) -> None:
    write_jsonl(tmp_path / "b.jsonl", ["only one"])
    with pytest.raises(SpaceError, match=r"eval domain 'b'.*too few documents"):
        prepare(make_space(), tmp_path / "cache")


def test_domain_shorter_than_a_sequence_is_named_before_any_trial(make_space: MakeSpace, tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("few words")
    domains = [{"name": "a", "source": {"files": "a.jsonl"}}, {"name": "b", "source": {"files": "b.txt"}}]
    for _ in range(2):  # made, then found in the cache
        with pytest.raises(SpaceError, match=r"domain 'b' has \d+ tokens to train on, a sequence takes 17"):
            prepare(make_space(domains=domains, eval_domains=[{"name": "a", "own": "a"}]), tmp_path / "cache")


def test_space_without_sources_has_nothing_to_prepare(make_space: MakeSpace, tmp_path: Path) -> None:
    space = make_space(domains=[{"name": "a"}, {"name": "b"}], eval_domains=[{"name": "x"}])
    with pytest.raises(SpaceError, match="no source"):
        prepare(space, tmp_path / "cache")


def test_odd_names_are_kept_verbatim_and_stay_inside(make_space: MakeSpace, tmp_path: Path) -> None:
    names = ["../../etc", "\u6570\u636e"]
    space = make_space(
        domains=[{"name": n, "source": {"files": f"{f}.jsonl"}} for n, f in zip(names, "ab", strict=True)],
        eval_domains=[{"name": n, "own": n} for n in names],
    )
    corpus = prepare(space, tmp_path / "cache")
    assert list(corpus.tokens) == sorted(names)
    assert {path.parent for path in (tmp_path / "cache").rglob("*.npy")} == {corpus.path}


def test_tokenizer_can_be_a_local_file(make_space: MakeSpace, tmp_path: Path) -> None:
    first = prepare(make_space(), tmp_path / "cache")
    (tmp_path / "mine.json").write_bytes((first.path / "tokenizer.json").read_bytes())
    second = prepare(make_space(tokenizer="mine.json"), tmp_path / "cache")
    assert second.hash == first.hash


WITHOUT_UNKNOWN = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0, "</s>": 1}, "unk_token": "?"}}


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ('{"x": 1}', r"tokenizer .*mine\.json: not a tokenizer\.json"),
        ("[1", r"tokenizer .*mine\.json: not a tokenizer\.json"),
        (json.dumps(WITHOUT_UNKNOWN), "domain 'a': the tokenizer cannot encode the text"),
    ],
)
def test_a_tokenizer_that_will_not_do_is_one_sentence(
    make_space: MakeSpace, tmp_path: Path, definition: str, message: str
) -> None:
    (tmp_path / "mine.json").write_text(definition)
    with pytest.raises(SpaceError, match=message):
        prepare(make_space(tokenizer="mine.json"), tmp_path / "cache")


def test_the_name_of_a_special_token_in_a_document_is_text(make_space: MakeSpace, tmp_path: Path) -> None:
    corpus = prepare(make_space(), tmp_path / "cache")
    definition = json.loads((corpus.path / "tokenizer.json").read_text())
    (name,) = [token["content"] for token in definition["added_tokens"] if token["id"] == corpus.end_of_text]
    tokenizer = Encoder(json.dumps(definition), corpus.end_of_text)
    (ids,) = tokenizer.encode([f"before {name} after"])
    assert list(ids).count(corpus.end_of_text) == 1 and ids[-1] == corpus.end_of_text
    assert tokenizer.decode(ids[:-1]) == f"before {name} after"


def test_bytes_per_token_counts_the_text(make_space: MakeSpace, tmp_path: Path) -> None:
    corpus = prepare(make_space(), tmp_path / "cache")
    held = decoded(corpus, corpus.eval("a"))
    tokenizer = Encoder((corpus.path / "tokenizer.json").read_text(), corpus.end_of_text)
    assert all(tokenizer.decode(ids[:-1]) == text for text, ids in zip(held, tokenizer.encode(list(held)), strict=True))
    assert corpus.bytes_per_token["a"] == pytest.approx(sum(map(len, held)) / corpus.eval_tokens["a"])


def test_copies_of_a_document_in_its_domain_are_counted_and_said(
    make_space: MakeSpace, texts: Texts, write_jsonl: Write, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "a.jsonl", [*texts(60, 0), *texts(30, 2) * 3])
    space = make_space(eval_domains=[{"name": "b", "own": "b"}])
    corpus = prepare(space, tmp_path / "cache")
    assert corpus.copied["a"] == pytest.approx(60 / 150, abs=0.01) and corpus.copied["b"] == 0
    (said,) = [each for each in plan(space.with_available(corpus.tokens), corpus, slots=1).warnings if "copies" in each]
    assert said.startswith("a: 40% of its tokens are copies")
