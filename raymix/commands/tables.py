"""`raymix import | fit | predict | optimize`: from anybody's runs to a law, its predictions and its optimum, as files.

No study and no Ray: a table in, LAW.json between, a table or recommendation.json out. Wrong usage and bad input are
one sentence and exit code 2.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raymix.commands.arguments import Json
from raymix.commands.options import (
    as_options,
    check_known,
    check_out,
    named_numbers,
    numbers_in,
    pair,
    scale_of,
    shares_of,
    target_of,
    weights_of,
)
from raymix.screens.screen import Screen

if TYPE_CHECKING:
    from raymix.observations import Observations
    from raymix.space import Metric
    from raymix.tables.choose import Choice
    from raymix.tables.law_file import LawFile

log = logging.getLogger(__name__)

TABLES = (".csv", ".csv.gz", ".parquet")

Out = typer.Option("-o", "--out", help="Where to write.")
LawPath = Annotated[Path, typer.Argument(metavar="LAW.json", help="What raymix fit wrote.")]
NParams = Annotated[float | None, typer.Option("--n-params", help="Parameters of the target model, no embeddings.")]
NTokens = Annotated[float | None, typer.Option("--n-tokens", help="Tokens the target model is trained on.")]


def import_table(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help="One of those above.")],
    src: Annotated[Path, typer.Argument(metavar="SRC", help="A file or folder.")],
    out: Annotated[Path, Out],
    option: Annotated[list[str], typer.Option("--option", metavar="KEY=VALUE", help="Of the format, as above.")] = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Published or your own runs as an observation table (.csv, .csv.gz or .parquet).

    \b
    regmix      the CSV of mixtures, or its folder
                [losses=FILE n_params= n_tokens=]
    olmix       a folder with ratios.csv and metrics.csv
                n_params= n_tokens= [metrics='*_bpb']
    mixinglaws  its text of losses, a folder, or a tidy table
                domains=A,B,C [experiment= model=70M skip=RUN]
    wandb       a CSV of runs, W&B's, Optuna's or Ray Tune's
                mapping=FILE, YAML that names columns:
                  {trial_id: Name, n_params: 60e6, n_tokens: tokens,
                  mixture: {web: w_web}, loss: {web: eval/web},
                  status: State, seed: seed, normalise: true}
    exchange    a table in the exchange form: checks it
    """
    from raymix.copies import copies, copy_words
    from raymix.formats import import_runs
    from raymix.screens.law import show_table
    from raymix.tables.notes import unit_notes

    with usage(), Screen(as_json) as screen:
        check_out(out, TABLES)
        table = import_runs(format, src, **dict(pair(text, "--option") for text in option))
        table.write(out)
        said = unit_notes(table)
        if found := copies(table.usable()):
            said.append(f"{copy_words(table.usable().trial_ids, found)}; raymix fit counts each once")
        for words in said:
            log.warning("%s: %s", src, words)
        show_table(screen, table, out)


