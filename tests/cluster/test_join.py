"""A cluster that cannot be joined is said in words of a cluster, before anything is trained."""

import json
import socket
from pathlib import Path

import pytest
import ray
from ray._private import ray_constants, services
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from typer.testing import CliRunner

from raymix.cli import app
from raymix.corpus import on_ray
from raymix.corpus.on_ray import JOB, NoClusterError, join
from raymix.corpus.workers import cluster_address
from raymix.on_ray import run
from raymix.space import SpaceError
from raymix.study.ledger import Ledger
from tests import worlds
from tests.e2e.test_run import SPACE, WORDS


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name, words in WORDS.items():
        text = "\n".join(json.dumps({"text": f"{word} {i} " * 30}) for i, word in enumerate(words * 8))
        (tmp_path / f"{name}.jsonl").write_text(text)
    (tmp_path / "space.yaml").write_text(SPACE)
    monkeypatch.setenv("RAYMIX_CACHE", str(tmp_path / "cache"))
    return ["run", str(tmp_path / "space.yaml"), "--study", str(tmp_path / "study")]


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "http://127.0.0.1:8265"])
def test_an_address_that_is_none_for_a_driver_is_refused_with_the_command_that_is(
    command: list[str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    found = CliRunner().invoke(app, command)
    assert isinstance(found.exception, SpaceError)
    assert "raymix submit SPACE.yaml --cluster http://127.0.0.1:8265" in str(found.exception)


def test_a_cluster_that_does_not_answer_is_no_full_disk(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        found = CliRunner().invoke(app, command)
    assert isinstance(found.exception, NoClusterError)
    assert f"RAY_ADDRESS={address}: cannot be joined ([Errno 111] Connection refused)" in str(found.exception)


def test_the_last_cluster_of_this_machine_may_be_gone(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray keeps its address in a file, takes it for `auto`, and asks there for minutes."""
    (tmp_path / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: set())  # others may run here
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("Ray was asked"))
    with pytest.raises(NoClusterError, match=r"RAY_ADDRESS=auto: cannot be joined .Could not find any running Ray"):
        join({})
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))  # and nobody listens
        where = f"127.0.0.2:{taken.getsockname()[1]}"
        (tmp_path / "ray" / "ray_current_cluster").write_text(where)
        found = CliRunner().invoke(app, command)
        asked = CliRunner().invoke(app, ["doctor", "--offline", "--json"])
    said = f"{where}: [Errno 111] Connection refused"
    assert isinstance(found.exception, NoClusterError) and said in str(found.exception)
    assert [f["found"] for f in json.loads(asked.stdout) if f["what"] == "cluster"] == [f"auto: not reached: {said}"]


def test_what_ray_takes_for_no_address_is_said_to_be_that_of_the_cluster(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head")
    found = CliRunner().invoke(app, command)
    assert isinstance(found.exception, NoClusterError)
    assert "RAY_ADDRESS=head: cannot be joined (Invalid address format: head)" in str(found.exception)


@pytest.mark.parametrize("address", ["", "local"])
def test_an_address_that_names_no_cluster_is_this_machine(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which cannot grow, so that a trial that does not fit is refused and not waited for."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    asked: list[str] = []
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options["address"]))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    space = worlds.space(ladder=[{"n_params": 1e5, "n_tokens": 5e5, "resources": {"cpu": 3}}])
    with pytest.raises(SpaceError, match="takes CPU 3, this machine has 2"), run._ray(space, Ledger(space), 300):
        pass
    assert asked == ["local"]
    assert cluster_address() is None


def test_a_ray_that_does_not_start_here_is_said_with_where_its_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full /tmp, or a long TMPDIR as batch systems give: of Ray's own words none names a remedy."""

    def init(**options: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray, "init", init)
    space = worlds.space()
    said = rf"timed out during startup\): its logs and sockets need room in {tmp_path} .* set RAY_TMPDIR; .* set HOME"
    with pytest.raises(OSError, match=said), run._ray(space, Ledger(space), 300):
        pass


def test_a_ray_without_the_private_constant_is_started_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(ray, "init", lambda **options: started.append(options["address"]))
    monkeypatch.delattr(ray_constants, "ENABLE_RAY_CLUSTER")
    run._start()
    assert started == ["local"]


@pytest.mark.slow  # starts Ray
def test_a_ray_started_here_is_on_loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else reaches it, and it stays where it is when the machine gets another address."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    space, before = worlds.space(), ray_constants.ENABLE_RAY_CLUSTER
    with run._ray(space, Ledger(space), 300):
        (node,) = ray.nodes()
        ports = {int(ray.get_runtime_context().gcs_address.rpartition(":")[2]), node["NodeManagerPort"]}
        lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()]
        listening = [words[1].split(":") for words in lines if words[3] == "0A"]  # on which address, at which port
        found = {int(port, 16): address for address, port in listening if int(port, 16) in ports}
    assert node["NodeManagerAddress"] == "127.0.0.1"
    assert set(found) == ports and all(address.endswith("0100007F") for address in found.values()), found
    assert before == ray_constants.ENABLE_RAY_CLUSTER, "clusters that are joined are not"


def test_what_a_job_was_submitted_with_stands_where_ray_puts_it() -> None:
    """Where Ray keeps that name is private: it is written out, so that a Ray that moves it ends no import of raymix."""
    assert JOB == RAY_JOB_CONFIG_JSON_ENV_VAR


def test_variables_that_a_ray_job_was_submitted_with_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray refuses a driver that gives one of them again."""
    given: list[dict[str, str]] = []
    monkeypatch.setattr(ray, "init", lambda **options: given.append(options["runtime_env"]["env_vars"]))
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(on_ray, "reach", lambda address: None)
    job = {"runtime_env": {"working_dir": "gcs://x.zip", "env_vars": {"OMP_NUM_THREADS": "4"}}, "metadata": {}}
    for injected in (job, {"metadata": {}}, {"runtime_env": {}}):
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(injected))
        join({"OMP_NUM_THREADS": "1", "MALLOC_MMAP_MAX_": "0"})
    assert given == [{"MALLOC_MMAP_MAX_": "0"}, *[{"OMP_NUM_THREADS": "1", "MALLOC_MMAP_MAX_": "0"}] * 2]
