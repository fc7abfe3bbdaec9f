"""Byte-level BPE by words: a word is given to the tokenizer once and looked up ever after.

A byte-level BPE first cuts text into words by a pattern (Radford et al. 2019, section 2.2) and never merges across
them, so the ids of a text are those of its words, and most words of a corpus have come before. Left to the tokenizers
library: tokenizers that are not of this form, and texts with characters that the two engines of patterns class
differently (letters of a Unicode version that only one of them knows).
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

Dtype = type[np.uint16] | type[np.uint32]
BYTE_LEVEL = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # GPT-2's and ByteLevel's
LONGEST = 64  # characters of a word that is remembered: longer ones hardly come again
MOST = 500_000  # words remembered, in some 100 MB

NEW = 0.5  # of a batch's text in words never met: too many to be looked up again (Chinese, say, has no spaces)


def pattern_of(backend: Any) -> str | None:
    """What a `tokenizers.Tokenizer` cuts text by, or None where the ids of words are not all there is to it."""
    made = json.loads(backend.to_str())
    if made["model"]["type"] != "BPE" or made["model"]["dropout"] or made["normalizer"] is not None:
        return None
    if not all(token["special"] for token in made["added_tokens"]):  # looked for before text is cut
        return None
    before = made["pre_tokenizer"] or {}
    match before.get("pretokenizers", [before]):
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return BYTE_LEVEL
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            return pattern
    return None


def words_of(backend: Any, dtype: Dtype) -> "Words | None":
    """The words of a tokenizer, or None where they cannot stand for it."""
    try:
        pattern = regex.compile(pattern_of(backend) or "()")
    except regex.error:  # what the other engine alone can read
        return None
    return None if pattern.groups else Words(backend, pattern, dtype)


class Words:
    """The ids of the words met so far.

    Args:
        backend: a `tokenizers.Tokenizer`.
        pattern: what it cuts text by, without groups; see `pattern_of`.
        dtype: of the ids.
    """

    def __init__(self, backend: Any, pattern: regex.Pattern[str], dtype: Dtype) -> None:
        self._backend = backend
        self._cut: Callable[[str], list[str]] = pattern.findall
        self._dtype = dtype
        self._ids: dict[str, bytes] = {}
        self._alike: dict[str, bool] = {}

    def encode(self, texts: Sequence[str]) -> list[NDArray[Any] | None]:
        """Ids of each text, just those the tokenizer gives; None for a text that is better left to the tokenizer."""
        if len(self._ids) > MOST:
            self._ids.clear()
        words = [self._cut(text) for text in texts]
        new = set[str]().union(*words) - self._ids.keys()
        if sum(map(len, new)) > NEW * sum(map(len, texts)):
            return [None] * len(texts)
        self._learn(sorted(filter(self._is_a_word, new)))
        found = [self._joined(text, cut) for text, cut in zip(texts, words, strict=True)]
        for word in new:
            if len(word) > LONGEST:
                self._ids.pop(word, None)
        return found

    def _learn(self, words: list[str]) -> None:
        for word, encoded in zip(words, self._backend.encode_batch_fast(words, add_special_tokens=False), strict=True):
            self._ids[word] = np.asarray(encoded.ids, dtype=self._dtype).tobytes()

    def _joined(self, text: str, words: list[str]) -> NDArray[Any] | None:
        try:
            ids = b"".join(map(self._ids.__getitem__, words))
        except KeyError:
            return None
        return np.frombuffer(ids, dtype=self._dtype) if sum(map(len, words)) == len(text) else None

    def _is_a_word(self, word: str) -> bool:
        """Whether the tokenizer, too, sees one word, here and wherever it stands."""
        return all(map(self._is_alike, set(word))) and self._cut(word) == [word]

    def _is_alike(self, char: str) -> bool:
        """Whether both engines cut around a character at the same places."""
        if char not in self._alike:
            probe = f"a{char}a 1{char}1 .{char}. {char}{char}  {char} \n{char}b '{char}A{char}\r\n{char}"
            theirs = [end - begin for _, (begin, end) in self._backend.pre_tokenizer.pre_tokenize_str(probe)]
            self._alike[char] = theirs == [len(word) for word in self._cut(probe)]
        return self._alike[char]
