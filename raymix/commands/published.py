"""`raymix critical-share` and `raymix autoscale`: two published answers that need no search, from files alone.

How much original data must stay in continual pre-training (Data Mixing Laws, arXiv 2403.16952); the optima of two
small scales carried to a larger one (AutoScale, arXiv 2407.20177).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raymix.commands.arguments import Json
from raymix.commands.options import check_known, check_out, named_numbers, numbers_in, scale_of, weights_of
from raymix.commands.tables import usage
from raymix.screens.screen import Screen

if TYPE_CHECKING:
    from raymix.observations import Observations
    from raymix.simplex import Array
    from raymix.tables.two_scales import OptimumAtScale

log = logging.getLogger(__name__)

Weights = Annotated[str | None, typer.Option(help="Of eval domains: a file, or name=w,name=w.")]
Out = Annotated[Path | None, typer.Option("-o", "--out", help="Where to write it as JSON.")]
Optimum = typer.Argument(help="A recommendation.json, tokens per domain, or a table of DDO's runs.")


def critical_share(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Runs of the continual stage, exchange form.")],
    original: Annotated[str, typer.Option(metavar="DOMAIN", help="The training domain with the original data.")],
    weights: Weights = None,
    before: Annotated[
        Path | None, typer.Option(help="File of losses before, per eval domain; else those of the rows `start`.")
    ] = None,
    n_params: Annotated[float | None, typer.Option("--n-params", help="Of a table of several sizes, this one.")] = None,
    noise: Annotated[float | None, typer.Option(help="Nats between runs of one mixture; else from residuals.")] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """The least share of original data that keeps its loss in continual pre-training, by tokens trained."""
    from raymix.formats import import_runs
    from raymix.screens.law import show_critical_share
    from raymix.target.continual import critical_share_of

    with usage(), Screen(as_json) as screen:
        if out is not None:
            check_out(out, (".json",))
        runs = import_runs("exchange", table)
        check_known([original], runs.domains, "domain", "--original")
        weights_M = _original_weights(runs, original, weights)
        if n_params is not None:
            runs = _of_size(runs, n_params)
        losses = numbers_in(before, runs.eval_domains, "losses")
        before_M = None if losses is None else [losses.get(name, float("nan")) for name in runs.eval_domains]
        found = critical_share_of(runs, original, before_M, weights_M, noise)
        facts = {"original": original, **found.to_json()}
        if out is not None:
            out.write_text(json.dumps(facts, indent=2, allow_nan=False), encoding="utf-8")
        show_critical_share(screen, found, original, facts)


def autoscale(
    small: Annotated[Path, Optimum],
    large: Annotated[Path, Optimum],
    n_params: Annotated[float, typer.Option("--n-params", help="Parameters of the model to train, no embeddings.")],
    n_tokens: Annotated[float, typer.Option("--n-tokens", help="Tokens to train it on.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where to write recommendation.json.")],
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Carry the best tokens per domain at two scales to a larger one, as AutoScale does."""
    from raymix.screens.law import show_carried
    from raymix.tables.two_scales import carried

    with usage(), Screen(as_json) as screen:
        check_out(out, (".json",))
        if weights is not None and not (_has_runs(small) or _has_runs(large)):
            log.warning("--weights has no effect: neither scale is a table of runs")
        first, second = _optimum(small, weights), _optimum(large, weights)
        found = carried(first, second, scale_of(n_params, n_tokens))
        out.write_text(json.dumps(found.to_json(), indent=2, allow_nan=False), encoding="utf-8")
        show_carried(screen, found, (first, second), out)


def _of_size(runs: Observations, n_params: float) -> Observations:
    """Its rows of one model size, by 1%."""
    size_B = runs.scale_B2[:, 0]
    rows = abs(size_B - n_params) <= 0.01 * n_params
    if not rows.any():
        raise ValueError(f"--n-params {n_params:g}: no row has it; there are {sorted(set(size_B.tolist()))}")
    return runs.select(rows)


def _original_weights(runs: Observations, original: str, given: str | None) -> Array:
    """Weights (M,) of the original loss: those given, else all on the eval domain of that name."""
    if given is not None:
        named = named_numbers(given, runs.eval_domains, "eval domain", "--weights")
    elif original in runs.eval_domains:
        named = {original: 1.0}
    else:
        raise ValueError(
            f"--weights: which eval domains are of the original data? None is called {original!r}; there are "
            f"{', '.join(runs.eval_domains[:12])}"
        )
    weights_M: Array = weights_of(named, runs.eval_domains, runs.metrics)
    return weights_M


def _has_runs(path: Path) -> bool:
    """Whether a file is a table of runs."""
    from raymix.sheet import existing, is_table, read_sheet

    return is_table(existing(path)) and any(name.startswith("mixture/") for name in read_sheet(path).names)


def _optimum(path: Path, weights: str | None) -> OptimumAtScale:
    """Best tokens per domain: as a file says, of a recommendation, or of the runs of a table."""
    from raymix.formats import import_runs, read_available
    from raymix.formats.exporters import recommended_in
    from raymix.sheet import read_text
    from raymix.tables.two_scales import OptimumAtScale, ddo_optimum

    if _has_runs(path):
        runs = import_runs("exchange", path)
        given = None if weights is None else named_numbers(weights, runs.eval_domains, "eval domain", "--weights")
        try:
            return ddo_optimum(runs, weights_of(given, runs.eval_domains, runs.metrics))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if path.suffix == ".json" and all(key in read_text(path) for key in ('"mixture"', '"scale"')):
        found = recommended_in(path)
        if none := [name for name, share in found["mixture"].items() if not share > 0]:
            raise ValueError(f"{path}: nothing of {none[0]!r}, and AutoScale takes logarithms: search both scales "
                             "without the domain, or with a least share of it")  # fmt: skip
        total = found["scale"]["n_tokens"]
        return OptimumAtScale.of({name: share * total for name, share in found["mixture"].items()})
    return OptimumAtScale.of(read_available(path))
