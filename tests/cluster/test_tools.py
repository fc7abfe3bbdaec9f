"""kubectl, sbatch and the launcher: called as lists of words, met again by name, their failures passed on."""

import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from raymix.clusters import tools
from raymix.clusters.jobs import ClusterError, JobsAddress, submission_prefix
from raymix.clusters.tools import launched, run_rayjob, run_slurm
from raymix.clusters.work import make_work
from raymix.space import SearchSpace
from raymix.space_parts import Resources
from raymix.yaml12 import SpaceError
from tests.e2e.test_run import SPACE

HOSTILE = "lab; touch owned"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins first on PATH; each writes down its words, one call a line."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tools, "POLL_SECONDS", 0.01)
    return tmp_path


def stand_in(bench: Path, name: str, body: str) -> None:
    file = bench / "bin" / name
    file.write_text(
        "#!/usr/bin/env python3\nimport json, pathlib, sys\n"
        f"calls = pathlib.Path({str(bench / 'calls')!r})\n"
        "with calls.open('a') as f: f.write(json.dumps(sys.argv[1:]) + '\\n')\n"
        f"state = pathlib.Path({str(bench / 'state')!r})\n{body}"
    )
    file.chmod(0o755)


def calls(bench: Path) -> list[list[str]]:
    return [json.loads(line) for line in (bench / "calls").read_text().splitlines()]


KUBECTL = """
words = sys.argv[1:]
if words[0] == "apply":
    (state.parent / "applied").write_text(sys.stdin.read()); state.write_text("RUNNING")
elif words[0] == "delete":
    state.unlink()
elif words[0] == "logs":
    print("one\\ntwo" + "\\nthe last" * (state.parent / "ended").exists())
elif words[0] == "get" and state.exists():
    now = state.read_text()
    print(json.dumps({"status": {"jobStatus": now}}))
    if now == "RUNNING": state.write_text("SUCCEEDED")
    else: (state.parent / "ended").touch()
"""


def test_a_rayjob_is_applied_followed_and_met_again(bench: Path) -> None:
    stand_in(bench, "kubectl", KUBECTL)
    said: list[str] = []
    assert run_rayjob("raymix-web", HOSTILE, "the file", said.append) == "SUCCEEDED"
    assert (bench / "applied").read_text() == "the file"
    assert said[0].startswith("submitted RayJob")
    assert [said.count(line) for line in ("one", "two", "the last")] == [1, 1, 1]
    assert all(HOSTILE in words for words in calls(bench) if words[0] != "apply")
    assert not (bench / "owned").exists()

    (bench / "state").write_text("RUNNING")  # somebody's client died: the job is met, not applied again
    (bench / "calls").unlink()
    assert run_rayjob("raymix-web", HOSTILE, "the file", said.append) == "SUCCEEDED"
    assert "apply" not in [words[0] for words in calls(bench)]

    (bench / "calls").unlink()  # it has ended since: the same command continues the study
    run_rayjob("raymix-web", HOSTILE, "the file", said.append)
    assert [words[0] for words in calls(bench)][:3] == ["get", "delete", "apply"]


def test_a_slurm_job_is_queued_once(bench: Path) -> None:
    stand_in(bench, "sbatch", "state.write_text('RUNNING'); print('77;cluster')\n")
    queue = "if state.exists():\n    print(('77 ' if '--name' in sys.argv else '') + state.read_text())\n"
    stand_in(bench, "squeue", queue + "    if '--jobs' in sys.argv: state.unlink()\n")
    stand_in(bench, "sacct", "print('COMPLETED')\n")
    (bench / "raymix-web-77.log").write_text("hello\n")
    said: list[str] = []
    assert run_slurm("raymix-web", Path("job.sh"), said.append) == "SUCCEEDED"
    assert said[0].startswith("submitted Slurm job 77") and said.count("hello") == 1
    (bench / "state").write_text("PENDING")
    assert run_slurm("raymix-web", Path("job.sh"), said.append) == "SUCCEEDED"
    assert "is PENDING already" in " ".join(said)
    assert sum(words == ["--parsable", "job.sh"] for words in calls(bench)) == 1


def test_a_launcher_that_fails_says_how_to_clean_up(bench: Path) -> None:
    stand_in(bench, "ray", "sys.exit(3)\n")
    with pytest.raises(ClusterError, match="ray down"), launched(Path("x y.yaml")):
        pass
    assert calls(bench) == [["up", "--yes", "--no-config-cache", "x y.yaml"]]


