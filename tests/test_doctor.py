"""The doctor: every line has a level, every problem a remedy, and no answer is an exception."""

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raymix import doctor
from raymix.cli import app
from raymix.doctor import Finding, examine
from raymix.proxy import model as models


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "LD_PRELOAD", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor, "TOKEN", tmp_path / "auth_token")


def test_every_problem_has_a_remedy(tmp_path: Path) -> None:
    findings = examine(storage=str(tmp_path / "store"), hub=False)
    assert {finding.level for finding in findings} <= {"ok", "warning", "error"}
    assert all(finding.remedy for finding in findings if finding.level != "ok")
    assert {"ray", "gpu", "bf16", "malloc", "disk for cache", "token", "storage", "cluster"} <= set(
        by_name(findings)
    ) | {"gpu"}
    assert list((tmp_path / "store").iterdir()) == []  # the probe is gone


def test_bf16_is_what_a_proxy_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that only emulates it says that it supports it; a CPU's flags name instructions that torch does not use."""
    for has in (True, False):
        for probe in models.BF16_PROBES:
            monkeypatch.setattr(f"torch.cpu.{probe}", lambda has=has: has)
        (found,) = (finding for finding in doctor.gpus() if finding.what == "bf16")
        assert found.level == ("ok" if has else "warning")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    (found,) = (finding for finding in doctor.gpus() if finding.what == "bf16")
    assert found.level == "warning"


def test_a_token_that_others_can_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "auth_token").write_text("s3cret")
    (tmp_path / "auth_token").chmod(0o644)
    (found,) = doctor.token()
    assert (found.level, "chmod 600" in found.remedy) == ("error", True)
    (tmp_path / "auth_token").chmod(0o600)
    (found,) = doctor.token()
    assert found.level == "ok"


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for cache in (tmp_path / "file" / "below", tmp_path / "link" / "below"):
        monkeypatch.setenv("RAYMIX_CACHE", str(cache))
        found = by_name(list(doctor.disk()))["disk for cache"]
        assert found.level == "error" and "RAYMIX_CACHE" in found.remedy


def test_room_is_looked_for_where_ray_keeps_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    assert by_name(list(doctor.disk()))["disk for temporary files"].found.endswith("free at /tmp")
    for name in ("TMPDIR", "RAY_TMPDIR"):  # the second wins
        monkeypatch.setenv(name, str(tmp_path / name))
        assert by_name(list(doctor.disk()))["disk for temporary files"].found.endswith(f"free at {tmp_path / name}")


def test_storage_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (found,) = doctor.reaches(str(tmp_path / "file" / "below"))
    assert found.level == "error" and found.remedy
    (found,) = (finding for finding in examine(storage="nosuch://bucket", hub=False) if "nosuch" in finding.found)
    assert (found.level, found.what) == ("error", "storage")


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "planted-secret")
    monkeypatch.setenv("HF_TOKEN", "planted-secret")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "planted-secret" not in json.dumps([vars(finding) for finding in examine()])


@pytest.fixture(params=[200, 401])
def dashboard(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """Something that answers every request with one status."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param)
            self.end_headers()

        def log_message(self, *about: object) -> None:
            """Quiet."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield request.param, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_hub_is_asked_where_its_client_asks(
    dashboard: tuple[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, address = dashboard
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)  # HF_ENDPOINT, of a mirror
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "token").write_text("planted-secret")  # as `hf auth login` leaves it
    (found,) = doctor.hub_access()
    assert found.level == ("ok" if status == 200 else "error") and address in found.found
    assert "planted-secret" not in json.dumps(vars(found))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (found,) = doctor.hub_access()
    assert found.level == "warning" and "HF_HUB_OFFLINE" in found.found


def test_a_cluster_that_answers_without_a_token_is_an_error(dashboard: tuple[int, str]) -> None:
    status, address = dashboard
    (found,) = doctor.cluster(address)
    assert found.level == ("ok" if status == 401 else "error")


@pytest.mark.parametrize("scheme", ["", "ray://", "http://"])
def test_a_cluster_that_is_not_there_is_said_at_once(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*about: object, **options: object) -> None:
        raise AssertionError("Ray asks for minutes")

    monkeypatch.setattr("ray.init", connect)
    address = f"{scheme}127.0.0.1:9"
    (found,) = doctor._asked(partial(doctor.cluster, address))
    assert (found.level, found.what) == ("error", "cluster")
    assert found.found.startswith(f"{address}: not reached")


def test_a_question_that_fails_is_a_finding() -> None:
    def broken() -> Iterator[Finding]:
        raise RuntimeError("no")

    (found,) = doctor._asked(broken)
    assert (found.level, found.what) == ("error", "broken")


def test_the_command_exits_1_on_an_error_and_0_without(tmp_path: Path) -> None:
    good = CliRunner().invoke(app, ["doctor", "--offline", "--json", "--storage", str(tmp_path / "store")])
    assert good.exit_code == 0, good.output
    assert all(set(line) == {"level", "what", "found", "remedy"} for line in json.loads(good.stdout))
    (tmp_path / "file").write_text("")
    bad = CliRunner().invoke(app, ["doctor", "--offline", "--storage", str(tmp_path / "file" / "below")])
    assert bad.exit_code == 1
