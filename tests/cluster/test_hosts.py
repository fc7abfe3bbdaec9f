"""A study on three hosts, of which one is cut off in the middle and comes back: the same rows, each of them once."""

import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raymix.store import Store
from tests.cluster.head import ROOT, end, environment
from tests.cluster.hosts import OWN, Hosts, hosts
from tests.e2e.test_run import SPACE, WORDS

TRIALS = 6
CHANGES = {
    "{n_params: 2e4, n_tokens: 6e3}, {n_params: 6e4, n_tokens: 9e3}": "{n_params: 2e4, n_tokens: 1e5}",
    "n_tokens: 2e4, max_epochs: 4": "n_tokens: 4e5, max_epochs: 30",  # seconds a trial, so that there is time to be cut
    "trials: 6, per_round: 3": f"trials: {TRIALS}, per_round: {TRIALS}",
    "checkpoints: 3": "checkpoints: 2, checkpoint_seconds: 1",
}


@pytest.fixture
def network() -> Iterator[Hosts]:
    folder = Path(tempfile.mkdtemp(prefix="rm-"))
    try:
        with hosts(folder, "head", "one", "two") as made:
            yield made
    except OSError as error:
        pytest.skip(f"needs root and network namespaces (iproute2): {error}")


def write_study(folder: Path) -> None:
    rng = random.Random(0)
    for name, words in WORDS.items():
        lines = [json.dumps({"text": " ".join(rng.choices(words, k=40))}) for _ in range(500)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    text = SPACE
    for old, new in CHANGES.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "space.yaml").write_text(text)


def share_what_is_measured(folder: Path, names: tuple[str, ...]) -> None:
    """One machine chooses one attention: hosts that are this machine choose the same."""
    (folder / "measured").mkdir()
    for name in names:
        (folder / name / "cache").mkdir(parents=True)
        (folder / name / "cache" / "measured").symlink_to(folder / "measured")


def until(lines: Any, wanted: Any) -> Any:
    """The first line that is wanted."""
    for line in lines:
        if wanted(found := json.loads(line)):
            return found
    raise AssertionError("it ended before")


def rows(study: Path) -> dict[tuple[str, float], dict[str, float]]:
    """Losses by trial and tokens; every trial has ended once, and what was measured again is the same."""
    found: dict[tuple[str, float], dict[str, float]] = {}
    rows = [body for kind, body in Store(study).records() if kind == "row"]
    for row in rows:
        losses = {key: value for key, value in row.items() if key.startswith("loss/")}
        assert found.setdefault((row["trial_id"], row["n_tokens"]), losses) == losses
    ended = Counter(row["trial_id"] for row in rows if row["status"] == "done")
    assert (len(ended), set(ended.values())) == (TRIALS, {1})
    return found


@pytest.mark.root
@pytest.mark.exhaustive
def test_a_host_that_is_cut_off_and_healed_changes_nothing(network: Hosts) -> None:
    folder = network.folder
    write_study(folder)
    share_what_is_measured(folder, ("head", "one", "two", "alone"))
    raymix = [sys.executable, "-m", "raymix", "run", "space.yaml", "--json", "--study"]
    gcs = f"{network.address('head')}:6379"
    everybody = [network.address(name) for name in network.names]

    network.ray("head", "head", "--num-cpus=0")
    watch = [sys.executable, "-m", "tests.cluster.hosts", gcs]
    alive = network.start("head", watch, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    workers = {name: network.ray(name, "head", "--num-cpus=1") for name in ("one", "two")}
    until(alive.stdout, lambda nodes: nodes == everybody)
    with (folder / "driver.log").open("wb") as log:
        driver = network.start(
            "head", [*raymix, "together"], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=log,
            env={"RAY_ADDRESS": gcs},
        )  # fmt: skip
    try:
        until(driver.stdout, lambda said: said["event"] == "ended")  # both train, and more trials wait
    except AssertionError as error:
        raise AssertionError((folder / "driver.log").read_text()) from error

    network.link("one", "down")
    until(alive.stdout, lambda nodes: nodes == [network.address("head"), network.address("two")])
    network.link("one", "up")
    assert workers["one"].wait(120) != 0  # told that it is lost, it ends: what it still did counts nowhere
    network.ray("one", "head", "--num-cpus=1", again=True)  # as its machine would start it, until it is up
    until(alive.stdout, lambda nodes: nodes == everybody)
    events = [json.loads(line)["event"] for line in driver.stdout or ()]
    assert driver.wait(600) == 0, (folder / "driver.log").read_text()
    assert events[-1] == "finished"

    for process in network.started:
        end(process)

    known = environment() | {"RAYMIX_CACHE": str(folder / "alone" / "cache"), "RAYMIX_MALLOC": "default"}
    known |= {"RAY_TMPDIR": str(folder / "alone")}
    for _ in range(3):  # Ray gives a node 30 s to start, which a busy machine may exceed; the same command continues
        done = subprocess.run([*raymix, "alone-study"], cwd=folder, env=known, capture_output=True, text=True)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    together, alone = rows(folder / "together"), rows(folder / "alone-study")
    assert len(together) == 2 * TRIALS and together == alone
    mixtures = [json.loads((folder / name / "recommendation.json").read_text()) for name in ("together", "alone-study")]
    assert mixtures[0]["mixture"] == mixtures[1]["mixture"]
    assert [(folder / name / "cache" / "nodes").is_dir() for name in ("one", "two")] == [True, True]  # over the wire
    assert not (folder / OWN / "cache").exists()
