"""Several real raylets on one machine: nodes lost, drained and added, shards carried to each; the same results."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster

from raymix import doctor
from raymix.clusters import nodes
from raymix.design import Proposal, SpaceFilling
from raymix.observations import Observations
from raymix.on_ray.demand import Waiting, bundle, check_fits, placement, waiting_for
from raymix.on_ray.run import MAX_RETRIES
from raymix.on_ray.stuck import Unstarted
from raymix.search import MixtureSearch
from raymix.space import SearchSpace
from raymix.study.ledger import Ledger
from raymix.yaml12 import SpaceError
from tests import worlds

STEPS, STEP_SECONDS = 6, 0.3


def typed_space(**changes: Any) -> SearchSpace:
    """The small rung anywhere, the large one on nodes that have the GPU type; a half of it each."""
    ladder = [
        {"n_params": 1e5, "n_tokens": 5e5},
        {"n_params": 4e5, "n_tokens": 1e6, "resources": {"cpu": 0, "custom": {"fake_gpu": 0.5}}},
    ]
    return worlds.space(ladder=ladder, budget={"trials": 8, "per_round": 4}, **changes)


@dataclass(frozen=True)
class Alternating:
    """Space filling, every second trial on the large rung."""

    space: SearchSpace

    def suggest(
        self, table: Observations, pending: Sequence[Proposal], n: int, rng: np.random.Generator
    ) -> list[Proposal]:
        """See `Designer.suggest`."""
        found = SpaceFilling(self.space).suggest(table, pending, n, rng)
        return [replace(one, scale=self.space.ladder[i % 2].scale) for i, one in enumerate(found)]


class Synthetic(tune.Trainable):  # type: ignore[misc]
    """Rows of the synthetic truth, some steps apart, so that there is time to lose a node."""

    def setup(self, config: dict[str, Any]) -> None:
        self.left = STEPS

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.left = STEPS
        return True

    def step(self) -> dict[str, Any]:
        time.sleep(STEP_SECONDS)
        self.left -= 1
        if self.left:
            return {"status": "running"}
        mix_K = np.asarray([self.config["mixture"][name] for name in worlds.DOMAINS])
        values = worlds.losses(mix_K, self.config["n_params"], self.config["n_tokens"])
        losses = {f"loss/{name}": float(value) for name, value in zip(worlds.DOMAINS, values, strict=True)}
        return {**losses, "n_tokens": self.config["n_tokens"], "status": "done", "done": True}


@contextmanager
def cluster(size: int, monkeypatch: pytest.MonkeyPatch, **resources: float) -> Iterator[tuple[Cluster, list[Any]]]:
    """A head that runs nothing and some workers; our own, never one that happens to run here."""
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "0")
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        workers = [running.add_node(num_cpus=1, resources=resources or None) for _ in range(size)]
        ray.init(address=running.address, log_to_driver=False, logging_level="ERROR")
        yield running, workers
    finally:
        ray.shutdown()
        running.shutdown()


def play(space: SearchSpace, folder: Path, during: Any = None) -> list[dict[str, Any]]:
    """The study's rows; `during(trials ended)` is called in the driver as trials end."""
    ended = []

    def watch(event: str, trial: Any) -> None:
        if event == "ended" and during is not None:
            ended.append(trial)
            during(len(ended))

    ledger = Ledger(space, seed=0, designer=Alternating(space))
    tune_study(ledger, space, folder, watch, [Unstarted(patience=60)])  # Ray forgot one once, after a node was lost
    return ledger.table().table.to_pylist()


def tune_study(
    ledger: Ledger, space: SearchSpace, folder: Path, on_change: Any = None, callbacks: Sequence[tune.Callback] = ()
) -> None:
    """The study of a ledger on the Ray that is up, synthetic trials in place of proxies."""
    tune.Tuner(
        tune.with_resources(Synthetic, placement(space, {"cpu": 1})),
        tune_config=tune.TuneConfig(
            search_alg=MixtureSearch(ledger=ledger, rounds=True, on_change=on_change, retries=MAX_RETRIES),
            num_samples=-1,
            max_concurrent_trials=4,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[Waiting(), *callbacks],
        ),
    ).fit()


