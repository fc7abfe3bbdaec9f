"""The text form of the mixing-law losses: what a line, a run name and a checkpoint path say.

    runs/70M_13-0.25-0.125-0.625/500 <tab> valid/Pile-CC.jsonl <tab> 7.2113

Run name: size (optional), number of the mixture, shares in the order of the domains. Last path part: the step.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from raymix.formats.model_sizes import TOKENS_PER_STEP, n_params_of
from raymix.formats.points import Point, check_skip
from raymix.formats.sheet import as_number, listed, read_text

log = logging.getLogger(__name__)

SHARE = r"\d+(?:\.\d*)?(?:e-?\d+)?"
ENDINGS = {".jsonl", ".json", ".txt", ".zst", ".gz", ".npy", ".bin", ".parquet"}


class Line(NamedTuple):
    """One line, split; `where` is file and line number for errors."""

    where: str
    run: str
    step: str
    eval_domain: str
    loss: float


def points_of_text(
    path: Path, domains: Sequence[str], model: str | float | None, skip: Sequence[str]
) -> Iterator[Point]:
    """The points of the text form, without the lines of `last`: the weights of a step nobody can tell.

    Raises:
        ValueError: a line is not of the form, a run name has another number of shares, a size is unknown.
    """
    if not domains:
        raise ValueError(f"{path}: give --option domains=A,B,C, the names of the shares in the order of a run name")
    lines = list(_lines(path))
    check_skip({line.run for line in lines}, skip, path)
    lines = [line for line in lines if line.run not in skip]
    lost = {line.run for line in lines} - {line.run for line in lines if line.step != "last"}
    if lost:
        log.warning("%s: runs with no step but `last` are left out: %s", path, listed(sorted(lost), 5))
    for line in lines:
        if line.step != "last":
            shares, n_params = _shares(line, domains), _run_size(line, model)
            yield Point(line.run, n_params, _step(line) * TOKENS_PER_STEP, shares, line.eval_domain, line.loss)


def _lines(path: Path) -> Iterator[Line]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        parts = [part.strip() for part in line.split("\t")]
        checkpoint = PurePosixPath(parts[0])
        if len(parts) != 3 or len(checkpoint.parts) < 2:
            raise ValueError(f"{where} is not checkpoint-path <tab> eval-file <tab> loss")
        try:
            loss = as_number(parts[2])
        except ValueError as error:
            raise ValueError(f"{where}: the loss {error}") from None
        yield Line(where, checkpoint.parent.name, checkpoint.name, _stem(parts[1]), loss)


def _stem(path: str) -> str:
    """Pile-CC of data/valid/Pile-CC.jsonl.zst."""
    name = PurePosixPath(path)
    while name.suffix in ENDINGS:
        name = name.with_suffix("")
    return name.name


def _shares(line: Line, domains: Sequence[str]) -> tuple[float, ...]:
    """The numbers at the end of 70M_13-0.25-0.125-0.625; the mixture's own number (13) comes before them."""
    tail = re.search(rf"(?:-{SHARE})*$", line.run)
    found = re.findall(rf"-({SHARE})", tail[0]) if tail else []
    if len(found) != len(domains):
        raise ValueError(
            f"{line.where}: the run name {line.run!r} ends in {len(found)} shares, "
            f"not in {len(domains)} ({listed(domains)}); leave the run out with --option skip=RUN"
        )
    return tuple(float(share) for share in found)


def _run_size(line: Line, model: str | float | None) -> float:
    label = re.match(r"(\d+(?:\.\d+)?[MB])_", line.run)
    if label is None and model is None:
        raise ValueError(f"{line.where}: the run name {line.run!r} begins with no size such as 70M_; give model=")
    try:
        return n_params_of(label[1] if label else model or "")
    except ValueError as error:
        raise ValueError(f"{line.where}: {error}") from None


def _step(line: Line) -> int:
    found = re.fullmatch(r"\D*(\d+)\D*", line.step)
    if not found:
        raise ValueError(f"{line.where}: the checkpoint path ends in {line.step!r}, which is no step")
    return int(found[1])
