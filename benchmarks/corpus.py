"""How fast text becomes tokens: per core, on two processes, and from nothing for the quickstart.

    python -m benchmarks.corpus [--megabytes 96] [--repeat 3] [--json]

Text of installed packages, a BPE of 4096 trained on it. One and two processes take turns in one run; speeds are of the
best round, the efficiency of two is the median of paired rounds. Reading, tokenising and hashing are in it, the start
of the processes too. Wants an idle machine: the load it found is printed, and CPU seconds beside seconds of the clock.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from raymix.corpus import prepare
from raymix.corpus.builtin import collect
from raymix.corpus.sources import spool
from raymix.space import SearchSpace

ROOT = Path(__file__).parents[1]
PARTS = {"python": 0.6, "cpp": 0.2, "docstrings": 0.2}


def cpu_seconds() -> float:
    """Of this process and of those it has waited for."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def some_text(folder: Path, megabytes: float) -> SearchSpace:
    """Files of text, a tokenizer, and the space that names them."""
    texts = collect({part: share * megabytes for part, share in PARTS.items()})
    for part, documents in texts.items():
        spool(documents, folder / f"{part}.jsonl")
    raw: dict[str, Any] = {
        "name": "speed",
        "domains": [{"name": p, "source": {"files": f"{p}.jsonl", "origin": "origin"}} for p in PARTS],
        "eval_domains": [{"name": p, "own": p} for p in PARTS],
        "ladder": [{"n_params": 1e5, "n_tokens": 1e6}],
        "target": {"n_params": 1e6, "n_tokens": 1e7},
    }
    small = {**raw, "domains": [{"name": p, "source": {"builtin": p, "megabytes": 2}} for p in PARTS]}
    trained = prepare(SearchSpace.parse(small, folder), folder / "small", workers=1)
    (folder / "tok.json").write_bytes((trained.path / "tokenizer.json").read_bytes())
    return SearchSpace.parse({**raw, "tokenizer": "tok.json"}, folder)


def timed(space: SearchSpace, cache: Path, workers: int) -> dict[str, float]:
    """Seconds of the clock and of the CPU for the tokenising stage, and for all of it."""
    began: dict[str, tuple[float, float]] = {}

    def tell(stage: str, done: float) -> None:
        began.setdefault(stage, (time.perf_counter(), cpu_seconds()))

    start = time.perf_counter()
    corpus = prepare(space, cache, tell, workers)
    ended = time.perf_counter()
    entries = [*corpus.manifest["train"].values(), *corpus.manifest["eval"].values()]
    return {
        "megabytes": sum(entry["text_bytes"] for entry in entries) / 1e6,
        "tokenise": began["write"][0] - began["tokenise"][0],
        "tokenise_cpu": began["write"][1] - began["tokenise"][1],
        "all": ended - start,
    }


def cold_quickstart(cache: Path) -> float:
    """Seconds of `raymix prepare` for the quickstart, nothing cached."""
    words = [sys.executable, "-m", "raymix", "prepare", str(ROOT / "search_spaces" / "quickstart.yaml"), "--json"]
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    start = time.perf_counter()
    subprocess.run(words, env={**environment, "RAYMIX_CACHE": str(cache)}, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=96.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one worker is one core
    load = os.getloadavg()[0]
    runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        space = some_text(folder, asked.megabytes)
        for i in range(asked.repeat):
            for workers, done in runs.items():
                done.append(timed(space, folder / f"cache-{workers}-{i}", workers))
        quickstart = cold_quickstart(folder / "quickstart")
    best = {workers: min(done, key=lambda run: run["tokenise"]) for workers, done in runs.items()}
    megabytes = best[1]["megabytes"]
    pairs = sorted(one["tokenise"] / (2 * two["tokenise"]) for one, two in zip(runs[1], runs[2], strict=True))
    found = {
        "load before": load,
        "megabytes of text": megabytes,
        "MB per CPU second": megabytes / min(run["tokenise_cpu"] for run in runs[1]),
        "MB per second, 1 process": megabytes / best[1]["tokenise"],
        "MB per second, 2 processes": megabytes / best[2]["tokenise"],
        "parallel efficiency on 2, median of pairs": statistics.median(pairs),
        "least of the pairs": pairs[0],
        "most of the pairs": pairs[-1],
        "efficiency of the best rounds": best[1]["tokenise"] / (2 * best[2]["tokenise"]),
        "CPU seconds, 2 over 1": min(r["tokenise_cpu"] for r in runs[2]) / min(r["tokenise_cpu"] for r in runs[1]),
        "split, check and write, seconds": best[1]["all"] - best[1]["tokenise"],
        "quickstart cold, seconds": quickstart,
    }
    if asked.json:
        print(json.dumps({**found, "runs": runs}))
        return
    print(f"{machine()}, {time.strftime('%Y-%m-%d')}\n")
    for what, value in found.items():
        print(f"| {what} | {value:.3g} |")


if __name__ == "__main__":
    main()
