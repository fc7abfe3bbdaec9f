"""`raymix confirm | export`: what is done with a study once it has an answer."""

from __future__ import annotations

import json
import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raymix.commands.arguments import AtScale, Json, StudyPath
from raymix.commands.corpus import prepared
from raymix.counts import scale_words
from raymix.screens.screen import Screen
from raymix.space import SpaceError

if TYPE_CHECKING:
    from raymix.space import SearchSpace
    from raymix.space_study import Confirm
    from raymix.study import Study
    from raymix.study.confirm import Confirmation

log = logging.getLogger(__name__)


def confirm(
    study: StudyPath,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each mixture.")] = 3,
    baselines: Annotated[str, typer.Option(help="prior, uniform, proportional, unimax, ...; with commas.")] = "prior",
    mixture: Annotated[
        list[str], typer.Option(metavar="NAME=FILE", help="A baseline of your own: recommendation.json, ...")
    ] = [],  # noqa: B006
    scale: AtScale = None,
    as_json: Json = False,
) -> None:
    """Train the proposal and baselines on the same seeds: predicted beside confirmed gain, in confirmation.json."""
    from raymix.results import write_results
    from raymix.space_study import Confirm
    from raymix.study import Study
    from raymix.study.confirm import left, plan_confirmation

    work = Study.open(study)
    wanted = _wanted(work.space, seeds, baselines, mixture, scale)
    with Screen(as_json) as screen:
        with work.writing() as ledger:
            if work.space.trains_proxies and (more := work.unfinished()):
                raise SpaceError(f"{work.store.where}: {more}; finish it first: {work.command()}")
            runs = left(ledger) + _pending(work)
            if not runs:
                plan_confirmation(ledger, wanted)
                if not left(ledger):
                    log.warning("these runs were trained before: for more of them --seeds N, for others --baselines, "
                                "--mixture or --scale")  # fmt: skip
            elif wanted != Confirm():
                log.warning("%s runs of the confirmation planned before are still to end: that one goes on, and "
                            "--seeds, --baselines, --mixture and --scale were not used", runs)  # fmt: skip
        if work.space.trains_proxies and (left(work.ledger) or _pending(work)):
            _train(work, screen)
        found = work.confirmation()
        assert found is not None
        if found.pending:
            work.store.write_json("confirmation.json", found.to_json())
        else:
            write_results(work)
        _show(screen, found, work)


def export(
    study: Annotated[str, typer.Argument(metavar="DIR", help="The study, or what raymix optimize wrote (.json).")],
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help="optuna, or a trainer: hf-datasets, megatron, ...")],
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="optuna: sqlite:///x.db, or a journal .log")
    ] = None,
    study_name: Annotated[str | None, typer.Option(metavar="NAME", help="optuna: default the space's name.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FOLDER", help="Of a trainer's files.")] = None,
    paths: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON: where each domain lies.")] = None,
    tokens_per_row: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Mean tokens per row of each domain.")
    ] = None,
    packed: Annotated[bool, typer.Option("--packed", help="Every row is one packed sequence.")] = False,
    as_json: Json = False,
) -> None:
    """Hand over a mixture to a trainer, or the trials of a study to Optuna."""
    from raymix.formats import read_available
    from raymix.formats.export import read_paths
    from raymix.formats.exporters import export_study
    from raymix.study import Study

    work = Path(study) if study.endswith(".json") and not Path(study).is_dir() else Study.open(study)
    try:
        said = export_study(
            work,
            to,
            storage=storage,
            name=study_name,
            out=out,
            paths=None if paths is None else read_paths(paths),
            tokens_per_row=None if tokens_per_row is None else read_available(tokens_per_row),
            packed=packed or None,
        )
    except ValueError as error:
        raise SpaceError(str(error)) from None
    with Screen(as_json) as screen:
        if as_json:
            print(json.dumps({"event": "exported", "to": to, "words": said}))
        else:
            for sentence in said:
                screen.say(sentence)


def _wanted(
    space: SearchSpace, seeds: int, baselines: str, mixtures: list[str], scale: tuple[float, float] | None
) -> Confirm:
    from pydantic import ValidationError

    from raymix.space_study import Confirm
    from raymix.yaml12 import explain

    own = dict(_own_mixture(space, said) for said in mixtures)
    raw = {"seeds": seeds, "baselines": [name.strip() for name in baselines.split(",")], "mixtures": own}
    at = {} if scale is None else {"scale": {"n_params": scale[0], "n_tokens": scale[1]}}
    try:
        return Confirm.model_validate(raw | at)
    except ValidationError as error:
        raise SpaceError(explain(error, Confirm)) from None


def _own_mixture(space: SearchSpace, said: str) -> tuple[str, dict[str, float]]:
    """A name, and the shares in the file that stands after it."""
    from raymix.formats import read_mixture

    name, equals, file = said.partition("=")
    if not (name and equals and file):
        raise SpaceError(f"--mixture {said}: write NAME=FILE, as in ours=recommendation.json")
    try:
        weights = read_mixture(file)
        total = sum(weights.values())
        return name, space.shares(space.mixture({domain: weight / total for domain, weight in weights.items()}))
    except ValueError as error:
        raise SpaceError(f"--mixture {said}: {error}") from None


def _pending(work: Study) -> int:
    """How many runs of an earlier confirmation are under way."""
    return sum(trial.purpose == "confirm" for trial in work.ledger.pending())


def _train(work: Study, screen: Screen) -> None:
    from raymix.on_ray.run import run_study

    corpus = prepared(work.space, screen)
    with screen.training() as progress:
        run_study(work, corpus, progress)


def _show(screen: Screen, found: Confirmation, work: Study) -> None:
    if screen.as_json:
        print(json.dumps({"event": "confirmed", "study": work.store.where, **found.to_json()}), flush=True)
        return
    screen.say(
        f"At {scale_words(**found.scale)}, seeds {', '.join(map(str, found.seeds))}: {found.done} runs done, "
        f"{found.failed} failed."
    )
    for sentence in found.words:
        screen.say(f"{sentence[0].upper()}{sentence[1:]}.")
    if found.pending and work.space.trains_proxies:
        return screen.say(f"{found.pending} runs have not ended; they go on with more hours: {work.command()} --set "
                          "budget.hours=N")  # fmt: skip
    if found.pending:
        where = shlex.quote(work.store.where)
        screen.say(f"{found.pending} runs to train: raymix ask {where}, raymix tell {where} RESULTS.csv, then raymix "
                   f"report {where}.")  # fmt: skip
