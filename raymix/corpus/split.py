"""Which documents are held out: decided by origin, the same for all domains, and checked for overlap.

An origin (a source file, or a document's own hash) has a fixed random place between 0 and 1. A domain that is
evaluated holds out the origins with the lowest places, until it has text enough; what one domain holds out, no
domain trains on. An origin that is too much of its domain by itself, a huge document say, is never held out while the
domain has others.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raymix.corpus.records import Document
from raymix.space import SpaceError

RULE = 2  # goes up when the split changes
HELD_OUT = 0.05  # of a domain's tokens
ENOUGH = 16  # times eval_tokens: a large domain holds out no more
SPARE = 1.5  # times eval_tokens: a small domain holds out at least so much, and
DOCUMENTS = 8  # so many documents, but
AT_MOST = 0.2  # never more than this part of its tokens

COLUMNS = [("origin", "<u8"), ("content", "<u8"), ("n_tokens", "<i8"), ("n_bytes", "<i8")]

Ids = NDArray[np.uint64]
Documents = NDArray[Any]
"""What is known of the documents of one source, in their order: an array of `COLUMNS`."""


def identify(document: Document) -> tuple[int, int]:
    """64-bit hashes of a document's origin and of its text."""
    content = _hash(document.text.strip())
    return content if document.origin is document.text else _hash(document.origin), content


def held_out_origins(evaluated: Mapping[str, Documents], eval_tokens: int) -> Ids:
    """The origins that no domain may train on, given the tables of the domains that have held-out eval domains."""
    chosen = [_lowest(table, eval_tokens) for table in evaluated.values()]
    return np.unique(np.concatenate([*chosen, np.empty(0, dtype=np.uint64)]))


def _lowest(table: Documents, eval_tokens: int) -> Ids:
    origins, member = np.unique(table["origin"], return_inverse=True)
    tokens = np.bincount(member, weights=table["n_tokens"], minlength=len(origins))  # unique sorts: hashes are places
    if len(origins) < 2:
        return origins[:0]
    total = tokens.sum()
    small = tokens <= AT_MOST * total
    if not small.any():
        smallest = int(tokens.argmin())
        return origins[smallest : smallest + 1]
    origins, tokens = np.compress(small, origins), tokens[small]
    goal = max(SPARE * eval_tokens, min(HELD_OUT * total, ENOUGH * eval_tokens))
    before = np.cumsum(tokens) - tokens
    wanted = (before < goal) | (np.arange(len(origins)) < DOCUMENTS)
    allowed = before + tokens <= AT_MOST * total
    return origins[: int((wanted & allowed).sum())]  # either holds up to some place, and not beyond


def check_overlap(trained: Mapping[str, Ids], evaluated: Mapping[str, Ids]) -> tuple[int, str, int] | None:
    """How many eval documents also stand in training text, with an example (eval domain, its document's place)."""
    everything = np.unique(np.concatenate(list(trained.values())))
    count, example = 0, None
    for name, content in evaluated.items():
        places = np.flatnonzero(np.isin(content, everything))
        count += len(places)
        if len(places) and example is None:
            example = (name, int(places[0]))
    return None if example is None else (count, *example)


def require_text(kind: str, name: str, n_tokens: int, remedy: str, left: str = "") -> None:
    """Raise where there is none; `left` is " left" where there was some."""
    if n_tokens < 2:
        raise SpaceError(f"{kind} {name!r} has no text{left}: {remedy or 'give it a source that has'}")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "big")
