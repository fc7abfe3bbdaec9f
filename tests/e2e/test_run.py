"""The whole way on real text, real proxies and real Ray, through the command a user types."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from raymix.store import Store

pytestmark = pytest.mark.slow  # trains proxies through Ray: about 40 s a run

WORDS = {
    "colours": ["red", "green", "blue", "amber", "violet", "teal", "black", "white"],
    "numbers": ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
    "animals": ["cat", "dog", "owl", "fox", "hen", "cow", "bee", "ant", "elk", "yak"],
}
SPACE = """
name: tiny
domains:
  - {name: colours, source: {files: "colours.jsonl"}}
  - {name: numbers, source: {files: "numbers.jsonl"}}
  - {name: animals, source: {files: "animals.jsonl"}}
eval_domains: [{name: colours, own: colours}, {name: numbers, own: numbers}, {name: animals, own: animals}]
ladder: [{n_params: 2e4, n_tokens: 6e3}, {n_params: 6e4, n_tokens: 9e3}]
target: {n_params: 1e6, n_tokens: 2e4, max_epochs: 4}
budget: {trials: 6, per_round: 3, replicates: 1}
recipe: {context: 32, batch: 4, checkpoints: 3, eval_tokens: 512}
tokenizer: {train: {vocab: 300}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small corpora with their own words, and the space."""
    path = tmp_path_factory.mktemp("tiny")
    rng = random.Random(0)
    for (name, words), documents in zip(WORDS.items(), (400, 200, 60), strict=True):
        lines = [json.dumps({"text": " ".join(rng.choices(words, k=40))}) for _ in range(documents)]
        (path / f"{name}.jsonl").write_text("\n".join(lines))
    (path / "space.yaml").write_text(SPACE)
    return path


def command(folder: Path, words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "raymix", *words]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "RAYMIX_CACHE": str(folder / "cache"), "RAYMIX_MALLOC": "default"}


def raymix(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(folder, words), cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def records(study: Path) -> list[tuple[str, str]]:
    """Kind and trial of every event of a trial, in order."""
    return [(kind, body["trial_id"]) for kind, body in Store(study).records() if "trial_id" in body]


def test_run_resume_and_extend(folder: Path) -> None:
    study = folder / "study"
    done = raymix(folder, "run", "space.yaml", "--study", "study", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "finished"
    assert sum(event["event"] == "ended" for event in events) == 6
    kept = records(study)
    assert len(kept) == 6 * 4  # proposed, two checkpoints, done

    raymix(folder, "run", "space.yaml", "--study", "study")  # finished: nothing more is trained
    assert records(study) == kept

    raymix(folder, "run", "space.yaml", "--study", "study", "--set", "budget.trials=8")
    assert len(records(study)) == 8 * 4  # only the two new trials

    found = json.loads((study / "recommendation.json").read_text())
    assert sum(found["mixture"].values()) == pytest.approx(1, abs=1e-9)
    assert all(epochs <= 4 + 1e-6 for epochs in found["epochs"].values())
    for key in ("scale", "losses", "objective", "baselines", "near_optimal", "law", "certificate", "verdict"):
        assert found[key]
    assert set(found["losses"]) == set(WORDS)
    names = {file.name for file in study.iterdir()}
    assert {"space.yaml", "study.json", "observations.parquet", "law.json", "report.html"} <= names
    assert not [name for name in study.rglob("*") if name.suffix in (".pkl", ".pickle")]

    refused = raymix(folder, "run", "space.yaml", "--study", "study", "--set", "recipe.batch=8", code=2)
    assert "recipe.batch: 4 -> 8" in refused.stderr


def test_ctrl_c_leaves_a_study_that_the_printed_command_resumes(folder: Path) -> None:
    words = ["run", "space.yaml", "--study", "stopped", "--json"]
    process = subprocess.Popen(
        command(folder, words),
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:  # until the first trial has ended
        if json.loads(line)["event"] == "ended":
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "raymix resume stopped" in said
    before = records(folder / "stopped")
    assert 4 <= len(before) < 24
    raymix(folder, *words)
    assert records(folder / "stopped")[: len(before)] == before
    table = json.loads(raymix(folder, "status", "stopped", "--json").stdout)
    assert (table["done"], table["failed"], table["finished"]) == (6, 0, True)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_driver_told_to_go_has_its_trials_saved_first(folder: Path, signum: signal.Signals) -> None:
    long = SPACE.replace("n_tokens: 6e3", "n_tokens: 6e6").replace("n_tokens: 9e3", "n_tokens: 9e6")
    long = long.replace("n_tokens: 2e4, max_epochs: 4", "n_tokens: 2e7, max_epochs: 100000")
    (folder / "long.yaml").write_text(long.replace("checkpoints: 3", "checkpoints: 300"))
    process = subprocess.Popen(
        command(folder, ["run", "long.yaml", "--study", signum.name, "--json"]),
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:  # until a trial is on its way, far from its end and from the first minute
        if json.loads(line)["event"] == "checkpoint":
            break
    if signum == signal.SIGHUP:
        os.killpg(process.pid, signum)  # as a terminal that closes tells everybody
    process.send_signal(signum)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signum, said
    assert f"raymix resume {signum.name}" in said
    assert "SIGTERM received" not in said  # Ray's stack
    assert list((folder / signum.name / "checkpoints").glob("*/step-*"))


def test_a_study_in_which_every_trial_diverges_says_why(folder: Path) -> None:
    settings = ["--set", "recipe.learning_rate=1e6", "--set", "budget.trials=3"]
    done = raymix(folder, "run", "space.yaml", "--study", "diverged", *settings, code=1)
    assert "0 trials have losses" in done.stderr
    assert "learning rate 1e+06" in done.stderr
    assert "Traceback" not in done.stderr
    state = json.loads(raymix(folder, "status", "diverged", "--json").stdout)
    assert (state["done"], state["failed"]) == (0, 3)
    assert (folder / "diverged" / "report.html").is_file()
    assert not (folder / "diverged" / "recommendation.json").exists()


def test_plan_says_what_it_would_cost(folder: Path) -> None:
    found = json.loads(raymix(folder, "plan", "space.yaml", "--json", "--set", "target.n_tokens=4e4").stdout)
    assert found["trials"] == 6
    assert [rung["trials"] for rung in found["rungs"]] == [4, 2]
    assert found["seconds"] > 0
    assert any("animals" in warning for warning in found["warnings"])  # the scarce domain is repeated


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["budget.trails=3"], "did you mean 'trials'?"),
        (["domains.0.source.files=nothing*.jsonl"], "nothing*.jsonl"),
        (["domains.0.source.text=body"], "body"),
        (["target.n_tokens=1e9"], "raise target.max_epochs"),
    ],
)
def test_mistakes_exit_2_with_one_sentence(folder: Path, settings: list[str], words: str) -> None:
    options = [word for setting in settings for word in ("--set", setting)]
    done = raymix(folder, "run", "space.yaml", "--study", "never", *options, code=2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "never" / "study.json").exists()
