"""A real study, `raymix run` on Ray in a session of its own, to be killed: six trials in two rounds, some 15 s."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from raymix import Study
from raymix.store import Store, StoreError
from tests.e2e.test_run import SPACE, WORDS

ROOT = Path(__file__).parents[2]
TRAINS = (b"ray::ProxyTrial", b"ray::ResourceTrainable")  # between two steps and within one


def write(folder: Path) -> None:
    """The space and its corpora."""
    rng = random.Random(0)
    for name, words in WORDS.items():
        lines = [json.dumps({"text": " ".join(rng.choices(words, k=40))}) for _ in range(200)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "space.yaml").write_text(SPACE)


def start(
    folder: Path, name: str, where: str | None = None, machine: str = "cache", settings: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """A driver of the study `name` (in `where`); what it complains of is in `name`.log. A machine is its cache."""
    study = where or str(folder / name)
    words = [sys.executable, "-m", "raymix", "run", str(folder / "space.yaml"), "--study", study, "--json"]
    for setting in ("recipe.checkpoint_seconds=0.001", *settings):  # saved as often as its cost allows
        words += ["--set", setting]
    own = {"RAYMIX_CACHE": str(folder / machine), "RAYMIX_MALLOC": "default", "PYTHONPATH": str(ROOT)}
    with (folder / f"{name}.log").open("a") as log:
        return subprocess.Popen(
            words, cwd=folder, env={**os.environ, **own}, stdout=subprocess.PIPE, stderr=log, text=True,
            start_new_session=True,
        )  # fmt: skip


def events(process: subprocess.Popen[str]) -> Iterator[str]:
    """What the driver says happened, as it says it."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            yield str(json.loads(line)["event"])


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL the driver and whatever it started: the host is gone."""
    for pid in session(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def kill_worker(process: subprocess.Popen[str]) -> bool:
    """SIGKILL a worker that trains; False if there is none."""
    for pid in session(process.pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(TRAINS):
                os.kill(pid, signal.SIGKILL)
                return True
    return False


def session(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if os.getsid(int(entry.name)) == leader:
                found.append(int(entry.name))
    return found


def done(path: Path | str) -> set[str]:
    """Trials whose last row is on disk."""
    try:
        return {body["trial_id"] for kind, body in Store(path).records() if kind == "row" and body["status"] == "done"}
    except StoreError:  # killed before it began
        return set()


def recommendation(path: Path | str) -> dict[str, float]:
    """The mixture a study ends in."""
    return Study.open(path).recommend().mixture


def ended_in(path: Path | str) -> tuple[list[str], list[str]]:
    """Trials as proposed, and as ended; a trial that was trained again after its end stands there twice."""
    proposed, ended = [], []
    for kind, body in Store(path).records():
        if kind == "proposed":
            proposed.append(body["trial_id"])
        elif kind == "row" and (body["status"] != "checkpoint" or body["trial_id"] in ended):
            ended.append(body["trial_id"])
    return proposed, ended
