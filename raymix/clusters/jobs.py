"""A study as a Ray job: submitted once, watched from anywhere, found again by its name.

The submission id follows from the study: whoever runs the same command meets the same job. A job that ended without
success, or that a lost head took along, is submitted again, and the study goes on from its records.
"""

import asyncio
import contextlib
import hashlib
import os
import shlex
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raymix.clusters.work import Work

RETRY_SECONDS = 2.0
PATIENCE = 5  # times the head may not answer before we say so
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ClusterError(ValueError):
    """The cluster cannot be reached, or refused."""


def submission_prefix(work: Work) -> str:
    """What the ids of all attempts at a study begin with."""
    return f"raymix-{hashlib.sha256(work.study.encode()).hexdigest()[:12]}-"


class JobsAddress:
    """The Ray Jobs API of one cluster, always with the token.

    Raises:
        ClusterError: no token, a wrong one, an address in the clear, or nobody answers.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClusterError(f"{address}: an address looks like http://127.0.0.1:8265")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ClusterError(
                f"{address}: http would send the token in the clear; forward the port "
                f"(ssh -L 8265:127.0.0.1:8265 {parts.hostname}) and use http://127.0.0.1:8265, or use https"
            )
        self.address = address
        self.client = self._connect()

    def _connect(self) -> Any:
        os.environ["RAY_AUTH_MODE"] = "token"
        try:
            from ray.job_submission import JobSubmissionClient
        except ImportError as error:
            raise ClusterError(f"the Jobs API needs more of Ray ({error}): pip install 'raymix[cluster]'") from None
        with self._asking():
            return JobSubmissionClient(self.address)

    @contextlib.contextmanager
    def _asking(self) -> Any:
        try:
            yield
        except ClusterError:
            raise
        except Exception as error:  # requests, aiohttp and Ray raise different kinds
            kind = type(error).__name__
            if kind == "AuthenticationError":
                remedy = "put the cluster's token into ~/.ray/auth_token (mode 0600) or RAY_AUTH_TOKEN"
                raise ClusterError(f"{self.address}: the token is missing or wrong; {remedy}") from None
            first = str(error).strip().splitlines() or [kind]
            raise ClusterError(f"{self.address}: {first[0]}") from error

    def submit(self, work: Work) -> tuple[str, bool]:
        """The id of the job that runs this study, and whether it is a new one."""
        prefix = submission_prefix(work)
        with self._asking():
            jobs = [job for job in self.client.list_jobs() if (job.submission_id or "").startswith(prefix)]
            for job in jobs:
                if not job.status.is_terminal():
                    return str(job.submission_id), False
            submission_id = f"{prefix}{len(jobs) + 1}"
            with tempfile.TemporaryDirectory(prefix="raymix-submit-") as folder:
                work.pack(Path(folder))
                self.client.submit_job(
                    entrypoint=shlex.join(work.command()),
                    submission_id=submission_id,
                    runtime_env={"working_dir": folder},
                    metadata={"study": work.study},
                )
        return submission_id, True

    def follow(self, submission_id: str, on_line: Callable[[str], None]) -> str:
        """Stream a job's output, line by line, until it ends; returns how: SUCCEEDED, FAILED or STOPPED.

        Raises:
            ClusterError: the head stopped answering; the job may well go on.
        """
        seen, failures = 0, 0
        while True:
            try:
                seen = asyncio.run(self._tail(submission_id, seen, on_line))
                status = self.client.get_job_status(submission_id)
                failures = 0
                if status.is_terminal():
                    if status.value == "FAILED":  # perhaps before its first line: no environment, no node for it
                        message = self.client.get_job_info(submission_id).message or "no reason given"
                        on_line(message.partition("\n")[0])
                    return str(status.value)
            except Exception as error:
                failures += 1
                if failures > PATIENCE:
                    raise ClusterError(
                        f"{self.address}: the head does not answer ({type(error).__name__}); the study keeps its "
                        "records, and the same command continues it"
                    ) from error
            time.sleep(RETRY_SECONDS)

    async def _tail(self, submission_id: str, seen: int, on_line: Callable[[str], None]) -> int:
        """Pass on the lines after the first `seen`; returns how many there are now."""
        count, rest = 0, ""
        async for chunk in self.client.tail_job_logs(submission_id):
            *lines, rest = (rest + chunk).split("\n")
            for line in lines:
                count += 1
                if count > seen:
                    on_line(line)
        if rest:
            count += 1
            if count > seen:
                on_line(rest)
        return max(count, seen)
