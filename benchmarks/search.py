"""Who finds the mixture with the fewest trials: `python -m benchmarks.search [--data DIR]`.

Methods x worlds x seeds; the score is the regret of the *recommended* mixture at the target, in % of what the natural
mixture loses to the optimum, after 32, 64 and 128 trials (FLOPs in trials of the cheapest rung).

    --quick     some methods on some worlds, 2 seeds, 64 trials: at most 10 minutes on 2 cores
    --page      only write the page and the curves from what is stored

Every run is stored as one JSON line when it ends, and is not run again but to a larger budget: the same command
continues. The order is seed by seed, so that what is stored at any time is balanced. Without published runs (`--data`)
only the synthetic worlds are played.
"""

import argparse
import datetime
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, one_thread
from benchmarks.published import PARTS
from benchmarks.search_methods import METHODS, Method, rungs_of
from benchmarks.search_page import curves, page
from benchmarks.search_play import USUAL, play
from benchmarks.worlds import World, makers
from benchmarks.worlds.base import SINGLE

HERE = Path(__file__).parent
QUICK_WORLDS = ("regmix mean", "regmix cc", "m4 17", "autoscale 7, scales")
QUICK_BUDGET, QUICK_SEEDS = 64, 2

Task = tuple[str, str, int | None, int]  # world, method, rung, seed


def main() -> None:
    """Play what is not stored yet, then write page and curves."""
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of published runs (default: RAYMIX_DATA or ../shared/data)")
    parser.add_argument("--methods", help=f"names, separated by commas: {', '.join(m.name for m in METHODS)}")
    parser.add_argument("--worlds", help="words of their names, separated by semicolons")
    parser.add_argument("--seeds", type=int, help="how many (default: 10; with --quick 2)")
    parser.add_argument("--budget", type=int, help="largest, in trials of the cheapest rung (default: 128; --quick 64)")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--redo", default="", help="methods whose stored runs are dropped first: their code has changed"
    )
    parser.add_argument("--page", action="store_true", help="write page and curves from what is stored")
    parser.add_argument("--results", type=Path, help="stored runs (default: benchmarks/results/search.jsonl)")
    parser.add_argument("--markdown", type=Path, help="the page (default: benchmarks/search.md; --quick: only printed)")
    parser.add_argument("--json", action="store_true", help="print the runs as JSON lines")
    given = parser.parse_args()
    folder = published(given.data)
    methods = chosen_methods(given, parser)
    names = chosen_worlds(given, folder, parser)
    store = given.results or HERE / "results" / "search.jsonl"
    if given.quick and not given.results:  # a new file: a quick look is about the code as it is now
        store = Path(tempfile.mkdtemp(prefix="raymix-search-")) / "search.jsonl"
    seeds = given.seeds or (QUICK_SEEDS if given.quick else 10)
    began = time.perf_counter()
    drop(store, [word.strip() for word in given.redo.split(",")])
    if not given.page:
        budget = given.budget or (QUICK_BUDGET if given.quick else USUAL)
        run_all(folder, names, methods, seeds, budget, store, given.jobs)
    records = stored(store)
    if not records:
        parser.error(f"nothing is stored in {store}")
    if given.json:
        print("\n".join(json.dumps(record) for record in records))
    write(given, records, folder, (time.perf_counter() - began) / 60)


def published(given: str | None) -> Path | None:
    """The folder of published runs; without one, a sentence and None. A folder that was named must be there."""
    folder = Path(given or os.environ.get("RAYMIX_DATA", "../shared/data")).resolve()
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if not missing:
        return folder
    where = f"{', '.join(missing)} in {folder}"
    if given:
        print(f"no published runs ({where}): pass another --data DIR", file=sys.stderr)
        raise SystemExit(2)
    print(f"no published runs ({where}): only synthetic worlds; pass --data DIR for the others", file=sys.stderr)
    return None


def chosen_methods(given: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Method]:
    """Those named, or all; with --quick some."""
    if not given.methods:
        return [method for method in METHODS if method.quick or not given.quick]
    known = {method.name: method for method in METHODS}
    wanted = [word.strip() for word in given.methods.split(",")]
    for word in wanted:
        if word not in known:
            parser.error(f"unknown method {word!r}; there are: {', '.join(known)}")
    return [known[word] for word in wanted]


def chosen_worlds(given: argparse.Namespace, folder: Path | None, parser: argparse.ArgumentParser) -> list[str]:
    """Those whose name contains a word given, or all; with --quick some."""
    known = list(makers(folder))
    if not given.worlds:
        return [name for name in known if name in QUICK_WORLDS or not given.quick]
    wanted = [word.strip().lower() for word in given.worlds.split(";")]
    found = [name for name in known if any(word in name.lower() for word in wanted)]
    if not found:
        parser.error(f"no world is named {given.worlds!r}; there are: {'; '.join(known)}")
    return found


