"""A tokenised source: its parts one after the other, up to its limit, and the table of all its documents."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raymix.corpus.parts import Part
from raymix.corpus.split import COLUMNS, Documents
from raymix.space import Source

Mask = NDArray[np.bool_]


class Stream(NamedTuple):
    """All tokens of a source that count, in files, and the table of their documents."""

    files: tuple[tuple[Path, int], ...]
    """File of ids, and how many documents of it count."""
    table: Documents
    dtype: Any
    remedy: str
    """What to do if there is nothing in it."""

    @classmethod
    def of(cls, source: Source, parts: list[Part], dtype: Any) -> "Stream":
        """The parts in order; what lies after the document that reaches the source's limit is left out."""
        tables = [part.records() for part in parts]
        records = np.concatenate([*tables, np.empty(0, dtype=COLUMNS)])
        kept = min(_within(records["n_tokens"], source.max_tokens), _within(records["n_bytes"], _bytes(source)))
        ends = np.cumsum([len(table) for table in tables])
        counts = np.clip(kept - (ends - [len(table) for table in tables]), 0, None)
        files = [(part.ids, min(int(n), len(table))) for part, n, table in zip(parts, counts, tables, strict=True)]
        remedy = f"its filter ({', '.join(source.where)}) lets nothing through; correct `where`" if source.where else ""
        return cls(tuple(files), records[:kept], dtype, remedy)

    def documents(self, chosen: Mask) -> Iterator[NDArray[Any]]:
        """The ids of the chosen documents, one array each, in order."""
        for ids, starts, mask in self._files(chosen):
            for place in np.flatnonzero(mask):
                yield ids[starts[place] : starts[place + 1]]

    def runs(self, chosen: Mask) -> Iterator[NDArray[Any]]:
        """The same ids, neighbouring documents together."""
        for ids, starts, mask in self._files(chosen):
            edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
            for first, last in edges.reshape(-1, 2):
                yield ids[starts[first] : starts[last]]

    def _files(self, chosen: Mask) -> Iterator[tuple[NDArray[Any], NDArray[np.int64], Mask]]:
        """Per file: ids, the places where its documents begin and the last ends, which of them are chosen."""
        done = 0
        for path, n in self.files:
            n_tokens, mask = self.table["n_tokens"][done : done + n], chosen[done : done + n]
            done += n
            if mask.any() and n_tokens.sum():
                ids = np.memmap(path, dtype=self.dtype, mode="r")
                yield ids, np.concatenate([[0], np.cumsum(n_tokens)]), mask


def _bytes(source: Source) -> float | None:
    return None if source.megabytes is None else source.megabytes * 1e6


def _within(sizes: NDArray[np.int64], limit: float | None) -> int:
    """How many come before the limit is reached, the one that reaches it included."""
    return len(sizes) if limit is None else int((np.cumsum(sizes) - sizes < limit).sum())


Chosen = dict[str, tuple[Stream, Mask]]
