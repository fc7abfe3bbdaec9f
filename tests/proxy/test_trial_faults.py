"""Rows 3, 11, 26 and 30 of the faults, on real Ray: workers killed, hung, out of memory, robbed of what they read."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.air.execution._internal import event_manager

from raymix import SearchSpace, Study
from raymix.corpus import Corpus
from raymix.on_ray import ending, run
from raymix.on_ray.kept import Kept
from raymix.on_ray.trial import ProxyTrial
from raymix.proxy.train import train_proxy
from raymix.store import StoreError
from raymix.study.trial import Trial

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]  # starts Ray and trains proxies

PATIENCE = 5.0  # seconds without a step; a step takes milliseconds
MONITOR = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.5, ID: 0a) \
was 15.2GB used / 16.0GB limit (0.95)
OOM kill reason: Memory usage 15200000000B exceeded threshold
"""  # in the words of Ray 2.60
GPU = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.56 GiB of which 1.20 GiB is free."
    " Including non-PyTorch memory, this process has 13.30 GiB memory in use."
)


class Faulty(ProxyTrial):
    """A proxy trial that suffers what `faults.json` in the study has for it, whenever it has been saved."""

    pause_seconds = 0.25

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        super().reset_config(new_config)
        study = self._kept.folder.parent
        fault = json.loads((study / "faults.json").read_text()).get(new_config["trial_id"])
        if fault == "shared GPU full once":
            self._gpu_share = 0.5
        if fault == "no room":
            self._checkpoints.folder = Path(os.devnull) / "full"
        lives = study / f"lives-{new_config['trial_id']}"
        with lives.open("a") as file:
            file.write("begun\n")
        n_lives = lives.read_text().count("begun")
        save = self._checkpoints.save

        def save_and_suffer(run_id: str, snapshot: Any) -> None:
            save(run_id, snapshot)
            with lives.open("a") as file:
                file.write(f"{snapshot.step}\n")
            suffer(fault, n_lives)

        self._checkpoints.save = save_and_suffer
        return True

    def step(self) -> dict[str, Any]:
        began, retry = time.monotonic(), self._retry
        row = super().step()
        with (self._kept.folder.parent / f"rows-{self._name}").open("a") as file:
            file.write(f"{row.get('n_tokens')}\n")  # none of one that diverged
        if retry:
            waits = self._kept.folder.parent / f"waits-{self._name}"
            with waits.open("a") as file:
                file.write(f"{retry} {time.monotonic() - began}\n")
        return row


def suffer(fault: str | None, n_lives: int) -> None:
    if fault == "killed" or (fault == "killed once" and n_lives == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hangs" or (fault == "hangs once" and n_lives == 1):
        hang_here()
    if fault == "GPU full" or (fault == "shared GPU full once" and n_lives == 1):
        raise torch.OutOfMemoryError(GPU)
    if fault is not None and fault.startswith("/"):
        os.truncate(fault, 0)


def hang_here() -> None:
    threading.Event().wait()


@pytest.fixture
def begin(
    tmp_path: Path, make_space: Callable[..., SearchSpace], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Study, list[Trial]]]:
    """A study of as many trials as there are faults, all of them proposed."""

    def started(*faults: str | None, **budget: float) -> tuple[Study, list[Trial]]:
        raw = make_space(checkpoint_seconds=1e-3, hang_seconds=PATIENCE).model_dump(mode="json", exclude_none=True)
        raw |= {"ladder": [{"n_params": 1e4, "n_tokens": 128 * 200}]}
        raw |= {"budget": {"trials": len(faults), "per_round": len(faults), **budget}}
        study = Study.create(SearchSpace.parse(raw), tmp_path / "study", seed=0)
        trials = study.ask(len(faults))
        found = {trial.trial_id: fault for trial, fault in zip(trials, faults, strict=True)}
        (tmp_path / "study" / "faults.json").write_text(json.dumps(found))
        monkeypatch.setattr(run, "ProxyTrial", Faulty)
        return study, trials

    return started


def lives_of(study: Study, trial: Trial) -> list[list[int]]:
    """The steps at which each life of a trial was saved."""
    said = (study.store.path / f"lives-{trial.trial_id}").read_text()
    return [[int(step) for step in life.split()] for life in said.split("begun")[1:]]


def rows_of(study: Study, trial: Trial) -> list[dict[str, Any]]:
    return [row for row in study.table().table.to_pylist() if row["trial_id"] == trial.trial_id]