def run_all(
    folder: Path | None, names: list[str], methods: list[Method], seeds: int, budget: float, store: Path, jobs: int
) -> None:
    """Play every task that is not stored; one line per task as it ends."""
    done = {task_of(record) for record in stored(store) if "error" in record or reached(record) >= budget}
    todo = [task for task in tasks(folder, names, methods, seeds) if task not in done]
    print(f"{len(todo)} runs to play, {len(done)} stored in {store}", file=sys.stderr)
    store.parent.mkdir(exist_ok=True, parents=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool, store.open("a") as file:
        waiting = [pool.submit(play_task, folder, task, budget) for task in todo]
        for count, future in enumerate(as_completed(waiting), 1):
            record = future.result()
            file.write(json.dumps(record) + "\n")
            file.flush()
            last = list(record["regret"].values())[-1:] or [record.get("error", "nothing")]
            name = f"{record['world']}, {record['method']}, rung {record['rung']}, seed {record['seed']}"
            print(f"[{count}/{len(todo)}] {name}: {last[0]} ({record['seconds']:.0f} s)", file=sys.stderr, flush=True)


def tasks(folder: Path | None, names: list[str], methods: list[Method], seeds: int) -> Iterator[Task]:
    """Seed by seed; a mixture without a search has one seed."""
    for seed in range(seeds):
        for name in names:
            for method in methods:
                if not (method.fixed and seed) and (method.single or not name.startswith(SINGLE)):
                    yield from ((name, method.name, rung, seed) for rung in rungs_of(method, world_of(folder, name)))


def reached(record: dict[str, Any]) -> float:
    """The largest budget a stored run was played to; infinite where its method goes no further."""
    last = max(map(int, record["regret"]), default=0)
    return next((math.inf for m in METHODS if m.name == record["method"] and last >= m.most), last)


def task_of(record: dict[str, Any]) -> Task:
    """Which task a stored run was."""
    return record["world"], record["method"], record["rung"], record["seed"]


@lru_cache
def world_of(folder: Path | None, name: str) -> World:
    """A world, made once per process."""
    return makers(folder)[name]()


def play_task(folder: Path | None, task: Task, budget: float) -> dict[str, Any]:
    """One run, in a worker."""
    name, method_name, rung, seed = task
    method = next(method for method in METHODS if method.name == method_name)
    return play(world_of(folder, name), method, rung, seed, budget)


def stored(store: Path) -> list[dict[str, Any]]:
    """All stored runs, each task once (the last counts); a torn last line is left out."""
    found: dict[Task, dict[str, Any]] = {}
    for line in store.read_text().splitlines() if store.is_file() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[task_of(record)] = record
    return list(found.values())


def drop(store: Path, methods: Sequence[str]) -> None:
    """Forget the stored runs of these methods."""
    records = stored(store)
    kept = [record for record in records if record["method"] not in methods]
    if len(kept) < len(records):
        store.write_text("".join(json.dumps(record) + "\n" for record in kept))


def write(given: argparse.Namespace, records: Sequence[dict[str, Any]], folder: Path | None, minutes: float) -> None:
    """The page, printed or to its file, and the curves beside it."""
    known = makers(folder)
    worlds = {name: world_of(folder, name) for name in dict.fromkeys(r["world"] for r in records) if name in known}
    text = page(sorted_records(records, list(known)), worlds, head(records, minutes))
    if given.quick and not given.markdown:
        print(text)
        return
    target = given.markdown or HERE / "search.md"
    target.write_text(text)
    picture = target.parent / "pictures" / "search.html"
    curves(sorted_records(records, list(known)), picture)
    print(f"written: {target}, {picture}", file=sys.stderr)


def sorted_records(records: Sequence[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """In the order of the worlds."""
    return sorted(records, key=lambda record: names.index(record["world"]) if record["world"] in names else len(names))


def head(records: Sequence[dict[str, Any]], minutes: float) -> list[str]:
    """How the figures were made."""
    asked = " ".join(["python -m benchmarks.search", *sys.argv[1:]])
    seeds = len({record["seed"] for record in records})
    few = " One seed tells no standard error: read differences as hints." if seeds == 1 else ""
    return [
        f"`{asked}` on {datetime.date.today()}; {len(records)} runs stored, up to {seeds} seeds.{few}", "",
        f"{machine()}. Mean ± standard error; seeds in the last column (by budget",
        "where they differ). Where one of two methods has one seed, read their difference as a hint.", "",
        "Regret of the recommended mixture at the target, % of what the natural mixture loses to the optimum. All",
        "methods meet the same noise, caps and prior. At several scales a budget counts trials of the cheapest rung,",
        "and a method without a ladder counts with the better of the two cheapest. The command also draws the curves:",
        "pictures/search.html. `law` is scored on what a study recommends from the same runs (`raymix.target.answer`).",
        "`tpe`, `cmaes` and `gp` begin with the eight trials that fill space for `law`; from corners alone, as once,",
        "they found Pile-CC better, and `gp` m4 17 (LOG.md: \"The searchers once more\", \"Ten seeds\").",
        *shorter(records),
    ]  # fmt: skip


def shorter(records: Sequence[dict[str, Any]]) -> list[str]:
    """Which searches were not played to the last budget by any seed."""
    last: dict[str, int] = {}
    for record in records:
        last[record["method"]] = max(last.get(record["method"], 0), *map(int, record["regret"]), 0)
    found = [f"`{name}` to {budget}" for name, budget in last.items() if budget < USUAL]
    return [f"Played to less than {USUAL} trials: {', '.join(found)}."] if found else []


if __name__ == "__main__":
    one_thread("benchmarks.search")
    main()
