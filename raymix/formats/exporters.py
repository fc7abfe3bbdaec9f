"""Where a study can be handed over: one entry in EXPORTERS per target, one function each.

    optuna    finished trials as an Optuna study: raymix/formats/optuna_study.py
    others    the recommended mixture in the terms of a trainer: raymix/formats/export/

`raymix export DIR --to TARGET` calls `export_study`. A new target is a function and an entry. What `raymix optimize`
wrote is a mixture without a study; trainers take that too.
"""

import inspect
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from raymix.formats.export import TARGETS, ExportError, blend_of, export, write_files
from raymix.formats.optuna_study import export_optuna
from raymix.results import up_to_date
from raymix.sheet import existing, nearest, read_text
from raymix.simplex import as_mixture
from raymix.store import StoreError
from raymix.study import Study
from raymix.study.files import folder_name
from raymix.target.reading import stage_notes
from raymix.target.recommend import NotEnoughTrialsError, fit_law
from raymix.yaml12 import explain

Exporter = Callable[..., list[str]]
"""`(study, **options)`: options are keyword arguments; returns sentences that say what was written where."""


class _Scale(BaseModel):
    n_params: float = Field(gt=0, allow_inf_nan=False)
    n_tokens: float = Field(gt=0, allow_inf_nan=False)


class _Found(BaseModel):
    """What of a recommendation.json a trainer needs."""

    mixture: dict[str, float] = Field(min_length=1)
    scale: _Scale
    epochs: dict[str, float | None] = {}
    verdict: dict[str, str] = {}


def export_mixture(
    source: Study | Path,
    *,
    target: str,
    out: Path | None = None,
    paths: Mapping[str, tuple[str, ...]] | None = None,
    tokens_per_row: Mapping[str, float] | None = None,
    packed: bool = False,
) -> list[str]:
    """The mixture of a recommendation.json in the files of a trainer, and a summary of units and epochs beside them.

    Raises:
        ExportError: the trainer's format cannot express it, or needs to know more; or the file is no recommendation.
        StoreError: the study has no recommendation yet, or a damaged one.
    """
    details: dict[str, Any] = {"paths": paths or {}, "tokens_per_row": tokens_per_row or {}, "packed": packed}
    if isinstance(source, Path):
        blend, name = blend_of(recommended_in(source), **details), source.stem
    else:
        tokenizer = source.space.tokenizer.name or "trained on the study's own text"
        details |= {"tokenizer": tokenizer, "seed": source.seed, "notes": stage_notes(source.space)}
        blend = blend_of(_recommended(source), **details)
        name = folder_name(source.space.name)
    folder, files = out or Path(f"{name}-{target}"), export(blend, target)
    write_files(folder, files)
    about = TARGETS[target]
    said = [f"{', '.join(files)} written to {folder}: weights count {about.unit}; {about.trap}"]
    if blend.verdict.get("answer", "use it") != "use it":
        said.append(f"The verdict on this mixture was: {blend.verdict['answer']}: {blend.verdict.get('reason')}")
    return said if isinstance(source, Path) else said + _of_study(source)


def _of_study(study: Study) -> list[str]:
    """What somebody who trains with its mixture should have heard before."""
    said = stage_notes(study.space)
    if not up_to_date(study):
        said.append(f"It was recommended before the last change: raymix report {shlex.quote(study.store.where)}")
    return said


def recommended_in(path: Path) -> dict[str, Any]:
    """What a trainer needs of a recommendation.json that belongs to no study.

    Raises:
        ExportError: no such file, or another one; a mixture that is none.
    """
    text = read_text(existing(path))
    try:
        found = _Found.model_validate_json(text)
        as_mixture(list(found.mixture.values()), list(found.mixture))
    except ValidationError as error:
        raise ExportError(f"{path}: this is no recommendation ({explain(error, _Found)}); raymix optimize "
                          "writes one") from None  # fmt: skip
    except ValueError as error:
        raise ExportError(f"{path}: {error}") from None
    return found.model_dump()


def _more_trials(study: Study) -> str:
    """The command that trains what a recommendation still needs."""
    if not study.finished:
        return f"continue with: {study.command()}"
    doubled = " ".join(f"--set budget.{name}={2 * limit:g}" for name, limit in study.space.budget.limits().items())
    return f"its budget is spent: mend what failed, then raymix resume {shlex.quote(study.store.where)} {doubled}"


def _recommended(study: Study) -> dict[str, Any]:
    """recommendation.json; where it will not do, the command that writes it, or trains what it needs."""
    store, again = study.store, f"raymix report {shlex.quote(study.store.where)}"
    if not store.has("recommendation.json"):
        try:
            fit_law(study.space, study.table())
        except NotEnoughTrialsError as error:
            raise StoreError(f"{store.where}: nothing was recommended: {error}; {_more_trials(study)}") from None
        raise StoreError(f"{store.where}: nothing was recommended yet; this does it: {again}")
    try:
        found = store.read_json("recommendation.json")
    except StoreError:
        found = None
    if not isinstance(found, dict) or not {"mixture", "scale"} <= set(found):
        raise StoreError(f"{store.url('recommendation.json')}: damaged; this writes it anew: {again}")
    return found


EXPORTERS: dict[str, Exporter] = {
    "optuna": export_optuna,
    **{name: partial(export_mixture, target=name) for name in TARGETS},
}


def export_study(study: Study | Path, to: str, **options: Any) -> list[str]:
    """Hand over a study, or the mixture of a recommendation.json; options that are None count as not given.

    Raises:
        ValueError: an unknown target or option, or a missing one; or what the target refuses.
    """
    if to not in EXPORTERS:
        raise ValueError(f"there is no target {to!r}; {nearest(to, EXPORTERS)}")
    if isinstance(study, Path) and to not in TARGETS:
        raise ValueError(f"the target {to} takes a study, and {study} is the mixture of one file")
    given = {name: value for name, value in options.items() if value is not None}
    known = {p.name: p for p in inspect.signature(EXPORTERS[to]).parameters.values() if p.kind is p.KEYWORD_ONLY}
    for name in given:
        if name not in known or name == "target":
            raise ValueError(f"the target {to} has no option --{name.replace('_', '-')}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in given:
            raise ValueError(f"the target {to} needs --{name.replace('_', '-')}")
    return EXPORTERS[to](study, **given)
