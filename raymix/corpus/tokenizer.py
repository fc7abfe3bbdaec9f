"""One tokenizer for all domains: a byte-level BPE trained on their text, or one of transformers.

Either way it is kept as the text of a tokenizer.json, whose hash is part of the corpus.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raymix.corpus.places import in_short
from raymix.corpus.records import Document
from raymix.corpus.words import Words, words_of
from raymix.space import SpaceError
from raymix.space import Tokenizer as TokenizerChoice

END_OF_TEXT = "<|endoftext|>"
KNOWN_ENDS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "<|eot_id|>", "[SEP]")
SAMPLE_BYTES = 8_000_000  # of all domains together; more changes a small vocabulary little
PIECE = 100_000  # characters given to the trainer at a time
LONGEST = 1_000_000  # characters encoded at once: while that lasts each takes up to 150 bytes
CUT = re.compile(r"(?<=[^\W_])(?= [^\W_])")  # before a space between words: tokenizers of words cut there too


@dataclass(frozen=True)
class Encoder:
    """A tokenizer: its definition as JSON text, and the id that ends a document."""

    definition: str
    end_of_text: int

    @cached_property
    def hash(self) -> str:
        """sha256 of definition and end of text."""
        return hashlib.sha256(f"{self.end_of_text}\n{self.definition}".encode()).hexdigest()

    @cached_property
    def backend(self) -> Any:
        """The `tokenizers.Tokenizer`."""
        from tokenizers import Tokenizer

        backend = Tokenizer.from_str(self.definition)
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # "<|endoftext|>" in a document is text, not the end of one
        return backend

    @cached_property
    def vocab(self) -> int:
        """One more than the largest id."""
        return max(map(int, self.backend.get_vocab(with_added_tokens=True).values())) + 1

    @property
    def dtype(self) -> type[np.uint16] | type[np.uint32]:
        """The smallest that holds every id."""
        return np.uint16 if self.vocab <= 1 << 16 else np.uint32

    @cached_property
    def words(self) -> Words | None:
        """The words met so far, where the tokenizer is one of words."""
        return words_of(self.backend, self.dtype)

    def encode(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """Ids of each text, end of text included; a very long text is encoded piece by piece.

        Raises:
            SpaceError: the tokenizer has no id for a part of a text.
        """
        clean = [text.encode("utf-8", "replace").decode() for text in texts]  # lone surrogates
        end = self.dtype(self.end_of_text)
        if max(map(len, clean), default=0) <= LONGEST:
            return [np.append(ids, end) for ids in self._ids(clean)]
        return [np.append(np.concatenate([*self._in_pieces(text)]), end) for text in clean]

    def _in_pieces(self, text: str) -> Iterator[NDArray[Any]]:
        normalizer = self.backend.normalizer
        puts_a_space = normalizer is not None and len(normalizer.normalize_str("a")) > 1  # before any, as Llama 2's
        for i, piece in enumerate(pieces(text, LONGEST)):
            yield self._ids([piece.removeprefix(" ") if i and puts_a_space else piece])[0]

    def _ids(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        try:
            found = self.words.encode(texts) if self.words is not None else [None] * len(texts)
            left = [text for text, ids in zip(texts, found, strict=True) if ids is None]
            others = iter(self.backend.encode_batch_fast(left, add_special_tokens=False))
        except Exception as error:  # the library has one kind for everything
            raise SpaceError(f"the tokenizer cannot encode the text ({error}): take one made for it") from None
        return [np.asarray(next(others).ids if ids is None else ids, dtype=self.dtype) for ids in found]

    def decode(self, ids: NDArray[Any]) -> str:
        """Text of some ids."""
        return str(self.backend.decode(ids.tolist()))

    def texts(self, batch: Sequence[NDArray[Any]]) -> list[str]:
        """Texts of several arrays of ids, special tokens included."""
        found: list[str] = self.backend.decode_batch([ids.tolist() for ids in batch], skip_special_tokens=False)
        return found


def pieces(text: str, longest: int) -> Iterator[str]:
    """A text in pieces of at most `longest` characters that begin with a word, where there are words."""
    start = 0
    while len(text) - start > longest:
        cut = CUT.search(text, start + longest // 2, start + longest)
        end = cut.start() if cut else start + longest
        yield text[start:end]
        start = end
    yield text[start:]


def make_tokenizer(choice: TokenizerChoice, texts: Sequence[Iterable[Document]], folder: Path) -> Encoder:
    """The tokenizer asked for; `texts` are the documents of each domain, read as far as a balanced sample needs.

    Raises:
        SpaceError: a named tokenizer cannot be loaded, or has no end of text.
    """
    if choice.train is not None:
        return train_tokenizer(choice.train.vocab, texts)
    assert choice.name is not None
    return _named(choice.name, folder)


def fingerprint(choice: TokenizerChoice, folder: Path) -> Any:
    """Plain data that changes when the tokenizer does: the choice, and size and time of local files."""
    root = folder / choice.name if choice.name is not None else None
    local = [] if root is None else [root] if root.is_file() else sorted(root.glob("*")) if root.is_dir() else []
    return [choice.model_dump(mode="json"), [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in local]]


def train_tokenizer(vocab: int, texts: Sequence[Iterable[Document]]) -> Encoder:
    """A byte-level BPE; the same texts give the same tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_sample(texts), trainer)
    return _with_known_end(backend.to_str(), "trained here")


def _sample(texts: Sequence[Iterable[Document]]) -> Iterator[str]:
    """The beginning of each domain, equal parts of SAMPLE_BYTES (a small domain gives all it has)."""
    quota = SAMPLE_BYTES // max(1, len(texts))
    for domain in texts:
        left = quota
        for document in domain:
            text = document.text[:left].encode("utf-8", "replace").decode()
            yield from (text[at : at + PIECE] for at in range(0, len(text), PIECE))
            left -= len(text)
            if left <= 0:
                break


def _named(name: str, folder: Path) -> Encoder:
    local = folder / name
    if local.is_file():
        return _from_file(local)
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(str(local) if local.is_dir() else name, trust_remote_code=False)
    except Exception as error:  # the hub's client raises its own, httpx's and OS errors
        if (local / "tokenizer.json").is_file():
            return _from_file(local / "tokenizer.json")
        raise SpaceError(
            f"tokenizer {name!r} cannot be loaded: {in_short(error)}. Check the name; without network give the path of "
            "a local copy, or train one: {train: {vocab: 4096}}"
        ) from None
    if not getattr(found, "is_fast", False):
        raise SpaceError(f"tokenizer {name!r} has no fast form (tokenizer.json); take one that has, or train one")
    definition = found.backend_tokenizer.to_str()
    end = found.eos_token_id
    return Encoder(definition, int(end)) if end is not None else _with_known_end(definition, name)


def _from_file(path: Path) -> Encoder:
    try:
        definition = path.read_text(encoding="utf-8")
        _ = Encoder(definition, 0).backend
    except Exception as error:  # of the tokenizers library any kind
        raise SpaceError(f"tokenizer {path}: not a tokenizer.json ({error})") from None
    return _with_known_end(definition, str(path))


def _with_known_end(definition: str, name: str) -> Encoder:
    vocabulary = Encoder(definition, 0).backend.get_vocab(with_added_tokens=True)
    for end in KNOWN_ENDS:
        if end in vocabulary:
            return Encoder(definition, int(vocabulary[end]))
    raise SpaceError(f"tokenizer {name!r} has no end-of-text token ({', '.join(KNOWN_ENDS)}): add one to it")
