"""Data mixing laws (arXiv 2403.16952, github.com/yegcjs/mixinglaws): losses along training, in two forms.

Text, one line per checkpoint and eval file. A run name has a size (optional), the number of the mixture, and the shares
in the order of the domains; the last part of the path is the step:

    runs/70M_13-0.25-0.125-0.625/500 <tab> valid/pythia-pile.valid.Pile-CC.bin <tab> 7.2113

The eval domain is what the file is called after `valid.`: Pile-CC; all of it, where it has none, but for its ending.
A folder is that of the repository, a file for each size: 70M.txt, 160M.txt, ...; the file names the size where a run
does not.

Tidy (CSV or Parquet), one row per run, step and eval domain; without the column `loss` it is a table of queries:

    [experiment,] run_id, model_size or model_label, step or tokens, p_<domain>..., valid_domain[, loss]

Either becomes one row per run, size and tokens, with the eval domains as columns and NaN where a cell was not
measured. (trial_id, n_params, n_tokens) is unique: predictions are joined back on it. Checkpoints before the
last of a run have the status `checkpoint`.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from raymix.formats.points import Point, check_skip, gather
from raymix.formats.rows import positive, split_names
from raymix.observations import Observations
from raymix.sheet import Sheet, as_number, existing, is_table, listed, nearest, read_sheet, read_text

log = logging.getLogger(__name__)

TOKENS_PER_STEP = 4096 * 256  # context times batch (arXiv 2403.16952); 1,048,576 in the published tables
# 70M, 160M, 410M, 1B are Pythia's (2304.01373, table 1); 305M is the authors' own, as counted in their tables.
SIZES = {"70M": 18915328.0, "160M": 85056000.0, "305M": 201541632.0, "410M": 302311424.0, "1B": 805736448.0}
SHARE = r"\d+(?:\.\d*)?(?:e-?\d+)?"
ENDINGS = {".jsonl", ".json", ".txt", ".zst", ".gz", ".npy", ".bin", ".parquet"}


def read_mixinglaws(
    src: str | Path,
    *,
    experiment: str | None = None,
    domains: str | Sequence[str] | None = None,
    model: str | float | None = None,
    skip: str | Sequence[str] | None = None,
) -> Observations:
    """One row per run, size and tokens, sorted; losses in nats per token, or none for queries.

    Args:
        src: .csv, .tsv (also .gz) or .parquet is the tidy form, any other file, or a folder, the text form.
        experiment: which experiment of a tidy file with several; shares that are empty in it are dropped.
        domains: text form: the domains in the order of the numbers in a run name.
        model: size of runs that name none: 70M, 160M, 305M, 410M, 1B, or a number of parameters without embeddings.
        skip: run names to leave out, such as truncated ones.

    Raises:
        ValueError: a bad line or cell, two values for one cell, a run whose name or sum is off, an unknown option.
    """
    path = existing(src, folder=True)
    left_out, names, tidy = split_names(skip), split_names(domains), path.is_file() and is_table(path)
    idle = "domains" if tidy and names else "experiment" if not tidy and experiment else ""
    if idle:
        log.warning("%s: the option %s has no effect on this form", path, idle)
    if tidy:
        found = _tidy(read_sheet(path), experiment, model, left_out)
    else:
        found = gather(_text(path, names, model, left_out), names, path)
    if others := [] if model is None else sorted({*found.column("n_params")} - {_n_params(model)}):
        log.warning("%s: model=%s is of runs that name no size, and chooses none: others are of %s parameters", path,
                    model, listed([f"{size:g}" for size in others]))  # fmt: skip
    return found


def _tidy(sheet: Sheet, experiment: str | None, model: str | float | None, skip: Sequence[str]) -> Observations:
    sheet.need("run_id", "valid_domain")
    if "tokens" not in sheet.names:
        sheet.need("step")
    if model is None and "model_size" not in sheet.names:
        sheet.need("model_label")
    rows = _rows_of(sheet, experiment)
    check_skip({sheet.text(row, "run_id") for row in rows}, skip, sheet.path)
    rows = [row for row in rows if sheet.text(row, "run_id") not in skip]
    shares = [name for name in sheet.names if name.startswith("p_")]
    shares = [name for name in shares if any(sheet.text(row, name) for row in rows)]
    if not shares:
        raise ValueError(f"{sheet.path}: no column p_<domain> holds shares; it has {listed(sheet.names)}")
    points = [_point(sheet, row, shares, model) for row in rows]
    return gather(points, [name.removeprefix("p_") for name in shares], sheet.path)


def _rows_of(sheet: Sheet, experiment: str | None) -> list[int]:
    every = list(range(len(sheet.rows)))
    if experiment is None and "experiment" not in sheet.names:
        return every
    sheet.need("experiment")
    known = sorted({sheet.text(row, "experiment") for row in every})
    if experiment is None and len(known) > 1:
        raise ValueError(
            f"{sheet.path}: the file holds several experiments, "
            f"choose one with --option experiment=NAME: {listed(known)}"
        )
    if experiment is not None and experiment not in known:
        raise ValueError(f"{sheet.path}: there is no experiment {experiment!r}; {nearest(experiment, known)}")
    return [row for row in every if experiment in (None, sheet.text(row, "experiment"))]


def _point(sheet: Sheet, row: int, shares: Sequence[str], model: str | float | None) -> Point:
    size: str | float = sheet.text(row, "model_size") if "model_size" in sheet.names else ""
    size = size or (sheet.text(row, "model_label") if "model_label" in sheet.names else "") or model or ""
    tokens = sheet.number(row, "tokens") if "tokens" in sheet.names else sheet.number(row, "step") * TOKENS_PER_STEP
    run, eval_domain = sheet.text(row, "run_id"), sheet.text(row, "valid_domain")
    if not (run and eval_domain and tokens >= 0):
        raise ValueError(f"{sheet.path}: row {row + 1} has no run_id, valid_domain or tokens")
    try:
        n_params = _n_params(size)
    except ValueError as error:
        raise ValueError(f"{sheet.path}: row {row + 1}: {error}") from None
    loss = sheet.number(row, "loss") if "loss" in sheet.names else None
    return Point(run, n_params, tokens, tuple(sheet.number(row, name) for name in shares), eval_domain, loss)


class Line(NamedTuple):
    """One line of the text form, split; `where` is file and line number for errors."""

    where: str
    size: str  # that of the file's name, or ""
    run: str
    step: str
    eval_domain: str
    loss: float


def _text(path: Path, domains: Sequence[str], model: str | float | None, skip: Sequence[str]) -> Iterator[Point]:
    """The points of the text form, without the lines of `last`: the weights of a step nobody can tell."""
    if not domains:
        raise ValueError(f"{path}: give --option domains=A,B,C, the names of the shares in the order of a run name")
    lines = [line for file in (_of_sizes(path) if path.is_dir() else [path]) for line in _lines(file)]
    check_skip({line.run for line in lines}, skip, path)
    lines = [line for line in lines if line.run not in skip]
    lost = {line.run for line in lines} - {line.run for line in lines if line.step != "last"}
    if lost:
        log.warning("%s: runs with no step but `last` are left out: %s", path, listed(sorted(lost), 5))
    for line in lines:
        if line.step != "last":
            shares, n_params = _shares(line, domains), _run_size(line, model)
            yield Point(line.run, n_params, _step(line) * TOKENS_PER_STEP, shares, line.eval_domain, line.loss)


def _of_sizes(folder: Path) -> list[Path]:
    """The files of a folder that are called by a size; beside them the repository has lists of mixtures and figures."""
    files = [path for path in folder.iterdir() if path.is_file() and not is_table(path)]
    found = sorted(path for path in files if _stem(path.name) in SIZES)
    if not found:
        names = listed([f"{size}.txt" for size in SIZES])
        raise ValueError(f"{folder}: no file is called by a size, as {names}; name a file in it")
    return found


def _lines(path: Path) -> Iterator[Line]:
    size = name if (name := _stem(path.name)) in SIZES else ""
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
        eval_domain = re.sub(r"^(.*\.)?valid\.", "", _stem(parts[1]))
        yield Line(where, size, checkpoint.parent.name, checkpoint.name, eval_domain, loss)


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
    model = model or line.size or None
    if label is None and model is None:
        raise ValueError(f"{line.where}: the run name {line.run!r} begins with no size such as 70M_; give model=")
    try:
        return _n_params(label[1] if label else model or "")
    except ValueError as error:
        raise ValueError(f"{line.where}: {error}") from None


def _step(line: Line) -> int:
    found = re.fullmatch(r"\D*(\d+)\D*", line.step)
    if not found:
        raise ValueError(f"{line.where}: the checkpoint path ends in {line.step!r}, which is no step")
    return int(found[1])


def _n_params(label: str | float) -> float:
    """Parameters without embeddings of a size label, or the number itself."""
    if isinstance(label, str) and label in SIZES:
        return SIZES[label]
    try:
        return positive("the model size", label)
    except ValueError:
        raise ValueError(f"the model size {label!r} is no number above 0 and none of {listed([*SIZES])}") from None
