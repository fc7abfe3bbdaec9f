"""A study submitted to a real Ray head with a token: refused without it, followed, left, met again, continued."""

import json
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import util
from pathlib import Path

import pytest

from tests.cluster.head import Head, end, head
from tests.e2e.test_run import SPACE, WORDS

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(util.find_spec("aiohttp") is None, reason="the Jobs API needs ray[default]"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    with head(Path(tempfile.mkdtemp(prefix="rm-"))) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small corpora beside a space: they travel with the job."""
    import random

    path = tmp_path_factory.mktemp("submit")
    rng = random.Random(0)
    for name, words in WORDS.items():
        lines = [json.dumps({"text": " ".join(rng.choices(words, k=40))}) for _ in range(100)]
        (path / f"{name}.jsonl").write_text("\n".join(lines))
    (path / "space.yaml").write_text(SPACE)
    return path


def words(folder: Path, cluster: Head) -> list[str]:
    target = ["--cluster", cluster.address, "--storage", str(folder / "studies")]
    small = ["--set", "budget.trials=4", "--set", "budget.per_round=2", "--set", "ladder.1.n_tokens=6e3"]
    return [sys.executable, "-m", "raymix", "submit", "space.yaml", *target, *small, "--json"]


def client(folder: Path, cluster: Head, **changed: str) -> subprocess.Popen[str]:
    environment = {**cluster.environment, "RAYMIX_CACHE": str(folder / "cache"), **changed}
    return subprocess.Popen(
        words(folder, cluster), cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def job_ids(cluster: Head) -> list[str]:
    request = urllib.request.Request(
        f"{cluster.address}/api/jobs/", headers={"Authorization": f"Bearer {cluster.environment['RAY_AUTH_TOKEN']}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return [job["submission_id"] for job in json.load(answer)]


def test_without_the_token_nobody_is_let_in(folder: Path, cluster: Head) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{cluster.address}/api/jobs/", timeout=30)
    assert refused.value.code == 401
    process = client(folder, cluster, RAY_AUTH_TOKEN="wrong" * 12)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1, said
    assert "the token is missing or wrong" in said
    assert cluster.environment["RAY_AUTH_TOKEN"] not in said


def test_a_killed_client_comes_back_to_the_same_job_and_sees_its_end(folder: Path, cluster: Head) -> None:
    first = client(folder, cluster)
    assert first.stdout is not None
    for line in first.stdout:  # until the study itself speaks through the job's output
        if json.loads(line)["event"] == "started":
            break
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert len(job_ids(cluster)) == 1

    second = client(folder, cluster)
    out, said = second.communicate(timeout=400)
    assert second.returncode == 0, out + said
    assert "found running" in said
    assert json.loads(out.splitlines()[-1])["state"] == "SUCCEEDED"
    assert len(job_ids(cluster)) == 1

    study = folder / "studies" / "tiny"
    found = json.loads((study / "recommendation.json").read_text())
    assert sum(found["mixture"].values()) == pytest.approx(1, abs=1e-9)
    status = [sys.executable, "-m", "raymix", "status", str(study), "--json"]
    state = json.loads(subprocess.run(status, capture_output=True, text=True, check=True).stdout)
    assert (state["done"], state["finished"]) == (4, True)


def test_after_a_lost_head_the_same_command_continues(folder: Path, cluster: Head) -> None:
    """On a new head the old jobs are unknown; the records are not: nothing is trained again."""
    study = folder / "studies" / "tiny" / "records"
    before = sorted(file.name for file in study.iterdir())
    assert before
    end(cluster.process)
    with head(Path(tempfile.mkdtemp(prefix="rm-"))) as again:
        process = client(folder, again)
        out, said = process.communicate(timeout=300)
        assert process.returncode == 0, out + said
        assert len(job_ids(again)) == 1
    assert sorted(file.name for file in study.iterdir()) == before