def test_killed_and_hung_workers_are_retried_from_their_checkpoint_with_the_same_losses(
    corpus: Corpus, begin: Callable[..., tuple[Study, list[Trial]]]
) -> None:
    study, trials = begin(None, "killed once", "hangs once", "killed")
    run.run_study(study, corpus)
    study = Study.open(study.store.path)
    *well, dead = trials
    for trial in well:
        mixture_K = np.asarray(list(trial.mixture.values()))
        expected = list(
            train_proxy(corpus, study.space, mixture_K, 1e4, 128 * 200, trial.seed, device="cpu", threads=1)
        )
        found = rows_of(study, trial)
        assert [row["status"] for row in found] == ["checkpoint", "checkpoint", "done"]  # each once
        for row, truth in zip(found, expected, strict=True):
            assert all(row[key] == truth[key] for key in truth if key.startswith(("loss/", "tokens/")))
    for trial in trials[1:3]:
        first, second = lives_of(study, trial)
        assert len(first) == 1
        assert min(second) > first[0]  # went on, not from the start

    for trial in trials[1:3]:
        (retry, seconds) = (study.store.path / f"waits-{trial.trial_id}").read_text().split()
        assert int(retry) == 1
        assert float(seconds) >= Faulty.pause_seconds
    assert len(lives_of(study, dead)) == 1 + run.MAX_RETRIES
    last = rows_of(study, dead)[-1]
    assert last["status"] == "failed"
    assert re.match(r"the worker died, hung or raised; .*dead because its worker process has died", last["reason"])
    assert (study.ledger.count("done"), study.ledger.count("failed")) == (3, 1)
    logs = Path(ray.nodes()[0]["ObjectStoreSocketName"]).parents[1] / "logs"
    dumps = [text for file in logs.glob("worker-*.err") if "Timeout (" in (text := file.read_text(errors="replace"))]
    assert sum("in hang_here" in text for text in dumps) == 1  # on a busy machine others may be slow, and say so


def test_checkpoints_that_cannot_be_saved_are_said_by_the_driver_once(
    corpus: Corpus, begin: Callable[..., tuple[Study, list[Trial]]], caplog: pytest.LogCaptureFixture
) -> None:
    study, (trial,) = begin("no room")
    run.run_study(study, corpus)
    assert study.ledger.status(trial.trial_id) == "done"
    assert len(re.findall(r"begins again further back: /dev/null/full: not saved", caplog.text)) == 1


def test_a_shard_that_shrinks_under_a_trial_fails_it_and_not_the_driver(
    corpus: Corpus, begin: Callable[..., tuple[Study, list[Trial]]]
) -> None:
    """Reading what is no longer there is SIGBUS, which no Python catches."""
    shard = corpus.path / corpus.manifest["train"]["a"]["file"]
    study, (well, robbed) = begin(None, str(shard))
    run.run_study(study, corpus)
    study = Study.open(study.store.path)
    assert study.ledger.status(well.trial_id) == "done"
    assert study.ledger.status(robbed.trial_id) == "failed"
    assert "CorpusError" in rows_of(study, robbed)[-1]["reason"]  # which its worker raised, and no log has to be found
    assert len(lives_of(study, robbed)) == 1  # its retries refuse the shard: its size is not the manifest's


