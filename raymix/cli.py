"""`raymix ...`: the commands. Arguments in, a study or a table worked on, words for people or JSON for machines out.

Exit codes: 0 done, 1 the work failed, 2 wrong usage or config, 130/143/129 interrupted (what to type next is printed).
"""

import io
import json
import logging
import os
import signal
import sys
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from raymix import __version__
from raymix.commands.arguments import Json, Prices, Settings, SpacePath, StudyPath
from raymix.commands.cluster import add_costs, check_costs, doctor, submit
from raymix.commands.corpus import prepared, trainable
from raymix.commands.online import online
from raymix.commands.published import autoscale, critical_share
from raymix.commands.study import confirm, export
from raymix.commands.tables import fit, import_table, optimize, predict
from raymix.screens.screen import Screen
from raymix.space import SearchSpace, SpaceError
from raymix.store import StoreError
from raymix.store.errors import NoStudyError
from raymix.yaml12 import apply_settings

app = typer.Typer(
    help="Decide what to pre-train on: search data mixtures with small proxies, read the law at the target.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Fork = Annotated[str | None, typer.Option(metavar="NEW", help="Begin study NEW with what is still valid of the old.")]


_signals: list[int] = []
"""Signals received. An exception that a handler raises may come out of Ray's C code as another one; this stays."""


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP: unwinds everything, so that Ray is shut down."""


def main() -> None:
    """The console script: every expected error becomes one sentence on standard error and the right exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that this locale cannot show ends no command
        sys.stdout.reconfigure(errors="backslashreplace")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, _interrupt)
    try:
        app()
    except (SpaceError, NoStudyError) as error:
        _stop(str(error), 2)
    except (StoreError, ValueError, OSError) as error:
        _stop(str(error), 1)
    except BaseException as error:
        if not _signals:
            raise
        if not isinstance(error, SystemExit):  # else what to do next was said
            print("raymix: interrupted; the same command goes on with what is saved", file=sys.stderr)
        sys.exit(128 + _signals[0])


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first signal unwinds; the second ends the process at once, unless a closing terminal says so again."""
    if number == signal.SIGHUP:
        _leave_terminal()
        if _signals:
            return
    _signals.append(number)
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_DFL)
    raise Interrupted


def _leave_terminal() -> None:
    """Where the terminal was closed every word would be an error, in the middle of saving: there is nobody to read."""
    for number in (1, 2):
        try:
            os.write(number, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _stop(message: str, code: int) -> None:
    print(f"raymix: {message}{_no_place()}", file=sys.stderr)
    sys.exit(code)


def _no_place() -> str:
    """What may be behind any error where the working directory is gone: the system names no file then."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "; the folder you are in was deleted: cd to it again, or elsewhere"
    return ""


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Search data mixtures with small proxies; read the law at the target."""
    if show:
        print(__version__)
        raise typer.Exit


@app.command()
def run(
    space: SpacePath,
    study: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where the study lives, or s3://bucket/name: default runs/NAME.")
    ] = None,
    settings: Settings = [],  # noqa: B006 - typer reads the default and never changes it
    seed: Annotated[int | None, typer.Option(help="All randomness; default 0.")] = None,
    fork: Fork = None,
    as_json: Json = False,
) -> None:
    """Search the space; the same command again resumes. Ends in recommendation.json and report.html."""
    wanted = trainable(SearchSpace.load(space, settings))
    _search(wanted, study or _default_study(wanted), seed, fork, as_json)


@app.command()
def resume(study: StudyPath, settings: Settings = [], fork: Fork = None, as_json: Json = False) -> None:  # noqa: B006
    """Continue a study from its storage alone, on any machine that sees it and the text of its domains.

    With a trainer of your own: take over what --set changes, then go on with ask and tell.
    """
    from raymix.screens.status import go_on
    from raymix.study import Study

    kept = Study.open(study).space
    wanted = SearchSpace.parse(apply_settings(kept.plain(), settings), folder=kept.folder)
    if wanted.trains_proxies:
        return _search(wanted, study, None, fork, as_json)
    work = Study.fork(wanted, study, fork) if fork else Study.resume(wanted, study)
    if as_json:
        print(json.dumps({"event": "resumed", "study": work.store.where, "command": work.command()}))
    else:
        print(go_on(work))


@app.command()
def plan(
    space: SpacePath,
    settings: Settings = [],  # noqa: B006
    cloud: Annotated[str | None, typer.Option(metavar="NAME", help="And what it costs at aws, gcp or azure.")] = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="TYPE", help="On machines with this GPU; left out or none: on CPUs.")
    ] = None,
    max_workers: Annotated[int, typer.Option(min=1, help="Machines at a time.")] = 4,
    prices: Prices = None,
    study: Annotated[
        str | None, typer.Option(metavar="DIR", help="Of whose runs the noise is known: default runs/NAME.")
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Nats between runs of one mixture; else as runs show it, or assumed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What a study would train and cost, before anything is trained (the text is prepared, some steps are timed)."""
    from raymix.plan import plan as make_plan
    from raymix.study.noise import Noise, noise_of

    gpu = None if gpu == "none" else gpu  # as submit takes it
    check_costs(cloud, gpu, prices, noise)
    wanted = trainable(SearchSpace.load(space, settings))
    with Screen(as_json) as screen:
        corpus = prepared(wanted, screen)
        resolved = wanted.with_available(corpus.tokens)
        seen = Noise(noise, "as given") if noise is not None else noise_of(resolved, study or _default_study(wanted))
        from torch import cuda  # here: it takes seconds

        slots = cuda.device_count() or len(os.sched_getaffinity(0))  # one trial a GPU, or one a core
        add_costs(screen, resolved, make_plan(resolved, corpus, slots), cloud, gpu, max_workers, prices, seen)


