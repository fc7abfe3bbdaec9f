"""Every figure about the laws, each beside what it is to reach: `python -m benchmarks.laws --data DIR`.

    regmix      few small runs rank the rest            laws_regmix
    mixtures    mixtures never trained                  laws_mixtures
    scale       larger and longer than anything seen    laws_scale
    speed       seconds, beside the published fit       laws_speed
    golden      AutoScale's published numbers           laws_golden
    coverage    do 90% intervals hold 90%               laws_coverage
    published   the cross-validation table              laws_published

Takes 10 minutes on one core (30 on a busy one), most of them in the automatic choice; `--rows` runs a part.
One thread, so that seconds are comparable.
"""

import argparse
import datetime
import importlib.metadata
import json
import sys
import time
from pathlib import Path

from benchmarks import laws_coverage, laws_golden, laws_mixtures, laws_published, laws_regmix, laws_scale, laws_speed
from benchmarks.laws_figures import Row, Task, markdown
from benchmarks.machine import machine, one_thread
from benchmarks.published import data_folder

SECTIONS = (laws_regmix, laws_mixtures, laws_scale, laws_speed, laws_golden, laws_coverage, laws_published)
PACKAGES = ("numpy", "scipy", "torch", "lightgbm")


def main() -> None:
    """Run what was asked for, print it as it comes, write the page."""
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of published runs (default: RAYMIX_DATA or ../shared/data)")
    parser.add_argument("--rows", help="parts whose name contains one of these words, separated by commas")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page of results")
    given = parser.parse_args()
    folder = data_folder(given.data)
    chosen = {section.__name__: named(section.tasks(folder), given.rows) for section in SECTIONS}
    if not any(chosen.values()):
        parser.error(f"nothing is named {given.rows!r}; there are: {'; '.join(names(folder))}")
    began, found = time.perf_counter(), {}
    for name, tasks in chosen.items():
        found[name] = [row for task in tasks for row in printed(task, given.json)]
    minutes = (time.perf_counter() - began) / 60
    if not given.json:
        print(f"{minutes:.1f} minutes; {verdict(found)}")
    if given.markdown:
        given.markdown.write_text(page(found, minutes))


def named(tasks: list[Task], words: str | None) -> list[Task]:
    """The tasks asked for; all of them without words."""
    wanted = [word.strip().lower() for word in words.split(",")] if words else [""]
    return [task for task in tasks if any(word in task.name.lower() for word in wanted)]


def names(folder: Path) -> list[str]:
    """All tasks by name."""
    return [task.name for section in SECTIONS for task in section.tasks(folder)]


def printed(task: Task, as_json: bool) -> list[Row]:
    """The rows of a task, printed."""
    began = time.perf_counter()
    rows = list(task.run())
    for row in rows:
        print(json.dumps({"task": task.name, **row.as_json()}) if as_json else row.words(), flush=True)
    if not as_json:
        print(f"-- {task.name}, {time.perf_counter() - began:.0f} s\n", flush=True)
    return rows


def verdict(found: dict[str, list[Row]]) -> str:
    """How many goals were reached."""
    reached = [f.reached for rows in found.values() for row in rows for f in row.figures if f.reached is not None]
    return f"{sum(reached)} of {len(reached)} goals reached"


def page(found: dict[str, list[Row]], minutes: float) -> str:
    """The stored page: how it was made, then a table per section."""
    asked = " ".join(["python -m benchmarks.laws", *sys.argv[1:]])
    head = [
        "# Laws, measured", "",
        f"`{asked}` on {datetime.date.today()}: {minutes:.0f} minutes, {verdict(found)}.", "",
        f"{machine()}, one thread; {versions()}.", "",
        "A figure stands beside its goal; `ref` is a figure measured elsewhere. Written by the command.",
    ]  # fmt: skip
    parts = []
    for section in SECTIONS:
        if rows := found[section.__name__]:
            title = section.__name__.removeprefix("benchmarks.laws_")
            parts.append(f"## {title}\n\n{str(section.__doc__).strip()}\n\n{markdown(rows)}\n")
    return "\n".join([*head, "", *parts])


def versions() -> str:
    """Packages that the figures depend on."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} absent")
    return ", ".join(found)


if __name__ == "__main__":
    one_thread("benchmarks.laws")
    main()
