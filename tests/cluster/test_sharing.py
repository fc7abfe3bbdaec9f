"""Small proxies share a GPU; on fake GPUs, which Ray counts and nobody computes on."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle, tune

from raymix.on_ray import sharing
from raymix.on_ray.demand import Default, bundle, check_fits, placement
from raymix.on_ray.sharing import at_once, bytes_of, default_resources, trials_at_a_time
from raymix.proxy import resolve
from raymix.space import Recipe, SearchSpace
from tests import worlds

VOCAB = 4096
SMALL, LARGE = {"n_params": 1e5, "n_tokens": 5e5}, {"n_params": 3.5e8, "n_tokens": 1e9}


def test_more_of_the_small_and_one_of_the_large() -> None:
    """As many as time, memory, cores and 4 allow; a step that is compiled leaves no time."""
    small, large = (resolve(Recipe(), *scale.values(), VOCAB) for scale in (SMALL, LARGE))
    assert at_once(small, "auto", 80e9, cores=8) == 4
    assert at_once(large, "auto", 80e9, cores=8) == 1
    assert at_once(small, "auto", 80e9, cores=2) == 2
    assert at_once(small, "auto", 3 * bytes_of(small), cores=8) == 2
    assert at_once(small, "auto", bytes_of(small), cores=8) == 1
    assert at_once(small, "always", 80e9, cores=8) == 1


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_estimate_holds_what_must_be_there(family: str) -> None:
    """Weights, gradients, moments and average of the real model in float32, whatever else."""
    from raymix.proxy.model import build

    shape = resolve(Recipe.model_validate({"family": family}), 1e6, 1e7, VOCAB)
    states = 20 * sum(p.numel() for p in build(shape, 0).parameters())
    assert states < bytes_of(shape) - sharing.PROCESS < 1e9  # and a million parameters are no large model


class Meeting:
    """Lets nobody go before all are there."""

    def __init__(self, size: int) -> None:
        self.size, self.there, self.all = size, 0, asyncio.Event()

    async def wait(self) -> None:
        self.there += 1
        if self.there == self.size:
            self.all.set()
        await self.all.wait()


@pytest.mark.slow
def test_four_trials_at_once_on_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them ends before all have begun; a rung that says what it takes is believed."""
    space, said = worlds.space(ladder=[SMALL, LARGE]), [SMALL | {"resources": {"gpu": 1}}, LARGE]
    ray.init(address="local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False,
             _system_config={"prestart_worker_first_driver": False})  # fmt: skip
    try:
        assert default_resources(space, VOCAB) == {"cpu": 1, "gpu": 1}  # nobody can say how large this one is
        monkeypatch.setattr(sharing, "gpu_memory", lambda: 80e9)
        default = default_resources(space, VOCAB)
        check_fits(space, default)
        assert bundle(space, 1e5, default) == {"CPU": 1, "GPU": 0.25}
        assert bundle(space, 3.5e8, default) == bundle(space, 7e8, default) == {"CPU": 1, "GPU": 1}
        assert trials_at_a_time(space, default) == 4
        assert trials_at_a_time(worlds.space(ladder=said), default) == 1
        found = _run(space, default, tmp_path)
        assert [(result.metrics["gpu"], result.metrics["ids"]) for result in found] == [(0.25, 1)] * 4
    finally:
        ray.shutdown()


def _run(space: SearchSpace, default: Default, folder: Path) -> Any:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # or its worker loads torch
    meeting = ray.remote(num_cpus=0)(Meeting).remote(4)
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])

    def trial(config: dict[str, Any]) -> None:
        ray.get(meeting.wait.remote())
        tune.report({"gpu": ray.get_runtime_context().get_assigned_resources()["GPU"], "ids": len(ray.get_gpu_ids())})

    return tune.Tuner(
        tune.with_resources(trial, placement(space, default)),
        param_space={"n_params": 1e5},
        tune_config=tune.TuneConfig(num_samples=4, max_concurrent_trials=4),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    ).fit()
