"""What a corpus depends on, as one hash; the sources of a space, and errors that name the domain they belong to."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raymix.corpus import shards, sources, split, tokenizer
from raymix.space import SearchSpace, Source, SpaceError

Key = tuple[str, str]
"""("domain" or "eval domain", its name)."""


def corpus_key(space: SearchSpace) -> str:
    """Hash of everything the tokens and their split depend on.

    What the hub or a URL holds counts as it was when it was first read, so that a cached corpus needs no network.
    """
    prints = fingerprints(space, reach=False)
    described = {
        "format": shards.FORMAT,
        "split": split.RULE,
        "domains": [(d.name, prints["domain", d.name]) for d in space.domains],
        "eval_domains": [(e.name, e.own, prints.get(("eval domain", e.name))) for e in space.eval_domains],
        "tokenizer": tokenizer.fingerprint(space.tokenizer, space.folder),
        "eval_tokens": space.recipe.eval_tokens,
        "allow_eval_overlap": space.allow_eval_overlap,
    }
    return _hash(described)


def tokens_key(space: SearchSpace, prints: dict[Key, Any]) -> str:
    """Hash of what the parts depend on: not of how they are split."""
    named = [(*key, value) for key, value in prints.items()]
    return _hash([shards.FORMAT, named, tokenizer.fingerprint(space.tokenizer, space.folder)])


def _hash(described: Any) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]


def given_sources(space: SearchSpace) -> dict[Key, Source]:
    """The sources, domains before eval domains."""
    every = {("domain", d.name): d.source for d in space.domains}
    every |= {("eval domain", e.name): e.source for e in space.eval_domains}
    return {key: source for key, source in every.items() if source is not None}


def fingerprints(space: SearchSpace, reach: bool = True) -> dict[Key, Any]:
    """What the text of each source depends on; without `reach` no network is asked."""
    found = {}
    for key, source in given_sources(space).items():
        with naming(key):
            found[key] = sources.fingerprint(source, space.folder, reach)
    return found


@contextmanager
def naming(key: Key) -> Iterator[None]:
    """Errors of a source, with the domain it belongs to."""
    try:
        yield
    except SpaceError as error:
        raise of_domain(key, error) from None


def of_domain(key: Key, error: SpaceError) -> SpaceError:
    """The same error, with the domain before its words."""
    return type(error)(f"{key[0]} {key[1]!r}: {error}")


def check_tokenizers(space: SearchSpace) -> None:
    """Raise where tokens were made by another tokenizer than the space's."""
    for (kind, name), source in given_sources(space).items():
        if source.tokens is not None and source.tokenizer != space.tokenizer.name:
            ours = repr(space.tokenizer.name) if space.tokenizer.name is not None else "trained here"
            raise SpaceError(
                f"{kind} {name!r}: its tokens were made by {source.tokenizer!r}, the tokenizer of the space is {ours}: "
                "one tokenizer makes all tokens of a study"
            )
