"""RegMix (arXiv 2407.01492, github.com/sail-sg/regmix): a CSV of mixtures and a CSV of losses, joined by index.

    train_mixture_1m.csv        index, train_the_pile_<domain>...
    train_pile_loss_1m.csv      index, metric/the_pile_<domain>_val_loss...

Shares are rounded to three decimals (sums .996 to 1.003) and renormalised. The order of rows means nothing.
Domains and eval domains lose prefix and suffix, so `arxiv` is the same word on both sides. `metric/train_loss`, which
its script collects too, is the loss on another text in every run, and left out.
"""

import logging
import re
from pathlib import Path

from raymix.formats.rows import as_observations, joined, losses_of, positive, shares_of
from raymix.observations import Observations
from raymix.sheet import Sheet, existing, listed, read_sheet

log = logging.getLogger(__name__)

SIZES = {"m": 1e6, "b": 1e9}
TRAINED_ON = {1e6: 1e9, 60e6: 1e9, 1e9: 25e9}  # tokens by size: 2407.01492, abstract and section 4
SHARE = re.compile(r"train_(?:the_pile_)?(.+)")
LOSS = re.compile(r"metric/(?:the_pile_)?(.+?)_(?:val_)?loss")
TRAIN_LOSS = "metric/train_loss"


def read_regmix(
    src: str | Path,
    *,
    losses: str | Path | None = None,
    n_params: float | None = None,
    n_tokens: float | None = None,
) -> Observations:
    """One row per mixture: trial_id is the index, losses are nats per token.

    Args:
        src: the mixture CSV, or a folder that holds one `train_mixture_*.csv`.
        losses: the loss CSV; the one beside the mixtures with the same first word and size if left out.
        n_params: parameters of the proxies; read from the file name if left out (1m, 60m, 1b).
        n_tokens: tokens they were trained on; as in the paper if left out (1m and 60m: 1e9, 1b: 25e9).

    Raises:
        ValueError: no or several matching files, ids in one file only, a bad cell or sum.
    """
    mixtures = read_sheet(_mixture_file(existing(src, folder=True)))
    measured = read_sheet(losses if losses is not None else _loss_file(mixtures.path))
    domains, eval_domains = _columns(mixtures, SHARE, "train_<domain>"), _columns(measured, LOSS, "metric/<name>_loss")
    if TRAIN_LOSS in measured.names:
        log.warning("%s: %s is left out: every mixture has it on a text of its own", measured.path, TRAIN_LOSS)
    scale = {
        "n_params": _size(mixtures.path) if n_params is None else positive("n_params", n_params),
        "n_tokens": _tokens(mixtures.path) if n_tokens is None else positive("n_tokens", n_tokens),
    }
    rows = [
        {"trial_id": name} | scale | shares_of(mixtures, row, domains) | losses_of(measured, other, eval_domains)
        for name, row, other in joined(mixtures, "index", measured, "index")
    ]
    return as_observations(rows, list(domains), list(eval_domains), mixtures.path)


def _mixture_file(src: Path) -> Path:
    if src.is_file():
        return src
    found = [*src.glob("train_mixture_*.csv"), *src.glob("train_mixture_*.csv.gz")]
    return _only(found, src, "train_mixture_*.csv", "name the mixture CSV itself")


def _loss_file(mixtures: Path) -> Path:
    """`train_mixture_1m.csv` goes with `train_..._loss_..._1m.csv`."""
    first, found, last = mixtures.name.partition("mixture")
    wanted = f"{first}*loss*{last}"
    beside = mixtures.parent.iterdir() if found else []
    fitting = [p for p in beside if p.name.startswith(first) and p.name.endswith(last) and "loss" in p.name]
    return _only(fitting, mixtures, wanted if found else "*_loss_*.csv", "name it with --option losses=FILE")


def _only(paths: list[Path], src: Path, pattern: str, remedy: str) -> Path:
    if len(paths) == 1:
        return paths[0]
    found = f"several files {pattern}: {listed(sorted(p.name for p in paths))}" if paths else f"no file {pattern}"
    raise ValueError(f"{src}: there {'are' if paths else 'is'} {found}; {remedy}")


def _columns(sheet: Sheet, pattern: re.Pattern[str], shown: str) -> dict[str, str]:
    names = [name for name in sheet.names if name != TRAIN_LOSS]
    found = {match[1]: name for name in names if (match := pattern.fullmatch(name))}
    if not found:
        raise ValueError(f"{sheet.path}: no column is called {shown}; it has {listed(sheet.names)}")
    return found


def _size(path: Path) -> float:
    found = re.search(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([mb])(?![a-z0-9])", path.name.lower())
    if not found:
        raise ValueError(f"{path}: the name holds no size such as 1m or 1b; give --option n_params=NUMBER")
    return float(found[1]) * SIZES[found[2]]


def _tokens(path: Path) -> float:
    size = _size(path)
    if size not in TRAINED_ON:
        raise ValueError(f"{path}: the paper trained no proxies of {size:g} parameters; give --option n_tokens=NUMBER")
    return TRAINED_ON[size]
