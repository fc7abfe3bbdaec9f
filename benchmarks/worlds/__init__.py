"""Worlds: places to search in whose truth is known. One file per kind: `simulator`, `replay`, `zoo`."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.worlds import replay, simulator, zoo
from benchmarks.worlds.base import World

NEED_DATA = (simulator, replay)


def makers(folder: Path | None) -> dict[str, Callable[[], World]]:
    """Every world by name; without a folder of published runs those that need none."""
    found: dict[str, Callable[[], World]] = {}
    for kind in NEED_DATA if folder is not None else ():
        found |= kind.worlds(folder)
    return found | zoo.worlds(folder)


__all__ = ["World", "makers"]
