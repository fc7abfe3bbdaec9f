"""Published runs, or your own, as an observation table: one file per format, one function each.

    regmix       mixtures and losses of RegMix, joined by index
    olmix        ratios.csv and metrics.csv of an Olmix swarm, joined by run id
    mixinglaws   losses along training of the data mixing laws, as text or tidy; also tables of queries
    exchange     any table already in the exchange form: checks only
    wandb        a CSV of the runs of a sweep (Weights & Biases, Optuna, Ray Tune) with a mapping file

`raymix import FORMAT SRC -o TABLE` calls `import_runs`. A new format is one file and one entry in `FORMATS`.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raymix.formats.mixinglaws import read_mixinglaws
from raymix.formats.objective import read_available, read_losses, read_mixture, read_weights
from raymix.formats.olmix import read_olmix
from raymix.formats.regmix import read_regmix
from raymix.formats.wandb import read_wandb
from raymix.observations import Observations
from raymix.sheet import existing, nearest

__all__ = [
    "FORMATS",
    "Importer",
    "import_runs",
    "options_of",
    "read_available",
    "read_losses",
    "read_mixture",
    "read_weights",
]

Importer = Callable[..., Observations]
"""`(src, **options)`: options are keyword arguments, and numbers among them may come as text."""

FORMATS: dict[str, Importer] = {
    "exchange": Observations.read,
    "mixinglaws": read_mixinglaws,
    "olmix": read_olmix,
    "regmix": read_regmix,
    "wandb": read_wandb,
}


def import_runs(format: str, src: str | Path, **options: Any) -> Observations:
    """The runs in `src` as a checked observation table.

    Args:
        format: a key of `FORMATS`.
        src: a file or folder; see the format.
        options: keyword arguments of the format's function, see `options_of`.

    Raises:
        ValueError: an unknown format or option, a missing one, no such file, or what the format refuses.
    """
    if format not in FORMATS:
        raise ValueError(f"there is no format {format!r}; {nearest(format, FORMATS)}")
    known = options_of(format)
    for name in options:
        if name not in known:
            raise ValueError(f"the format {format} has no option {name!r}; {nearest(name, known) or 'it has none'}")
    for name, needed in known.items():
        if needed and name not in options:
            raise ValueError(f"the format {format} needs --option {name}=...: {src} does not say it")
    return FORMATS[format](existing(src, folder=True), **options)


def options_of(format: str) -> dict[str, bool]:
    """The options of a format; true where one is needed."""
    found = inspect.signature(FORMATS[format]).parameters.values()
    return {p.name: p.default is p.empty for p in found if p.kind is p.KEYWORD_ONLY}
