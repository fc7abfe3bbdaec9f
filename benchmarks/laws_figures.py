"""What a benchmark of laws hands back: rows of figures, each beside the figure to reach.

A section is a module with `tasks(folder)`: named pieces of work, run only where their name is asked for.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A measured number; `least` and `most` bound what was to be reached, `reference` is only there to compare."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None
    reference: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the goal was met; None where there is none."""
        if self.least is None and self.most is None:
            return None
        low = -math.inf if self.least is None else self.least
        high = math.inf if self.most is None else self.most
        return bool(low <= self.value <= high)

    @property
    def goal(self) -> str:
        """The goal in words; empty where there is none."""
        if self.least is not None and self.most is not None:
            return f"{short(self.least)} to {short(self.most)}"
        if self.least is not None:
            return f">= {short(self.least)}"
        if self.most is not None:
            return f"<= {short(self.most)}"
        return "" if self.reference is None else f"ref {short(self.reference)}"

    def words(self) -> str:
        """Value, goal and verdict."""
        if not self.goal:
            return short(self.value)
        verdict = {True: ", reached", False: ", missed", None: ""}[self.reached]
        return f"{short(self.value)} ({self.goal}{verdict})"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        value = float(self.value) if math.isfinite(self.value) else None
        goal = {"least": self.least, "most": self.most, "reference": self.reference}
        return {"name": self.name, "value": value, **goal, "reached": self.reached}


@dataclass(frozen=True)
class Row:
    """The figures of one method on one case."""

    case: str
    method: str
    figures: tuple[Figure, ...]

    def words(self) -> str:
        """One line of text."""
        cells = "  ".join(f"{figure.name} {figure.words()}" for figure in self.figures)
        return f"{self.case:38} {self.method:16} {cells}"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"case": self.case, "method": self.method, "figures": [figure.as_json() for figure in self.figures]}


@dataclass(frozen=True)
class Task:
    """A named piece of work."""

    name: str
    run: Callable[[], Iterable[Row]]


def short(value: float) -> str:
    """Three or four significant digits, in the shortest form."""
    if not math.isfinite(value):
        return "-"
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        return f"{value:.2g}"
    return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < 1 else f"{value:.5g}"


def markdown(rows: list[Row]) -> str:
    """A table with a column per figure name, in the order they first appear."""
    names = list(dict.fromkeys(figure.name for row in rows for figure in row.figures))
    lines = ["| case | method | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        cell = {figure.name: figure.words() for figure in row.figures}
        lines.append(f"| {row.case} | {row.method} | " + " | ".join(cell.get(name, "") for name in names) + " |")
    return "\n".join(lines)
