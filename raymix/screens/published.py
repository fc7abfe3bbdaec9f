"""What `raymix critical-share` and `autoscale` show: tables for people, one JSON object for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from raymix.counts import human
from raymix.screens.screen import Screen, named
from raymix.tables.two_scales import Carried, OptimumAtScale
from raymix.target.continual import AtTokens, CriticalShare


def show_critical_share(screen: Screen, found: CriticalShare, original: str, facts: dict[str, Any]) -> None:
    """The share by tokens of continual training."""
    if screen.as_json:
        print(json.dumps(facts, allow_nan=False))
        return
    table = Table("tokens trained", named(f"share of {original} that must stay"), "90%")
    for at in found.steps:
        table.add_row(human(at.n_tokens), _share(at.share), _interval(at))
    screen.console.print(table)
    screen.notes(found.notes)


def show_carried(screen: Screen, found: Carried, seen: tuple[OptimumAtScale, OptimumAtScale], out: Path) -> None:
    """The mixtures of the two scales and of the larger one."""
    if screen.as_json:
        print(json.dumps({"recommendation": str(out), **found.to_json()}))
        return
    tokens_3K = np.stack([*(at.ordered(found.domains).tokens_K for at in seen), found.tokens_K])
    total_3 = tokens_3K.sum(axis=1)
    table = Table(named("domain"), *(f"at {human(total)} tokens" for total in total_3), title="AutoScale")
    share_3K = tokens_3K / total_3[:, None]
    for name, *share_3 in zip(found.domains, *share_3K, strict=True):
        table.add_row(Text(name), *(f"{share:.1%}" for share in share_3))
    screen.console.print(table)
    screen.notes(found.notes)
    screen.say(str(out))


def _share(share: float) -> str:
    return "none is enough" if np.isinf(share) else "?" if np.isnan(share) else f"{share:.1%}"


def _interval(at: AtTokens) -> str:
    return "?" if np.isnan(at.low) else f"{_share(at.low)} - {_share(at.high)}"
