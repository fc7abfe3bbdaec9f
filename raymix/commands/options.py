"""What options of the shell say: names with numbers, shares, weights, scales and a place to write to.

Checked before any work begins: every function raises ValueError with the option or file and what is wrong with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raymix.yaml12 import SpaceError

if TYPE_CHECKING:
    from raymix.space import Scale

WEIGHT_FILES = (".csv", ".tsv", ".gz", ".parquet", ".json", ".yaml", ".yml")
Numbers = Literal["available", "mixture", "weights", "losses"]
OPTIONS = {  # of raymix optimize, by the keys of a space that say the same
    "target.max_epochs": "--max-epochs",
    "target.n_tokens": "--n-tokens",
    "min_share": "--min",
    "max_share": "--max",
}


def pair(text: str, what: str) -> tuple[str, str]:
    """NAME=VALUE; of an option of an importer the name ends at the first =, else at the last."""
    name, found, value = text.rpartition("=") if what != "--option" else text.partition("=")
    if not (name and found):
        raise ValueError(f"{what} {text!r}: write name=value")
    return name.strip(), value.strip()


def _number(text: str, name: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{what}: {name} is {text!r}, it must be a number") from None


def check_known(names: Sequence[str], known: Sequence[str], kind: str, what: str) -> None:
    """Nothing, if all names are known; else a ValueError with the nearest one."""
    from raymix.sheet import nearest

    for name in names:
        if name not in known:
            raise ValueError(f"{what}: {name!r} is not a{'n' if kind[0] == 'e' else ''} {kind}; {nearest(name, known)}")


def named_numbers(text: str, known: Sequence[str], kind: str, what: str) -> dict[str, float]:
    """`name=w,name=w`, or the numbers in a file; names of a file that are not known do not matter."""
    if Path(text).suffix in WEIGHT_FILES and "=" not in text:
        from raymix.formats import read_weights

        numbers = {name: value for name, value in read_weights(text).items() if name in known}
        if not sum(numbers.values()) > 0:
            raise ValueError(f"{text}: no {kind} of the table has a weight above 0 ({', '.join(known[:12])})")
        return numbers
    pairs = [pair(part, what) for part in text.split(",")]
    check_known([name for name, _ in pairs], known, kind, what)
    numbers = {name: _number(value, name, what) for name, value in pairs}
    if len(numbers) < len(pairs):
        raise ValueError(f"{what}: a name stands twice in {text!r}")
    return numbers


def weights_of(given: dict[str, float] | None, eval_domains: Sequence[str], metrics: Sequence[str]) -> Any:
    """Weights (M,) that sum to 1: 0 where one is left out; if none are given equal, of metrics 0 beside losses."""
    import numpy as np

    losses = [name for name in eval_domains if name not in metrics] or eval_domains
    given = dict.fromkeys(losses, 1.0) if given is None else given
    weights_M = np.array([given.get(name, 0.0) for name in eval_domains])
    if not (np.isfinite(weights_M).all() and (weights_M >= 0).all() and weights_M.sum() > 0):
        raise ValueError("--weights: weights are numbers of at least 0, not all 0")
    return weights_M / weights_M.sum()


def numbers_in(path: Path | None, known: Sequence[str], what: Numbers) -> dict[str, float] | None:
    """The numbers by name in a file; None where none is named."""
    from raymix import formats

    if path is None:
        return None
    if "=" in path.name and not os.path.exists(path):  # Path.exists raises where a name is too long
        raise ValueError(f"{path}: there is no such file; write the numbers into one, such as numbers.yaml with lines "
                         "name: number")  # fmt: skip
    read, kind = {
        "available": (formats.read_available, "domain"),
        "mixture": (formats.read_mixture, "domain"),
        "weights": (formats.read_weights, "eval domain"),
        "losses": (formats.read_losses, "eval domain"),
    }[what]
    numbers = read(path)
    check_known(list(numbers), known, kind, str(path))
    return numbers


def shares_of(given: Sequence[str], domains: Sequence[str], what: str) -> dict[str, float]:
    """NAME=SHARE, as often as given."""
    pairs = [pair(text, what) for text in given]
    check_known([name for name, _ in pairs], domains, "domain", what)
    shares = {name: _number(value, name, what) for name, value in pairs}
    if len(shares) < len(pairs):
        raise ValueError(f"{what}: a domain stands twice; keep one of {', '.join(given)}")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{what}: the share of {name!r} is {share:g}, it must lie in 0..1")
    return shares


def scale_of(n_params: float, n_tokens: float) -> Scale:
    """A scale of two numbers above 0."""
    from raymix.space import Scale

    if not (0 < n_params < float("inf") and 0 < n_tokens < float("inf")):
        raise ValueError(f"--n-params {n_params:g}, --n-tokens {n_tokens:g}: both must be numbers above 0")
    return Scale(n_params, n_tokens)


def target_of(n_params: float | None, n_tokens: float | None) -> Scale | None:
    """The scale that both say; None where neither is given."""
    if n_params is None and n_tokens is None:
        return None
    if n_params is None or n_tokens is None:
        raise ValueError("a target is both --n-params and --n-tokens, or neither")
    return scale_of(n_params, n_tokens)


@contextmanager
def as_options() -> Iterator[None]:
    """What is wrong with a space made of options, in their own names."""
    try:
        yield
    except ValueError as error:
        words = str(error)
        for key, option in OPTIONS.items():
            words = words.replace(key, option)
        raise ValueError(words) from None


def check_out(out: Path, endings: Sequence[str] = ("",)) -> None:
    """Refuse a place that cannot be written to, before there is anything to write.

    Raises:
        SpaceError: another ending, a folder, a file in none, or one that may not be written or that no disk takes.
    """
    if not out.name.endswith(tuple(endings)):
        raise SpaceError(f"{out}: the name must end in {' or '.join(endings)}")
    if os.path.isdir(out):
        raise SpaceError(f"{out}: this is a folder; name a file")
    if not out.absolute().parent.is_dir():
        raise SpaceError(f"{out}: there is no folder {out.parent}; make it, or name another place with -o")
    there = os.path.lexists(out)
    if there and not out.is_file():
        return  # a pipe, say: opened once, by whom it is for
    try:
        out.open("ab").close()  # what is there stays as it is
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise SpaceError(f"{out}: cannot be written ({why}); name another place with -o") from None
    if not there:
        out.unlink()
