"""Kill a running study again and again, and damage its files: what was acknowledged must be there.

    python -m benchmarks.chaos --minutes 10

First every truncation point and 3,000 bit flips of a small study. Then the minutes, in two halves:
- a driver process that asks, trains (a synthetic trainer) and tells is killed at random moments and begun again until
  its study is finished, then the next study; two such studies side by side;
- `raymix run` on Ray: its driver, one of its workers, or everything on the host (a lost node) is killed.
All kills are SIGKILL. At the end the load of `python -m benchmarks.store`: 5,000 trivial trials, every record durable.
"""

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks import chaos_damage, chaos_driver, store
from tests.faults import real_study

WORKER_KILLS = 2  # in one life: five of the same trial's worker would fail it, as they should
SIDE_BY_SIDE = 2  # studies of the driver that trains by itself
PART = 6  # a driver lives for up to one part in so many of what a whole study says


@dataclass
class Tally:
    """What happened, in one part."""

    kills: Counter[str] = field(default_factory=Counter)
    studies: int = 0
    acknowledged: int = 0
    lost: int = 0
    twice: int = 0
    """Trials counted more than once, or trained again after their end."""
    paid_twice: int = 0
    """Trainings begun again that were not in flight at a kill; on Ray seen by the rows of `twice` alone."""
    differ: int = 0
    """Studies with other proposals, or another recommendation, than the one nobody killed."""

    def add(self, other: "Tally") -> None:
        """Count what happened elsewhere too."""
        self.kills += other.kills
        for name in ("studies", "acknowledged", "lost", "twice", "paid_twice", "differ"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def judge(self, path: Path, unkilled: Path, acknowledged: set[str]) -> None:
        """Count one finished study."""
        proposed, ended = real_study.ended_in(path)
        self.studies += 1
        self.acknowledged += len(acknowledged)
        self.lost += len(acknowledged - set(ended))
        self.twice += len(ended) - len(set(ended))
        truth, found = real_study.recommendation(unkilled), real_study.recommendation(path)
        same = all(abs(truth[name] - found[name]) <= 1e-9 for name in truth)
        self.differ += not (same and proposed == real_study.ended_in(unkilled)[0])

    def show(self, name: str) -> None:
        """In words."""
        kinds = ", ".join(f"{count} of the {kind}" for kind, count in sorted(self.kills.items())) or "none"
        print(f"{name}: {sum(self.kills.values())} kills ({kinds}) over {self.studies} studies")
        print(f"  {self.acknowledged:6} results acknowledged")
        for count, what in (
            (self.lost, "of them lost"),
            (self.twice, "counted twice"),
            (self.paid_twice, "trained twice beyond those in flight"),
            (self.differ, "studies with another recommendation (1e-9) or other proposals"),
        ):
            print(f"  {count:6} {what}")

    @property
    def bad(self) -> int:
        """What must be 0."""
        return self.lost + self.twice + self.paid_twice + self.differ


def kill_drivers(minutes: float, rng: random.Random, room: Path) -> Tally:
    """Studies driven by `benchmarks.chaos_driver`, some side by side."""
    tally, rooms = Tally(), [room / f"side{i}" for i in range(SIDE_BY_SIDE)]
    for side in rooms:
        side.mkdir()
    with ProcessPoolExecutor(SIDE_BY_SIDE, multiprocessing.get_context("spawn")) as pool:
        seeds = [rng.randrange(2**32) for _ in rooms]
        for part in pool.map(_kill_drivers, [minutes] * SIDE_BY_SIDE, seeds, rooms):
            tally.add(part)
    return tally


def _kill_drivers(minutes: float, seed: int, room: Path) -> Tally:
    """One study after the other."""
    rng = random.Random(seed)
    processes = multiprocessing.get_context("forkserver")  # real processes, without the seconds of importing
    processes.set_forkserver_preload([chaos_driver.__name__, "pandas"])  # pyarrow imports it when it is first needed

    def life(path: Path, words: int, moment: float) -> bool:
        """One driver, killed some words and a moment after its start; whether it came to its end before."""
        listener, speaker = processes.Pipe(duplex=False)
        process: BaseProcess = processes.Process(target=chaos_driver.main, args=(path, speaker))
        process.start()
        speaker.close()
        with suppress(EOFError):
            for _ in range(words):
                listener.recv()
        process.join(moment)
        process.kill()
        process.join()
        listener.close()
        return process.exitcode == 0

    unkilled = room / "driver-unkilled"
    assert life(unkilled, 10**6, 60.0), "the driver fails by itself"
    usual = len(said(unkilled))
    tally, end = Tally(), time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        path = room / f"driver-killed{tally.studies}"
        while not life(path, rng.randrange(usual // PART), rng.random() * 0.05):
            tally.kills["driver"] += 1
        words = said(path)
        tally.paid_twice += trained_again(words)
        tally.judge(path, unkilled, {trial for word, trial in words if word == "acknowledged"})
    return tally


def said(path: Path) -> list[tuple[str, str]]:
    """What all drivers of a study said, in order; the last line of one that was killed may be torn."""
    lines = [line.split() for line in Path(f"{path}.said").read_text().splitlines()]
    return [(line[0], line[1]) for line in lines if len(line) == 2]


def trained_again(words: list[tuple[str, str]]) -> int:
    """Trainings begun a second time, other than the one in flight when its driver was killed."""
    begun, in_flight, excused, again = set[str](), "", "", 0
    for word, trial in words:
        if word == "begun":
            excused, in_flight = in_flight or excused, ""
        elif word == "training":
            again += trial in begun and trial != excused
            begun.add(trial)
            in_flight, excused = trial, ""
        else:
            in_flight = ""
    return again


def kill_study(minutes: float, rng: random.Random, room: Path) -> Tally:
    """`raymix run` on a tiny text: its driver, a worker or the whole host is killed until it ends."""
    real_study.write(room)
    if not one_life(room, "unkilled", rng, Counter(), None):
        sys.exit(f"the study fails by itself:\n{(room / 'unkilled.log').read_text()}")
    tally, end = Tally(), time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        name, known = f"killed{tally.studies}", set[str]()
        patience = 14  # events: more than a third of those of an unkilled life
        while not one_life(room, name, rng, tally.kills, rng.randrange(1, patience)):
            known |= real_study.done(room / name)
        tally.judge(room / name, room / "unkilled", known | real_study.done(room / name))
    return tally


def one_life(room: Path, name: str, rng: random.Random, kills: Counter[str], patience: int | None) -> bool:
    """One start of the study, killed after so many events; whether it came to its end."""
    process = real_study.start(room, name)
    worker_kills = 0
    for _ in real_study.events(process):
        patience = None if patience is None else patience - 1
        if patience != 0:
            continue
        kind = rng.choice(("worker", "driver", "node"))
        if kind == "worker" and worker_kills < WORKER_KILLS and real_study.kill_worker(process):
            kills["worker"] += 1
            worker_kills += 1
            patience = rng.randrange(2, 14)
            continue
        if kind != "node":
            process.kill()
        kills["node" if kind == "node" else "driver"] += 1
        real_study.kill_all(process)  # after a driver's end: what Ray has not yet ended by itself
        return False
    return process.wait() == 0


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="raymix-chaos-") as name:
        seen = chaos_damage.damage(rng, Path(name))
        for kind, verdicts in seen.items():
            print(f"{sum(verdicts.values())} {kind} of a small study")
            never = {chaos_damage.LOSS, chaos_damage.RESTART}
            for what in [*sorted(set(verdicts) - never), *sorted(never)]:
                print(f"  {verdicts[what]:6} {what.lower()}")
        tallies = []
        for part, kill in (("drivers", kill_drivers), ("a study on Ray", kill_study)):
            tallies.append(kill(options.minutes / 2, rng, Path(name)))
            tallies[-1].show(part)
        print(f"{sum(tally.kills.total() for tally in tallies)} kills in all")
        store.load(Path(name), trials=5000, per_round=100, designer="filling")
    silent = sum(verdicts[what] for verdicts in seen.values() for what in (chaos_damage.LOSS, chaos_damage.RESTART))
    sys.exit(1 if silent or any(tally.bad for tally in tallies) else 0)


if __name__ == "__main__":
    main()