@pytest.mark.exhaustive
def test_nodes_lost_drained_and_added_change_nothing_about_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = typed_space()
    with cluster(1, monkeypatch, fake_gpu=1):
        alone = play(space, tmp_path / "alone")
    with cluster(4, monkeypatch, fake_gpu=1) as (running, workers):
        happened: list[str] = []

        def trouble(ended: int) -> None:
            if ended == 1:
                running.remove_node(workers[0], allow_graceful=False)
                happened.append("lost")
            if ended == 3:
                _drain(workers[1].node_id)
                happened.append("drained")
            if ended == 4:
                running.add_node(num_cpus=1, resources={"fake_gpu": 1}, wait=False)
                happened.append("added")

        troubled = play(space, tmp_path / "troubled", trouble)
    assert happened == ["lost", "drained", "added"]
    assert len(alone) == 8
    assert {row["n_params"] for row in alone} == {1e5, 4e5}
    by_trial = [{row["trial_id"]: _known(row) for row in rows} for rows in (alone, troubled)]
    assert by_trial[0] == by_trial[1]


def _known(row: dict[str, Any]) -> dict[str, Any]:
    """Without what nobody measured (NaN, which equals nothing)."""
    return {key: value for key, value in row.items() if value == value}


def _drain(node_id: str) -> None:
    """A preemption notice, as a cloud's agent would give it."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    client = GcsClient(address=ray.get_runtime_context().gcs_address)
    reason = autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    accepted, why = client.drain_node(node_id, reason, "spot machine taken back", int((time.time() + 2) * 1000))
    assert accepted, why


@pytest.mark.exhaustive
def test_shards_reach_a_node_once_and_a_damaged_copy_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raymix.corpus import CorpusError, prepare
    from raymix.on_ray import shards as shards_on_nodes

    rng = np.random.default_rng(0)
    for name in worlds.DOMAINS:
        lines = [json.dumps({"text": " ".join(rng.choice(["red", "green", "blue"], 40))}) for _ in range(80)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    domains = [{"name": name, "source": {"files": f"{name}.jsonl"}} for name in worlds.DOMAINS]
    raw = worlds.space().model_dump(mode="json", exclude_none=True)
    raw |= {"domains": domains, "target": {"n_params": 1e6, "n_tokens": 2e4}, "tokenizer": {"train": {"vocab": 300}}}
    corpus = prepare(SearchSpace.parse(raw | {"allow_eval_overlap": True}, folder=tmp_path), cache=tmp_path / "cache")

    @ray.remote
    def opened(shards: Any, cache: str) -> tuple[str, int]:
        import os

        os.environ["RAYMIX_NODE_CACHE"] = cache
        found = shards_on_nodes.on_this_node(shards)
        return str(found.path), int(found.train(worlds.DOMAINS[0]).sum())

    with cluster(2, monkeypatch):
        shards = shards_on_nodes.share(corpus)
        caches = [str(tmp_path / "node-a"), str(tmp_path / "node-a"), str(tmp_path / "node-b")]
        found = ray.get([opened.remote(shards, cache) for cache in caches])
        truth = int(corpus.train(worlds.DOMAINS[0]).sum())
        assert [total for _, total in found] == [truth] * 3
        assert all(str(corpus.path) != path for path, _ in found)
        copies = [folder for folder in (tmp_path / "node-a" / "nodes").iterdir() if folder.is_dir()]
        assert [folder.name for folder in copies] == [corpus.hash]

        file = next(copies[0].glob("train-*.npy"))
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(bytes(content))
        with pytest.raises(CorpusError, match="sha256"):
            raise ray.get(_failure(opened, shards, caches[0]))


@pytest.mark.exhaustive
def test_the_doctor_finds_the_node_with_other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster(2, monkeypatch) as (running, workers):
        found = {line.what: line for line in doctor.cluster(running.address)}
        assert (found["environments"].level, found["environments"].found) == ("ok", "on 2 nodes as here")
        here, wrong = nodes._installed(), workers[1].node_id

        def installed() -> dict[str, str]:
            return here | ({"torch": "1.0"} if ray.get_runtime_context().get_node_id() == wrong else {})

        monkeypatch.setattr(nodes, "_installed", installed)
        found = {line.what: line for line in doctor.cluster(running.address)}
        assert found["environments"].level == "error"
        assert found["environments"].found == f"a node has torch 1.0 and not {here['torch']}"
        assert "one image" in found["environments"].remedy

        def absent() -> dict[str, str]:
            if ray.get_runtime_context().get_node_id() == wrong:
                raise ModuleNotFoundError("No module named 'raymix'")
            return here

        monkeypatch.setattr(nodes, "_installed", absent)
        (line,) = [line for line in doctor.cluster(running.address) if line.what == "environments"]
        assert line.level == "error" and "No module named 'raymix'" in line.found


@pytest.mark.exhaustive
def test_the_doctor_finds_the_node_whose_clock_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster(3, monkeypatch) as (running, workers):
        found = {line.what: line for line in doctor.cluster(running.address)}
        assert found["clocks"].level == "ok" and "on 3 nodes" in found["clocks"].found
        wrong = workers[1].node_id

        def clock() -> float:
            return time.time() + 60 * (ray.get_runtime_context().get_node_id() == wrong)

        monkeypatch.setattr(nodes, "_now", clock)
        found = {line.what: line for line in doctor.cluster(running.address)}
        assert found["clocks"].level == "error" and "ntpd" in found["clocks"].remedy
        assert re.search(r"at most (59|60)\.\d+ s apart", found["clocks"].found)


def _failure(task: Any, shards: Any, cache: str) -> Any:
    @ray.remote
    def caught() -> Any:
        try:
            ray.get(task.remote(shards, cache))
        except ray.exceptions.RayTaskError as error:
            return error.cause
        return None

    return caught.remote()


def test_a_trial_takes_what_its_rung_says() -> None:
    ladder = [
        {"n_params": 1e5, "n_tokens": 5e5, "resources": {"gpu": 0.25, "accelerator": "L4"}},
        {"n_params": 4e5, "n_tokens": 1e6, "resources": {"cpu": 0, "gpu": 2, "custom": {"fast_disk": 1}}},
        {"n_params": 4e6, "n_tokens": 1e6},
    ]
    space = worlds.space(ladder=ladder)
    assert bundle(space, 1e5, {"cpu": 1}) == {"CPU": 1, "GPU": 0.25, "accelerator_type:L4": 0.001}
    assert bundle(space, 3.9e5, {"cpu": 1}) == {"GPU": 2, "fast_disk": 1}  # realised sizes differ a little
    assert bundle(space, 4e6, {"cpu": 2, "gpu": 1}) == {"CPU": 2, "GPU": 1}
    (asked,) = placement(space, {"cpu": 1})({"n_params": 1e5}).bundles
    assert asked == {"CPU": 1, "GPU": 0.25, "accelerator_type:L4": 0.001}
    assert placement(worlds.space(), {"cpu": 1}) == {"cpu": 1}


def test_where_it_runs_changes_no_result_and_so_no_hash() -> None:
    moved = [{"n_params": 1e5, "n_tokens": 5e5, "resources": {"gpu": 1}}, {"n_params": 4e5, "n_tokens": 1e6}]
    assert worlds.space(ladder=moved).hash() == worlds.space().hash()
    for wrong in ({"gpu": 1.5}, {"cpu": 0}, {"custom": {"x": 0}}, {"gpus": 1}):
        with pytest.raises(SpaceError):
            worlds.space(ladder=[{"n_params": 1e5, "n_tokens": 5e5, "resources": wrong}])


def test_what_is_waited_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    said = waiting_for([{"GPU": 1.0}, {"GPU": 1.0}, {"CPU": 1.0}])
    assert "2 with GPU 1" in said and "no node has GPU yet" in said and "starting" not in said
    said = waiting_for([{"GPU": 1.0}, {"CPU": 1.0}], starting=1)
    assert "no node has GPU yet" in said and "starting on nodes that are there: 1 (a worker process" in said
    said = waiting_for([{"CPU": 1.0}], starting=1)
    assert "no node" not in said and "starting on nodes that are there: 1" in said
    said = waiting_for([{"accelerator_type:H100": 0.001, "GPU": 1.0}])
    assert "no node has GPU, accelerator_type:H100 yet; where none that may come has, change `resources`" in said
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 4.0})
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 1.0, "GPU": 2.0}}] * 2)
    assert "no node has GPU 4 yet" in waiting_for([{"CPU": 1.0, "GPU": 4.0}])  # and not: all of it is in use
    assert "all of it is in use" in waiting_for([{"CPU": 1.0, "GPU": 2.0}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    with pytest.raises(SpaceError, match="takes GPU 1, this machine has 0"):
        check_fits(worlds.space(), {"cpu": 1, "gpu": 1})
