"""Words looked up give the ids that the tokenizer gives."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raymix.corpus import tokenizer, words
from raymix.corpus.records import Document
from raymix.corpus.tokenizer import END_OF_TEXT, Encoder, train_tokenizer
from raymix.corpus.words import words_of

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXT = (
    "It's the year 2024, and they'll  have\n\n\tfor i in range(10):\r\n  don'T \u00e9t\u00e9 \u4f60\u597d \u0661\u0662 "
    * 20
)
NEW_LETTERS = "\u0558 a\ua7ce b\U00033479c \U0001e6c0"  # unassigned, or assigned of late: classed by version

ADDED = {"id": 0, "special": False, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
SHIPPED = words.NEW


@pytest.fixture(autouse=True, scope="module")
def short_texts_are_learnt() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "NEW", 1.0)
        yield


def trained(pattern: str | None = None) -> Encoder:
    encoder = train_tokenizer(400, [[Document(TEXT, TEXT)]])
    if pattern is None:
        return encoder
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return changed(encoder, pre_tokenizer={"type": "Sequence", "pretokenizers": [split, byte_level]})


def changed(encoder: Encoder, **parts: Any) -> Encoder:
    return Encoder(json.dumps({**json.loads(encoder.definition), **parts}), encoder.end_of_text)


def with_merge(encoder: Encoder, left: str, right: str) -> Encoder:
    """One more merge, before all others."""
    model = json.loads(encoder.definition)["model"]
    model["vocab"][left + right] = len(model["vocab"])
    return changed(encoder, model={**model, "merges": [[left, right], *model["merges"]]})


def of_the_library(encoder: Encoder, texts: list[str]) -> list[list[int]]:
    return [
        [*found.ids, encoder.end_of_text] for found in encoder.backend.encode_batch(texts, add_special_tokens=False)
    ]


ENCODERS = {"gpt2": trained(), "llama 3": trained(LLAMA_3)}
CONTRACTIONS = ["'s", "'LL", "'\u017f"]
SPACES = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\x85", "\x1c"]
OTHERS = [*"a9!", "The", "1234", "-->", "\u0663", "\u00bd", "\u00e9", "e\u0301", "\u4f60", "\U0001f600", "\u200d"]
PIECES = st.sampled_from([*CONTRACTIONS, *SPACES, *OTHERS, END_OF_TEXT])


@pytest.mark.parametrize("form", ENCODERS)
@settings(deadline=None, max_examples=300)
@given(texts=st.lists(st.one_of(st.lists(PIECES, max_size=12).map("".join), st.text(max_size=20)), max_size=4))
@example(texts=[NEW_LETTERS, "plain", NEW_LETTERS, ""])
@example(texts=["a" * 1000 + " b", " " * 1000])
def test_ids_are_those_of_the_tokenizer(form: str, texts: list[str]) -> None:
    encoder = ENCODERS[form]
    assert encoder.words is not None
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    assert [ids.tolist() for ids in encoder.encode(texts)] == of_the_library(encoder, clean)


@pytest.mark.parametrize("form", ENCODERS)
def test_a_letter_that_one_engine_does_not_know_is_cut_as_the_tokenizer_does(form: str) -> None:
    first_byte = "\u00ea"  # of all letters below, as byte-level BPE writes it
    encoder = with_merge(with_merge(ENCODERS[form], "a", first_byte), "!", first_byte)
    letters = "\ua7ce\ua7d2\uac00"  # of Unicode 17 and 16, and an old one; to who does not know it a letter is a sign
    texts = [f"{before}{letter}" for letter in letters for before in "a!"]
    assert [ids.tolist() for ids in encoder.encode(texts)] == of_the_library(encoder, texts)


@pytest.mark.parametrize("pattern", [None, LLAMA_3])
def test_a_very_long_text_is_cut_where_its_tokenizer_cuts(monkeypatch: pytest.MonkeyPatch, pattern: str | None) -> None:
    encoder = trained(pattern)
    whole = encoder.encode([TEXT, "a", ""])
    monkeypatch.setattr(tokenizer, "LONGEST", 80)
    assert [ids.tolist() for ids in encoder.encode([TEXT, "a", ""])] == [ids.tolist() for ids in whole]


def test_a_space_that_a_tokenizer_puts_before_a_text_is_not_put_before_its_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As those of Llama 2 and Mistral do."""
    space = [{"type": "Prepend", "prepend": "_"}, {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]
    encoder = changed(trained(), normalizer={"type": "Sequence", "normalizers": space}, pre_tokenizer=None)
    text = "one two three four five " * 20
    whole = encoder.encode([text])[0].tolist()
    monkeypatch.setattr(tokenizer, "LONGEST", 80)
    assert encoder.encode([text])[0].tolist() == whole


@pytest.mark.parametrize("text", ["", "\u4f60\u597d" * 100, "some words " * 50, " " * 100])
def test_pieces_are_the_text_and_none_is_too_long(text: str) -> None:
    cut = list(tokenizer.pieces(text, 30))
    assert "".join(cut) == text
    assert all(len(piece) <= 30 for piece in cut)


def test_a_word_is_given_to_the_tokenizer_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = trained()
    given: list[str] = []
    found = words_of(encoder.backend, np.uint16)
    assert found is not None
    learn = found._learn
    monkeypatch.setattr(found, "_learn", lambda new: (given.extend(new), learn(new))[1])
    for text in ("the year the year", "the year 2024", " 2024"):
        assert found.encode([text])[0] is not None
    assert sorted(given) == [" 2024", " the", " year", "the"]


def test_words_that_hardly_come_again_are_left_to_the_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "NEW", SHIPPED)
    found = words_of(trained().backend, np.uint16)
    assert found is not None
    assert found.encode(["".join(f" word{letter}" for letter in "abcdefgh")]) == [None]
    assert not found._ids


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MOST", 10)
    encoder = trained()
    found = words_of(encoder.backend, np.uint16)
    assert found is not None
    for i in range(20):
        assert found.encode([f"word{i} " + "z" * 200])[0] is not None
    assert len(found._ids) <= 10 + 3
    assert max(map(len, found._ids)) <= words.LONGEST


def test_engines_that_class_a_character_differently_leave_its_text_to_the_tokenizer() -> None:
    encoder = trained()
    found = words_of(encoder.backend, np.uint16)
    assert found is not None
    found._alike["q"] = False  # as with a letter of a Unicode version that one of them does not know
    assert [ids is None for ids in found.encode(["the year", "a quick year", "the"])] == [False, True, False]
    mixed = trained()
    mixed.__dict__["words"] = found
    texts = ["the year", "a quick year", "the", "q"]
    assert [ids.tolist() for ids in mixed.encode(texts)] == of_the_library(encoder, texts)


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"added_tokens": [{**ADDED, "content": "the"}]},
    ],
)
def test_tokenizers_that_are_more_than_their_words_are_left_alone(parts: dict[str, Any]) -> None:
    encoder = changed(trained(), **parts)
    assert encoder.words is None
    assert [ids.tolist() for ids in encoder.encode([TEXT])] == of_the_library(encoder, [TEXT])


@pytest.mark.parametrize("pattern", [r"(a)|\s+", r"\p{L}+", r"[[:alpha:]&&[^x]]+|\G.", r"(?<=a)b+|[^b]+|b"])
def test_patterns_that_leave_gaps_or_look_around_give_the_same_ids(pattern: str) -> None:
    encoder = trained(pattern)
    texts = ["a bb abb ", TEXT]
    assert [ids.tolist() for ids in encoder.encode(texts)] == of_the_library(encoder, texts)