def fit(
    tables: Annotated[
        list[Path],
        typer.Argument(metavar="TABLE", help="Runs in the exchange form, see raymix import; of several all."),
    ],
    out: Annotated[Path, Out],
    law: Annotated[str, typer.Option("--law", help="A law by name, or auto: chosen by cross-validation.")] = "auto",
    evals: Annotated[list[str], typer.Option("--eval", help="Only this eval domain; may be repeated.")] = [],  # noqa: B006
    weights: Annotated[str | None, typer.Option(help="Of eval domains: a file, or name=w,name=w.")] = None,
    metric: Annotated[
        list[str], typer.Option("--metric", metavar="NAME=high|low", help="Also fit metric/NAME; which way is better.")
    ] = [],  # noqa: B006
    n_params: NParams = None,
    n_tokens: NTokens = None,
    as_json: Json = False,
) -> None:
    """Fit a law to runs. With a target larger than every run, laws are also judged on sizes held out."""
    from raymix.copies import without_copies
    from raymix.formats import import_runs
    from raymix.laws.reach import Reach
    from raymix.screens.law import show_fit
    from raymix.sheet import listed
    from raymix.tables.choose import choose_law, own_domains, rows_of
    from raymix.tables.law_file import LawFile, Trained, write_law
    from raymix.tables.notes import diverged_notes, ragged_notes, unit_notes
    from raymix.tables.together import together

    with usage(), Screen(as_json) as screen:
        check_out(out, (".json",))
        table, said = together([(path, import_runs("exchange", path)) for path in tables]), listed(tables, 3)
        runs, twice = without_copies(_only(_minimising(table, metric), evals).usable())
        for words in [*twice, *unit_notes(runs), *ragged_notes(runs)]:
            log.warning("%s: %s", said, words)
        given = None if weights is None else named_numbers(weights, runs.eval_domains, "eval domain", "--weights")
        weights_M = weights_of(given, runs.eval_domains, runs.metrics)
        own_M = own_domains(runs.domains, runs.eval_domains)
        candidates = None if law == "auto" else [law]
        target = target_of(n_params, n_tokens)
        with screen.working("fitting laws") as progress:
            choice = choose_law(runs, own_M, target, candidates, weights_M, progress=progress)
            reach = Reach.of(rows_of(runs, own_M), choice.name)
        for words in diverged_notes(runs, own_M):
            log.warning("%s: %s", said, words)
        trained, why = Trained.on(runs), _choice_json(choice)
        found = LawFile(
            choice.law, runs.domains, runs.eval_domains, weights_M, trained, why, choice.elsewhere, reach,
            minimised=_minimised(runs, metric),
        )  # fmt: skip
        write_law(out, found)
        own = {name: runs.domains[k] for name, k in zip(runs.eval_domains, own_M, strict=True) if k >= 0}
        show_fit(screen, found, own, out)


def predict(
    law: LawPath,
    queries: Annotated[Path, typer.Argument(metavar="QUERIES", help="Exchange form without losses.")],
    out: Annotated[Path, Out],
    as_json: Json = False,
) -> None:
    """Losses with 90% intervals for mixtures and scales in a table (.csv, .csv.gz or .parquet)."""
    from raymix.exchange import write_table
    from raymix.screens.law import show_predictions
    from raymix.tables.law_file import read_law
    from raymix.tables.predictions import predict_table

    with usage(), Screen(as_json) as screen:
        check_out(out, TABLES)
        found = read_law(law)
        table, notes = predict_table(found, _queries(found, queries), str(queries))
        write_table(table, out)
        show_predictions(screen, found, table.num_rows, notes, out)


def optimize(
    law: LawPath,
    out: Annotated[Path, Out],
    n_params: Annotated[float, typer.Option("--n-params", help="Parameters of the model to train, no embeddings.")],
    n_tokens: Annotated[float, typer.Option("--n-tokens", help="Tokens to train it on.")],
    available: Annotated[Path | None, typer.Option(help="File of unique tokens at hand per domain.")] = None,
    max_epochs: Annotated[float | None, typer.Option(help="Of any domain at the target; 4 with --available.")] = None,
    objective: Annotated[Path | None, typer.Option(help="File of weights per eval domain.")] = None,
    least: Annotated[list[str], typer.Option("--min", metavar="NAME=SHARE", help="Lowest share.")] = [],  # noqa: B006
    most: Annotated[list[str], typer.Option("--max", metavar="NAME=SHARE", help="Highest share.")] = [],  # noqa: B006
    prior: Annotated[
        Path | None, typer.Option(help="File of today's share per domain, or a mixture of another tool.")
    ] = None,
    pull: Annotated[float, typer.Option(help="Towards --prior: nats per nat of KL divergence, such as .05.")] = 0.0,
    as_json: Json = False,
) -> None:
    """The mixture with the least predicted loss at a scale, as recommendation.json."""
    from raymix.screens.law import show_optimum
    from raymix.tables.advise import Wanted, advise
    from raymix.tables.law_file import read_law

    with usage(), Screen(as_json) as screen:
        check_out(out, (".json",))
        found = read_law(law)
        if max_epochs is not None and available is None:
            raise ValueError("--max-epochs needs --available: an epoch is a pass over the tokens at hand")
        if pull and prior is None:
            raise ValueError("--pull needs --prior: the mixture to pull towards")
        if not 0 <= pull < float("inf"):
            raise ValueError(f"--pull {pull:g}: it must be a number of at least 0")
        wanted = Wanted(
            scale_of(n_params, n_tokens),
            numbers_in(available, found.domains, "available") or {},
            max_epochs if max_epochs is not None or available is None else 4.0,  # arXiv 2305.16264: little lost to 4
            shares_of(least, found.domains, "--min"),
            shares_of(most, found.domains, "--max"),
            numbers_in(prior, found.domains, "mixture"),
            numbers_in(objective, found.eval_domains, "weights"),
            pull,
        )
        with as_options():
            recommendation = advise(found, wanted)
        out.write_text(json.dumps(recommendation.to_json(), indent=2, allow_nan=False), encoding="utf-8")
        show_optimum(screen, recommendation, out)


