"""The main job, timed as a user meets it: cold cache, then the same study again, then a larger budget.

    python -m benchmarks.quickstart [--space FILE] [--more N] [--json]

Prints seconds of each run, what was found and how well the law predicted held-out mixtures. Takes about three times
as long as the quickstart itself; wants an otherwise idle machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

ROOT = Path(__file__).parents[1]


def timed(space: Path, study: Path, cache: Path, *settings: str) -> tuple[float, dict[str, Any]]:
    """Seconds of one `raymix run`, and its final JSON object with the number of trials it trained."""
    words = [sys.executable, "-m", "raymix", "run", str(space), "--study", str(study), "--json"]
    words += [word for setting in settings for word in ("--set", setting)]
    started = time.perf_counter()
    done = subprocess.run(
        words, env={**os.environ, "RAYMIX_CACHE": str(cache)}, stdout=subprocess.PIPE, text=True, check=True
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    seconds = time.perf_counter() - started
    return seconds, events[-1] | {"trained": sum(event["event"] == "ended" for event in events)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", type=Path, default=ROOT / "search_spaces" / "quickstart.yaml")
    parser.add_argument("--more", type=int, default=4, help="trials added to the budget in the last run")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study, cache = Path(folder) / "study", Path(folder) / "cache"
        first = timed(asked.space, study, cache)
        again = timed(asked.space, study, cache)
        other = timed(asked.space, Path(folder) / "other", cache)
        trials = int(first[1]["evidence"]["trials"] + first[1]["evidence"]["failed"])
        more = timed(asked.space, study, cache, f"budget.trials={trials + asked.more}")
    rows = {
        "first run, cold cache": first,
        "the same command again": again,
        "a new study, warm cache": other,
        f"{asked.more} more trials": more,
    }
    if asked.json:
        print(json.dumps({name: {"seconds": seconds, **found} for name, (seconds, found) in rows.items()}))
        return
    print(f"{machine()}, {time.strftime('%Y-%m-%d')}\n")
    print("| run | seconds | trials trained | rank correlation (within a size) | noise | gain over prior |")
    print("|---|---|---|---|---|---|")
    for name, (seconds, found) in rows.items():
        law, gain = found["law"], found["baselines"]["prior"]["gain"]
        rank = f"{law['rank_correlation']:.2f} ({law['rank_correlation_within_size']:.2f})"
        ends = f"{gain['mean']:.3f} ({gain['low']:.3f} to {gain['high']:.3f})"
        print(f"| {name} | {seconds:.0f} | {found['trained']} | {rank} | {law['noise']:.3f} | {ends} |")
    print("\nRecommended: " + ", ".join(f"{k} {v:.1%}" for k, v in first[1]["mixture"].items()))
    print(f"Verdict: {first[1]['verdict']['answer']}: {first[1]['verdict']['reason']}")


if __name__ == "__main__":
    main()
