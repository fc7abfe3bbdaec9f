"""`raymix online`: a published method that changes the mixture while one proxy trains, for comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raymix.commands.arguments import AtScale, Json, SpacePath
from raymix.commands.corpus import prepared, trainable
from raymix.commands.options import check_out
from raymix.screens.screen import Screen
from raymix.space import SearchSpace, SpaceError

if TYPE_CHECKING:
    from raymix.proxy.online.session import Answer


def online(
    space: SpacePath,
    method: Annotated[str, typer.Option(help="doremi, doge, ado or aioli.")] = "doremi",
    scale: AtScale = None,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Overrides the file: recipe.batch=16")
    ] = [],  # noqa: B006 - typer reads the default and never changes it
    seed: Annotated[int, typer.Option(help="Of weights and data.")] = 0,
    output: Annotated[Path | None, typer.Option("-o", help="Where to write the mixture as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Train one proxy (two for doremi) whose mixture follows a published online method; its mean is the answer."""
    from raymix.proxy.loop import Diverged
    from raymix.proxy.online import METHODS, choose_online

    if method not in METHODS:
        raise SpaceError(f"no online method {method!r}; there are {', '.join(METHODS)}")
    if scale is not None and not all(0 < part < float("inf") for part in scale):
        raise SpaceError(f"--scale {scale[0]:g} {scale[1]:g}: parameters and tokens must be numbers above 0")
    if output is not None:
        check_out(output)  # not after a proxy was trained
    wanted = trainable(SearchSpace.load(space, settings))
    n_params, n_tokens = scale or max((rung.scale for rung in wanted.ladder), key=lambda at: at.n_params * at.n_tokens)
    with Screen(as_json) as screen:
        corpus = prepared(wanted, screen)
        resolved = wanted.with_available(corpus.tokens)
        try:
            found = choose_online(method, corpus, resolved, n_params, n_tokens, seed)
        except Diverged as why:
            raise ValueError(f"{method}: {why}: lower recipe.learning_rate") from None
        about = as_recommended(found, resolved) | {
            "method": method,
            "proxy": {"n_params": n_params, "n_tokens": n_tokens},
        }
        text = json.dumps(about, indent=2, ensure_ascii=False)
        if output is not None:
            output.write_text(text + "\n", encoding="utf-8")
        if as_json:
            print(text)
            return
        for name, share in about["mixture"].items():
            screen.say(f"{share:7.1%}  {name}")


def as_recommended(found: Answer, space: SearchSpace) -> dict[str, Any]:
    """An answer as `raymix export` takes it: for the target, whose tokens and epochs trainers are told."""
    from raymix.target.reading import epochs_of

    return {
        "mixture": space.shares(found.mixture_K),
        "last": space.shares(found.path_TK[-1]),
        "scale": {"n_params": space.target.n_params, "n_tokens": space.target.n_tokens},
        "epochs": epochs_of(space, found.mixture_K, space.target.n_tokens),
        "flops": found.flops,
    }
