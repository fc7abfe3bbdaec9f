"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

SpacePath = Annotated[Path, typer.Argument(metavar="SPACE.yaml", help="The search space.")]
StudyPath = Annotated[str, typer.Argument(metavar="DIR", help="The study: a directory, or s3://bucket/name.")]
Settings = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Overrides the file: budget.trials=32")]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, for machines.")]
Prices = Annotated[Path | None, typer.Option(metavar="FILE", help="A price table of your own, see cluster/.")]
AtScale = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="N D", help="Parameters and tokens of what is trained; default: the largest rung."),
]
