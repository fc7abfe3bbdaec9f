"""`raymix submit | doctor`: a study on a cluster, and whether this machine and that cluster are fit for it."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from raymix.commands.arguments import Json, Prices, Settings, SpacePath
from raymix.screens.screen import Screen, named, show_costs

if TYPE_CHECKING:
    from raymix.clusters.request import ClusterRequest
    from raymix.on_ray.progress import Progress
    from raymix.plan import Plan
    from raymix.space import SearchSpace
    from raymix.study.noise import Noise

Options = Annotated[
    list[str], typer.Option("--option", metavar="KEY=VALUE", help="Of the cluster: region, subnet, namespace, ...")
]


def submit(
    space: SpacePath,
    cluster: Annotated[
        str, typer.Option(metavar="KIND", help="aws, gcp, azure, kuberay, slurm, or the address of a running cluster.")
    ],
    storage: Annotated[str, typer.Option(metavar="URI", help="Where studies live: s3://bucket/folder, or a path.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the checked file, start nothing.")] = False,
    gpu: Annotated[str | None, typer.Option(metavar="TYPE", help="T4, L4, A10, L40S, A100, H100 or none.")] = None,
    max_workers: Annotated[int, typer.Option(min=1, help="Worker machines at most; they start at 0.")] = 4,
    spot: Annotated[bool, typer.Option("--spot/--no-spot", help="Machines that may be taken away, for less.")] = True,
    image: Annotated[str | None, typer.Option(help="The image built from cluster/Dockerfile.")] = None,
    options: Options = [],  # noqa: B006 - typer reads the default and never changes it
    settings: Settings = [],  # noqa: B006
    prices: Prices = None,
    as_json: Json = False,
) -> None:
    """Run a study on a cluster. The same command again meets the running study, or continues it."""
    from raymix.clusters.prices import read_prices
    from raymix.clusters.request import DEFAULT_GPU, KINDS, ClusterRequest, cluster_name
    from raymix.clusters.submit import run_job
    from raymix.clusters.submit import submit as start
    from raymix.clusters.work import make_work
    from raymix.space import SearchSpace, SpaceError

    if cluster not in KINDS and "://" not in cluster:
        raise SpaceError(f"--cluster {cluster}: one of {', '.join(KINDS)}, or an address like http://127.0.0.1:8265")
    request, accelerator = None, None if gpu == "none" else gpu
    if cluster in KINDS:
        request = ClusterRequest(
            cluster,
            cluster_name(SearchSpace.load(space, settings).name),
            read_prices(prices),
            gpu=None if gpu == "none" else gpu or DEFAULT_GPU.get(cluster, "L4"),
            max_workers=max_workers,
            spot=spot,
            options=_pairs(options),
            **({"image": image} if image else {}),
        )
        request.values()  # an unknown GPU or option is refused here
        accelerator = request.prices.gpus[request.gpu].ray if request.gpu else None
    work = make_work(space, settings, storage, accelerator)
    if dry_run:
        text, to_edit = _rendered(request, work) if request else (f"{shlex.join(work.command())}\n\n{work.text}", None)
        return _show(cluster, text, to_edit, as_json)
    with Screen(as_json) as screen:
        said = _shown(screen)
        try:
            state = start(request, work, said) if request else run_job(cluster, work, said)
        except Exception:
            raise
        except BaseException:  # a signal takes this client away alone
            again = shlex.join(["raymix", *sys.argv[1:]])
            screen.say(f"detached; what was submitted goes on without this terminal. Come back with:\n  {again}")
            raise SystemExit(1) from None
        _end(screen, state, work.study)


def _pairs(options: list[str]) -> dict[str, str]:
    from raymix.space import SpaceError

    if wrong := [text for text in options if "=" not in text]:
        raise SpaceError(f"--option {wrong[0]}: write KEY=VALUE")
    return {key: value for key, _, value in (text.partition("=") for text in options)}


def _rendered(request: ClusterRequest, work: Any) -> tuple[str, str | None]:
    """The file, checked for all but what is still to be edited; and that, as a sentence."""
    from raymix.clusters.check import ClusterFileError, check
    from raymix.clusters.submit import cluster_file

    text = cluster_file(request, work)
    check(text, f"the {request.kind} file", complete=False)
    try:
        check(text, f"the {request.kind} file")
    except ClusterFileError as error:
        return text, str(error)
    return text, None


def _show(cluster: str, text: str, to_edit: str | None, as_json: bool) -> None:
    """What would be started; what is still to be edited stands on standard error."""
    if as_json:
        return print(json.dumps({"event": "dry run", "cluster": cluster, "text": text, "to_edit": to_edit}))
    print(text, end="")
    if to_edit is not None:
        typer.echo(to_edit, err=True)


def _shown(screen: Screen) -> Callable[[str], None]:
    """Lines of a job: events of the study move the progress bar, everything else is passed on."""

    def show(line: str) -> None:
        try:
            event = json.loads(line)
            name = str(event.pop("event"))
        except (ValueError, KeyError, TypeError, AttributeError):
            return screen.say(line)
        if "total" in event:
            screen.trials(name, cast("Progress", SimpleNamespace(**event)))  # raymix.on_ray.run is slow to import

    return show


def _end(screen: Screen, state: str, study: str) -> None:
    if screen.as_json:
        print(json.dumps({"event": "job", "state": state, "study": study}))
    else:
        screen.say(f"{state.lower()}: raymix status {shlex.quote(study)}")
    if state != "SUCCEEDED":
        raise typer.Exit(1)


def check_costs(cloud: str | None, gpu: str | None, prices: Path | None, noise: float | None) -> None:
    """Refuse what `add_costs` could not answer, before a plan is made.

    Raises:
        SpaceError: a GPU without a cloud, a cloud or GPU that the prices do not have, a noise that is not above 0.
    """
    from raymix.clusters.prices import read_prices
    from raymix.space import SpaceError

    if cloud is not None:
        read_prices(prices).machine(cloud, gpu)
    elif gpu is not None:
        raise SpaceError("--gpu: say at which cloud: --cloud aws, gcp or azure")
    if noise is not None and not (math.isfinite(noise) and noise > 0):
        raise SpaceError(
            f"--noise {noise:g}: it must be a number of nats above 0; left out, it is what runs show, or assumed"
        )


def add_costs(
    screen: Screen, space: SearchSpace, found: Plan, cloud: str | None, gpu: str | None, max_workers: int,
    prices: Path | None, noise: Noise,
) -> None:  # fmt: skip
    """Show a plan with its money (where a cloud is named) and what this and other budgets resolve."""
    from raymix.clusters.money import price
    from raymix.clusters.prices import read_prices
    from raymix.study.resolution import compare_budgets
    from raymix.target.objective import unit_of, with_unit

    money = None
    if cloud is not None:
        seconds = space.recipe.checkpoint_seconds
        money = asdict(price(found, read_prices(prices), cloud, gpu, max_workers, seconds))
    searched = sum(rung.trials for rung in found.rungs if rung.purpose == "search")  # confirmation resolves nothing
    counts = sorted({max(searched * 2**i // 4, 4) for i in range(5)})
    budgets = tuple(map(asdict, compare_budgets(space, counts, noise.nats)))
    screen.plan(space, replace(found, money=money, budgets=budgets, noise=asdict(noise)))
    if not screen.as_json:
        of = unit_of(space)
        said = f"noise of one run {with_unit(f'{noise.nats:.3g}', of)}, {noise.source}"
        show_costs(screen, money, budgets, said, of)


def doctor(
    storage: Annotated[str | None, typer.Option(metavar="URI", help="Also try to write and read there.")] = None,
    cluster: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Also look at this Ray cluster.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the Hugging Face hub.")] = False,
    as_json: Json = False,
) -> None:
    """What is installed, what is missing, is the cluster safe. Exit code 1 if something is wrong."""
    from rich.table import Table
    from rich.text import Text

    from raymix.doctor import examine

    findings = examine(storage=storage, address=cluster, hub=not offline)
    with Screen(as_json) as screen:
        if as_json:
            print(json.dumps([vars(finding) for finding in findings]))
        else:
            table = Table("", "what", named("found"), named("remedy"))
            colours = {"ok": "green", "warning": "yellow", "error": "red"}
            for f in findings:
                table.add_row(Text(f.level, style=colours[f.level]), Text(f.what), Text(f.found), Text(f.remedy))
            screen.console.print(table)
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)