@contextmanager
def usage() -> Iterator[None]:
    """A ValueError is the user's: one sentence, exit code 2."""
    try:
        yield
    except ValueError as error:
        print(f"raymix: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def _queries(found: LawFile, path: Path) -> Observations:
    """The queries in a file; where shares do not sum to 1 because a column is missing, that is what is said."""
    from raymix.formats import import_runs
    from raymix.sheet import read_sheet
    from raymix.tables.predictions import check_domains

    try:
        return import_runs("exchange", path)
    except ValueError:
        domains = [name.removeprefix("mixture/") for name in read_sheet(path).names if name.startswith("mixture/")]
        if domains:
            check_domains(found, domains, str(path))
        raise


def _only(table: Observations, evals: Sequence[str]) -> Observations:
    """The table with these eval domains alone."""
    unsaid = [name for name in table.metrics if name not in table.eval_domains]
    which = "say of a metric which way is better: --metric {name}=high or --metric {name}=low"
    if not table.eval_domains:
        more = f"; {which.format(name=unsaid[0])}" if unsaid else ""
        raise ValueError(f"the table has no column loss/<eval domain>, so there is nothing to fit a law to{more}")
    for name in evals:
        if name in unsaid:
            raise ValueError(f"--eval {name}: {which.format(name=name)}")
    check_known(evals, table.eval_domains, "eval domain", "--eval")
    return replace(table, eval_domains=tuple(dict.fromkeys(evals))) if evals else table


def _minimising(table: Observations, given: Sequence[str]) -> Observations:
    """The table with what is minimised in place of these metrics."""
    better = [pair(text, "--metric") for text in given]
    check_known([name for name, _ in better], table.metrics, "metric", "--metric")
    if len(dict(better)) < len(better):
        raise ValueError(f"--metric: a metric stands twice; keep one of {', '.join(given)}")
    for name, word in better:
        if word not in ("high", "low"):
            raise ValueError(f"--metric {name}={word}: write {name}=high or {name}=low, whichever is better")
        minimised = name in table.eval_domains  # as a study writes it, which knows the best
        if word == "high" and not minimised and (table.column(f"metric/{name}") > 1).any():
            raise ValueError(f"--metric {name}=high: 1 is the best of such a metric, and the column has larger values: "
                             "divide per cents by 100")  # fmt: skip
    return table.minimising(_metrics(given))


def _metrics(given: Sequence[str]) -> list[Metric]:
    from raymix.space import Metric

    better = dict(pair(text, "--metric") for text in given)
    return [Metric.model_validate({"name": name, "better": word}) for name, word in better.items()]


def _minimised(runs: Observations, given: Sequence[str]) -> dict[str, str]:
    """What is minimised in the place of the metrics among the eval domains; their own losses where nobody says."""
    from raymix.target.objective import minimised

    found = {name: name for name in runs.metrics} | minimised(_metrics(given))
    return {name: words for name, words in found.items() if name in runs.eval_domains}


def _choice_json(choice: Choice) -> dict[str, Any]:
    return {"name": choice.name, "why": choice.why, "scores": [score.to_json() for score in choice.scores]}
