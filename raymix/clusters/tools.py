"""The tools that start clusters: kubectl, sbatch and Ray's launcher, as lists of words and never through a shell."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raymix.clusters.jobs import ClusterError

POLL_SECONDS = 5.0
FORWARD_SECONDS = 60.0
LIVE = ("starting", "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED", "REQUEUE_HOLD")


def call(words: list[str], given: str | None = None, missing_ok: bool = False) -> str:
    """Standard output of a tool.

    Raises:
        ClusterError: it is not installed or failed; the message is its own.
    """
    if shutil.which(words[0]) is None:
        raise ClusterError(f"{words[0]} is not installed here (raymix submit needs it for this kind of cluster)")
    done = subprocess.run(words, input=given, capture_output=True, text=True)
    if done.returncode and not missing_ok:
        raise ClusterError(f"{' '.join(words[:3])} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout if done.returncode == 0 else ""


def run_rayjob(name: str, namespace: str, text: str, on_line: Callable[[str], None]) -> str:
    """Apply a RayJob unless one of this study runs already, follow it, and say how it ended."""
    scope = ["--namespace", namespace]
    state = _rayjob(name, scope)
    if state in ("FAILED", "STOPPED", "SUCCEEDED"):  # its study keeps its records: a new job continues it
        call(["kubectl", "delete", "rayjob", name, *scope, "--wait=true"])
        state = None
    if state is None:
        call(["kubectl", "apply", "--filename", "-"], text)
        on_line(f"submitted RayJob {name}; stop it with: kubectl delete rayjob {name} --namespace {namespace}")
    else:
        on_line(f"RayJob {name} is {state} already: following it")

    def look() -> tuple[str | None, str]:
        return _rayjob(name, scope), call(["kubectl", "logs", f"job/{name}", *scope], missing_ok=True)

    return _follow(f"RayJob {name}", look, on_line) or "STOPPED"


def _rayjob(name: str, scope: list[str]) -> str | None:
    """Status of a RayJob: None if there is none."""
    text = call(["kubectl", "get", "rayjob", name, *scope, "--output", "json", "--ignore-not-found"])
    if not text.strip():
        return None
    status = json.loads(text).get("status") or {}
    if status.get("jobDeploymentStatus") == "Failed":
        return "FAILED"
    return str(status.get("jobStatus") or "starting")


def run_slurm(name: str, file: Path, on_line: Callable[[str], None]) -> str:
    """Submit a batch script unless the study's job is queued already, follow its log, and say how it ended."""
    queued = call(["squeue", "--noheader", "--me", "--name", name, "--format", "%i %T"]).split()
    if queued:
        job = queued[0]
        on_line(f"Slurm job {job} is {queued[1]} already: following it")
    else:
        job = call(["sbatch", "--parsable", str(file)]).strip().split(";")[0]
        on_line(f"submitted Slurm job {job}; stop it with: scancel {job}")
    log = Path(f"{name}-{job}.log")

    def look() -> tuple[str, str]:
        state = call(["squeue", "--noheader", "--jobs", job, "--format", "%T"], missing_ok=True).strip()
        return state, log.read_text(errors="replace") if log.is_file() else ""

    _follow(f"Slurm job {job}", look, on_line)
    return _slurm_end(job)


def _slurm_end(job: str) -> str:
    words = call(["sacct", "--noheader", "--parsable2", "--allocations", "--jobs", job, "--format", "State"]).split()
    state = words[0] if words else "FAILED"
    return "SUCCEEDED" if state == "COMPLETED" else state


def _follow(job: str, look: Callable[[], tuple[str | None, str]], on_line: Callable[[str], None]) -> str | None:
    """Pass on what is new in a job's log, and its state where that changes; returns the state it ended in.

    `look` asks for the state first: the log of a job that has ended is whole.
    """
    seen, said = 0, None
    while True:
        state, log = look()
        lines = log.splitlines()
        for line in lines[seen:]:
            on_line(line)
        seen = max(seen, len(lines))
        if state not in LIVE:
            return state
        if state != said:
            on_line(f"{job}: {state}")
            said = state
        time.sleep(POLL_SECONDS)


@contextmanager
def launched(file: Path) -> Iterator[str]:
    """Start or update a launcher cluster, forward its dashboard to this machine; yields the address.

    The cluster stays when the block ends: `ray down FILE` ends it.
    """
    if shutil.which("ray") is None:
        raise ClusterError("ray is not on PATH: activate the environment that raymix is installed in")
    done = subprocess.run(["ray", "up", "--yes", "--no-config-cache", str(file)])
    if done.returncode:
        raise ClusterError(f"ray up {file} failed; what it started is ended by: ray down {file}")
    port = _free_port()
    tunnel = subprocess.Popen(
        ["ray", "dashboard", str(file), "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port, tunnel)
        yield f"http://127.0.0.1:{port}"
    finally:
        tunnel.terminate()
        tunnel.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(port: int, tunnel: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + FORWARD_SECONDS
    while time.monotonic() < until and tunnel.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise ClusterError("the dashboard of the head could not be forwarded: can this machine reach it by ssh?")