def test_a_worker_that_rays_memory_monitor_kills_is_retried_and_the_others_train_on(
    corpus: Corpus, begin: Callable[..., tuple[Study, list[Trial]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monitor's error is neither of the two that Tune knows, and ends all trials where nobody translates it."""
    study, (well, once) = begin(None, "killed once")

    def get(future: Any) -> Any:
        try:
            return ray.get(future)
        except ray.exceptions.ActorDiedError:
            raise ray.exceptions.OutOfMemoryError(MONITOR) from None

    monkeypatch.setattr(event_manager, "ray", SimpleNamespace(get=get, wait=ray.wait))
    run.run_study(study, corpus)
    assert [study.ledger.status(trial.trial_id) for trial in (well, once)] == ["done", "done"]
    first, second = lives_of(study, once)
    assert min(second) > first[0]


def test_a_trial_that_does_not_fit_into_its_gpu_fails_at_once_and_one_that_shares_it_is_tried_again(
    corpus: Corpus, begin: Callable[..., tuple[Study, list[Trial]]]
) -> None:
    study, (full, shares) = begin("GPU full", "shared GPU full once")
    run.run_study(study, corpus)
    reason = rows_of(study, full)[-1]["reason"]
    assert reason.startswith(
        "out of memory on its GPU (Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.56 GiB); lower recipe."
    )
    assert len(lives_of(study, full)) == 1
    assert len(lives_of(study, shares)) == 2
    assert study.ledger.status(shares.trial_id) == "done"


def test_hours_that_are_over_end_a_study_whose_trials_do_not_end(
    corpus: Corpus, begin: Callable[..., tuple[Study, list[Trial]]], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The first is done and the second hangs, for longer than its hours and less than its patience."""
    study, (well, long) = begin(None, "hangs", hours=1.0)
    saved = study.store.path / run.CHECKPOINTS / long.trial_id

    def clock() -> float:
        return time.monotonic() + 1.2 * ending.HOUR * any(saved.glob("step-*"))

    monkeypatch.setattr(ending, "time", SimpleNamespace(monotonic=clock))
    run.run_study(study, corpus)
    assert "are over and trials have not ended (1): they wait in the study" in caplog.text
    study = Study.open(study.store.path)
    assert study.ledger.status(well.trial_id) == "done"
    assert study.ledger.pending() == [long]
    assert any(saved.glob("step-*"))
    caplog.clear()
    monkeypatch.setattr(run, "_ray", lambda *_: pytest.fail("there is nothing to do in no time"))
    run.run_study(study, corpus)
    assert "are over and trials have not ended (1)" in caplog.text


class Elsewhere(ProxyTrial):
    """A proxy trial on a node that does not see the study's disk."""

    def setup(self, config: dict[str, Any], kept: Kept, **options: Any) -> None:
        super().setup(config, kept=replace(kept, folder=Path("/elsewhere/study/checkpoints")), **options)


class Bare(ProxyTrial):
    """A proxy trial on a node with another environment: what Ray makes of it ends in these words."""

    def setup(self, config: dict[str, Any], **options: Any) -> None:
        raise ModuleNotFoundError("No module named 'raymix'")


@pytest.mark.parametrize(
    ("trainable", "words"),
    [
        (Elsewhere, r"^/elsewhere/study is not on this node: keep .* s3://bucket/name\) \(on "),
        (Bare, r"^a node cannot run trials: No module named 'raymix' \(on .*\); give all nodes one image"),
    ],
)
def test_a_node_that_can_train_nothing_ends_the_study_with_a_remedy(
    corpus: Corpus,
    begin: Callable[..., tuple[Study, list[Trial]]],
    monkeypatch: pytest.MonkeyPatch,
    trainable: type[ProxyTrial],
    words: str,
) -> None:
    """What trials save elsewhere is found by no other node; one without raymix is free again at once for the next."""
    study, trials = begin(None, None)
    monkeypatch.setattr(run, "ProxyTrial", trainable)
    with pytest.raises(StoreError, match=words):
        run.run_study(study, corpus)
    assert Study.open(study.store.path).ledger.pending() == trials


def test_where_nothing_can_be_recorded_nothing_is_trained_on(
    corpus: Corpus, begin: Callable[..., tuple[Study, list[Trial]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, (trial,) = begin(None)

    append = study.store.append_all

    def full(events: Any) -> None:
        if [kind for kind, _ in events] != ["text"]:  # that fits yet: it is recorded before anything is trained
            raise StoreError("No space left on device (ENOSPC)")
        append(events)

    monkeypatch.setattr(study.store, "append_all", full)
    with pytest.raises(StoreError, match="ENOSPC"):
        run.run_study(study, corpus)
    reported = (study.store.path / f"rows-{trial.trial_id}").read_text().split()
    assert len(reported) < 3  # the one that could not be recorded, and at most the one under way


def test_every_step_and_every_evaluated_domain_is_a_sign_of_life(
    corpus: Corpus, make_space: Callable[..., SearchSpace]
) -> None:
    """So that neither a long evaluation nor a long run is taken for a trial that hangs."""
    signs: list[None] = []
    space = make_space(checkpoints=2)
    rows = list(
        train_proxy(
            corpus, space, np.asarray([0.5, 0.5]), 1e4, 128 * 10, 0, device="cpu", alive=lambda: signs.append(None)
        )
    )
    assert len(signs) == 10 + len(rows) * len(space.eval_names)
