"""`raymix submit`: render, check, start, follow. The same command meets the running job, or continues the study."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from raymix.clusters.check import check
from raymix.clusters.jobs import JobsAddress
from raymix.clusters.render import render
from raymix.clusters.request import CLOUDS, ClusterRequest
from raymix.clusters.tools import launched, run_rayjob, run_slurm
from raymix.clusters.work import SPACE, Work
from raymix.space import SpaceError

TOKEN = Path.home() / ".ray" / "auth_token"
FILES = Path("runs") / "clusters"  # where rendered files are kept: `ray down` needs them


def cluster_file(request: ClusterRequest, work: Work) -> str:
    """The file of a request, for this work; not yet checked.

    Raises:
        SpaceError: an unknown option, or local text that this kind of cluster cannot be given.
    """
    kind = request.kind
    if kind not in CLOUDS and work.local:
        raise SpaceError(f"{work.local[0].name} lies on this machine alone: for {kind}, name text on storage by URL")
    if kind == "kuberay":
        return render(request, work.command("/etc/raymix/space.yaml"), {SPACE: work.text})
    if kind == "slurm":
        return render(request, work.command(str(_space_file(request).resolve())), {})
    return render(request, [], {})


def submit(request: ClusterRequest, work: Work, on_line: Callable[[str], None]) -> str:
    """Run the work on the cluster of the request; returns SUCCEEDED, FAILED, STOPPED or Slurm's word.

    Raises:
        SpaceError: the cluster file is wrong, unsafe or still to be edited.
        ClusterError: a tool is missing or the cluster does not answer.
    """
    text = cluster_file(request, work)
    check(text, f"the {request.kind} file of this study")
    file = FILES / f"{request.name}.{request.kind}.{'sh' if request.kind == 'slurm' else 'yaml'}"
    _write(file, text)
    if request.kind == "kuberay":
        namespace = request.values()["option"]["namespace"]
        return run_rayjob(request.name, namespace, text, on_line)
    if request.kind == "slurm":
        _write(_space_file(request), work.text)
        return run_slurm(request.name, file, on_line)
    ensure_token()
    with launched(file) as address:
        on_line(f"the cluster stays up until: ray down {file}")
        return run_job(address, work, on_line)


def run_job(address: str, work: Work, on_line: Callable[[str], None]) -> str:
    """Run the work through the Jobs API of a cluster that is up; returns how it ended."""
    jobs = JobsAddress(address)
    submission_id, new = jobs.submit(work)
    on_line(f"{'submitted' if new else 'found running'}: job {submission_id}, study {work.study}")
    return jobs.follow(submission_id, on_line)


def ensure_token() -> None:
    """A token of one's own at ~/.ray/auth_token, readable by nobody else."""
    if not TOKEN.is_file():
        _write(TOKEN, secrets.token_hex(32))
    TOKEN.chmod(0o600)


def _space_file(request: ClusterRequest) -> Path:
    return FILES / f"{request.name}.space.yaml"


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