def test_a_missing_tool_is_named(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bench / "bin"))
    with pytest.raises(ClusterError, match="kubectl is not installed"):
        run_rayjob("n", "d", "", print)
    stand_in(bench, "kubectl", "print('forbidden', file=sys.stderr); sys.exit(1)\n")
    monkeypatch.undo()
    os.environ["PATH"] = f"{bench / 'bin'}{os.pathsep}{os.environ['PATH']}"
    try:
        with pytest.raises(ClusterError, match="forbidden"):
            run_rayjob("n", "d", "", print)
    finally:
        os.environ["PATH"] = os.environ["PATH"].partition(os.pathsep)[2]


def test_an_address_in_the_clear_is_refused() -> None:
    with pytest.raises(ClusterError, match="ssh -L"):
        JobsAddress("http://192.0.2.7:8265")
    with pytest.raises(ClusterError, match="looks like"):
        JobsAddress("ray://127.0.0.1:10001")


@pytest.fixture
def space(tmp_path: Path) -> Path:
    for name in ("colours", "numbers", "animals"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path / "space.yaml"


def test_what_travels_is_the_space_as_set_and_its_local_text(space: Path, tmp_path: Path) -> None:
    work = make_work(space, ["budget.trials=9"], "s3://bucket/studies/", gpu="L4")
    assert work.command() == ["raymix", "run", "space.yaml", "--study", "s3://bucket/studies/tiny", "--json"]
    (tmp_path / "out").mkdir()
    work.pack(tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "space.yaml", "colours.jsonl", "numbers.jsonl", "animals.jsonl"
    }  # fmt: skip
    sent, given = SearchSpace.load(tmp_path / "out" / "space.yaml"), SearchSpace.load(space)
    assert (sent.budget.trials, sent.hash()) == (9, given.hash())
    assert [rung.resources for rung in sent.ladder] == [Resources(gpu=1, accelerator="L4")] * 2
    assert submission_prefix(work) == submission_prefix(make_work(space, [], "s3://bucket/studies"))
    assert submission_prefix(work) != submission_prefix(make_work(space, [], "s3://bucket/others"))


@pytest.mark.parametrize(
    "storage", ["studies", "s3://key:secret@bucket/x", "s3://bucket/x?access_key=a&secret_key=b", "s3://bucket/x?a=b"]
)
def test_storage_that_a_cluster_cannot_use_or_that_holds_a_key_is_refused(space: Path, storage: str) -> None:
    with pytest.raises(SpaceError, match="--storage") as refused:
        make_work(space, [], storage)
    assert "secret@" not in str(refused.value) and "secret_key=b" not in str(refused.value)


def test_text_outside_the_folder_or_too_large_stays(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raymix.clusters import work

    monkeypatch.setattr(work, "MAX_BYTES", 3)
    with pytest.raises(SpaceError, match="put it on storage"):
        make_work(space, [], "/shared")
    monkeypatch.undo()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "space.yaml").write_text(SPACE.replace('"colours.jsonl"', '"../colours.jsonl"'))
    with pytest.raises(SpaceError, match="outside the folder"):
        make_work(tmp_path / "deep" / "space.yaml", [], "/shared")


def test_a_token_is_made_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raymix.clusters import submit

    monkeypatch.setattr(submit, "TOKEN", tmp_path / ".ray" / "auth_token")
    submit.ensure_token()
    token = (tmp_path / ".ray" / "auth_token").read_text()
    assert len(token) == 64 and stat.S_IMODE((tmp_path / ".ray" / "auth_token").stat().st_mode) == 0o600
    (tmp_path / ".ray" / "auth_token").chmod(0o644)  # as Ray writes it
    submit.ensure_token()
    assert (tmp_path / ".ray" / "auth_token").read_text() == token
    assert stat.S_IMODE((tmp_path / ".ray" / "auth_token").stat().st_mode) == 0o600


def test_a_job_that_fails_before_its_first_line_says_why() -> None:
    from ray.job_submission import JobStatus

    class Client:
        async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
            for chunk in ():
                yield chunk

        def get_job_status(self, submission_id: str) -> JobStatus:
            return JobStatus.FAILED

        def get_job_info(self, submission_id: str) -> SimpleNamespace:
            return SimpleNamespace(message="runtime_env setup failed: no space left on device\nTraceback ...")

    jobs = JobsAddress.__new__(JobsAddress)
    jobs.client = Client()
    lines: list[str] = []
    assert jobs.follow("raymix-1", lines.append) == "FAILED"
    assert lines == ["runtime_env setup failed: no space left on device"]