@app.command()
def prepare(space: SpacePath, settings: Settings = [], as_json: Json = False) -> None:  # noqa: B006
    """Read, split, check and tokenise the text of a space."""
    wanted = trainable(SearchSpace.load(space, settings))
    with Screen(as_json) as screen:
        screen.corpus(prepared(wanted, screen))


@app.command()
def status(study: StudyPath, as_json: Json = False) -> None:
    """How far a study is, and what was asked and is not told yet."""
    from raymix.screens.status import show_status
    from raymix.study import Study

    with Screen(as_json) as screen:
        show_status(screen, Study.open(study))


@app.command()
def report(study: StudyPath, as_json: Json = False) -> None:
    """Fit the law again and write recommendation.json and report.html from the records."""
    from raymix.results import write_results
    from raymix.study import Study

    work = Study.open(study)
    with Screen(as_json) as screen:
        with screen.working("fitting the law"):
            found = write_results(work)
        screen.recommendation(work, found)


@app.command()
def ask(
    study: StudyPath,
    n: Annotated[int, typer.Option("-n", min=1, help="How many trials.")] = 8,
    space: Annotated[
        Path | None, typer.Option(metavar="SPACE.yaml", help="Begin the study with this space, if there is none.")
    ] = None,
    settings: Settings = [],  # noqa: B006
    seed: Annotated[int | None, typer.Option(help="All randomness; default 0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As without: one JSON object per line.")] = False,
) -> None:
    """Propose trials for a trainer of your own, as JSON lines."""
    from raymix.study import Study

    if space is None and (settings or seed is not None):
        raise SpaceError("--set and --seed are of a study that begins: name its space with --space SPACE.yaml")
    work = Study.open(study) if space is None else Study.resume(SearchSpace.load(space, settings), study, seed)
    for trial in work.ask(n):
        print(json.dumps(trial.shown()))


@app.command()
def tell(
    study: StudyPath, results: Annotated[Path, typer.Argument(metavar="RESULTS.csv")], as_json: Json = False
) -> None:
    """Record results: columns trial_id, loss/<eval domain>..., metric/<name>... and optionally n_params, n_tokens,
    status, reason."""
    from raymix.exchange import LABELS
    from raymix.observations import say_left_out
    from raymix.sheet import read_sheet
    from raymix.study import Study
    from raymix.study.trial import Trial

    try:
        sheet = read_sheet(results, rowless=True)
        sheet.need("trial_id")
    except ValueError as error:
        raise SpaceError(str(error)) from None
    say_left_out(sheet, {field.name for field in fields(Trial)})  # what raymix ask printed may stand beside results
    rows, work = sheet.filled(LABELS[:2]), Study.open(study)
    try:
        failed, again = work.tell_rows(rows)
    except StoreError:  # the file is not to blame
        raise
    except ValueError as error:
        raise SpaceError(f"{results}: {error}; nothing was recorded") from None
    if as_json:
        return print(json.dumps({"event": "told", "rows": len(rows), "failed": failed, "again": again}))
    more = [f"{n} {what}" for n, what in ((failed, "without losses"), (again, "of trials that had ended before")) if n]
    print(f"{len(rows)} rows recorded" + (f" ({', '.join(more)})" if more else ""))


app.command("import")(import_table)
for command in (fit, predict, optimize, critical_share, autoscale, confirm, export, submit, doctor, online):
    app.command()(command)


def _default_study(space: SearchSpace) -> str:
    from raymix.study.files import folder_name

    return str(Path("runs") / folder_name(space.name))


def _search(wanted: SearchSpace, where: str, seed: int | None, fork: str | None, as_json: bool) -> None:
    """The main job: to the end of the budget, then to the results."""
    from raymix.results import results
    from raymix.study import Study

    with Screen(as_json) as screen:
        corpus = prepared(wanted, screen)
        resolved = wanted.with_available(corpus.tokens)
        work = Study.fork(resolved, where, fork, seed) if fork else Study.resume(resolved, where, seed)
        if not work.finished:
            from raymix.on_ray.run import run_study

            try:
                with screen.training() as progress:
                    run_study(work, corpus, progress)
            except BaseException:
                if not _signals:
                    raise
                screen.say(f"interrupted; nothing is lost. Continue with:\n  {work.command()}")
                raise SystemExit(128 + _signals[0]) from None
        with screen.working("reading the law at the target"):
            found = results(work)
        screen.recommendation(work, found)
