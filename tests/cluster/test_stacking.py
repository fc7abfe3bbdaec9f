"""How many trials are trained as one where nobody says; on fake GPUs, with made-up rates."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray import cloudpickle

from raymix.on_ray import sharing, stacking
from raymix.on_ray.demand import bundle
from raymix.on_ray.sharing import bytes_of, default_resources, trials_at_a_time
from raymix.on_ray.stacking import choose, measured, stack_sizes
from raymix.proxy import resolve, timing
from raymix.proxy.stacked import Stack
from raymix.space import Recipe, Scale, SearchSpace
from raymix.store import Store
from raymix.study.ledger import Ledger
from tests import worlds

VOCAB = 4096
SMALL, LARGE = {"n_params": 1e5, "n_tokens": 5e5}, {"n_params": 3.5e8, "n_tokens": 1e9}
SHAPE = resolve(Recipe(), *SMALL.values(), VOCAB)
AT_SMALL, AT_LARGE = Scale(*SMALL.values()), Scale(*LARGE.values())


@pytest.mark.parametrize(
    ("rates", "shares", "size"),
    [
        ({1: 100.0}, 1, 1),  # nothing else fitted
        ({1: 100.0, 2: 190.0, 4: 350.0, 8: 340.0}, 1, 4),
        ({1: 100.0, 2: 190.0, 4: 350.0, 8: 340.0}, 4, 1),  # four that share might make 400
        ({1: 100.0, 2: 190.0, 4: 350.0, 8: 401.0}, 4, 8),
        ({1: 100.0, 2: 99.0}, 1, 1),
        ({1: 100.0, 2: 200.0, 4: 200.0}, 1, 2),  # the smaller of two that are as fast
    ],
)
def test_the_fastest_stack_if_it_beats_sharing_at_its_best(rates: dict[int, float], shares: int, size: int) -> None:
    assert choose(rates, shares) == size


def test_stacks_are_timed_up_to_the_first_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bool]] = []

    def seconds(shape: Any, n_steps: int, stack: int = 1, compiled: bool = False) -> float:
        asked.append((stack, compiled))
        if stack == 8:
            raise torch.OutOfMemoryError
        return 0.5 * stack**0.5

    monkeypatch.setattr(stacking, "seconds_per_step", seconds)
    memory, rates = measured(SHAPE, [2, 4], "auto")
    assert (memory, rates, asked) == (0.0, {}, [])  # no GPU is to be seen here
    monkeypatch.setattr(stacking, "device_memory", lambda: 80_000_000_000)
    memory, rates = measured(SHAPE, [2, 4, 8, 16], "always")
    assert memory == 80e9
    per_step = SHAPE.tokens_per_step
    assert rates == pytest.approx({1: 2 * per_step, 2: 2 * 2**0.5 * per_step, 4: 4 * per_step})
    assert asked == [(1, True), (2, False), (4, False), (8, False)]  # one alone is timed as it would be trained
    asked.clear()
    monkeypatch.setattr(stacking, "device_memory", lambda: sharing.MARGIN * bytes_of(SHAPE, 2))
    assert list(measured(SHAPE, [2, 4, 8, 16], "never")[1]) == [1, 2]
    assert asked == [(1, False), (2, False)]  # by the estimate the next would not hold its states


def test_a_stack_holds_the_states_of_all_and_one_block_of_logits() -> None:
    alone, pair, four = (bytes_of(SHAPE, size) - sharing.PROCESS for size in (1, 2, 4))
    assert alone < pair < 2 * alone
    assert 2 * (pair - alone) < four - alone
    weights = 4 * (SHAPE.n_params + (SHAPE.vocab + SHAPE.context) * SHAPE.width)
    assert four > 4 * 5 * weights  # weights, gradients, two moments, the average


def test_stacks_are_timed_by_what_trains_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few real steps of a small stack."""
    stepped: list[tuple[int, ...]] = []

    class Watched(Stack):
        def step(self, step: int, batch: Any) -> None:
            super().step(step, batch)
            stepped.append((len(self.params[0]), *batch.shape))

    monkeypatch.setattr(timing, "Stack", Watched)
    shape = resolve(Recipe(context=32, batch=2), 1e4, 1e4, 300)
    assert stacking.seconds_per_step(shape, 3, stack=4) > 0
    assert stepped == [(4, 4, 2, 33)] * 5


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[None]:
    """A Ray of our own that counts two GPUs, whose workers find this file."""
    path = os.path.realpath(os.environ.get("TMPDIR", "/tmp"))
    env = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2])}}
    ray.init(address="local", num_cpus=8, num_gpus=2, resources={"accelerator_type:L4": 1}, include_dashboard=False,
             log_to_driver=False, _temp_dir=f"{path}/rs{os.getpid()}", runtime_env=env,
             _system_config={"prestart_worker_first_driver": False})  # fmt: skip
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # or workers load torch for what is made up
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()


def made_up(shape: Any, sizes: Any, compiling: str) -> tuple[float, dict[int, float]]:
    """Small proxies gain by stacks, large ones do not."""
    assert ray.get_gpu_ids(), "a task on a GPU"
    gain = 0.9 if shape.n_params < 1e6 else 0.0
    return 80e9, {size: 1e6 * size**gain for size in (1, *sizes)}


def told(space: SearchSpace, folder: Path) -> tuple[Any, list[dict[str, Any]]]:
    """The sizes, and what is recorded of them."""
    store = Store(folder)
    sizes = stack_sizes(space, Ledger(space, store=store), VOCAB)
    return sizes, [body for kind, body in store.records() if kind == "stack"]


@pytest.mark.slow
def test_what_was_measured_is_recorded_and_holds_when_the_study_goes_on(
    two_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = worlds.space(ladder=[SMALL, LARGE], budget={"trials": 48, "per_round": 16})
    monkeypatch.setattr(stacking, "measured", made_up)
    sizes, recorded = told(space, tmp_path / "a")
    assert sizes == {AT_SMALL: 8, AT_LARGE: 1}  # of 16 trials in a round, on two GPUs
    assert [(body["n_params"], body["size"], body["sharing"]) for body in recorded] == [(1e5, 8, 4), (3.5e8, 1, 1)]
    monkeypatch.setattr(stacking, "task_with", forbidden)
    assert told(space, tmp_path / "a") == (sizes, recorded)
    smaller = worlds.space(ladder=[SMALL, LARGE], budget={"trials": 48, "per_round": 3})
    assert told(smaller, tmp_path / "a") == (sizes, recorded)  # also where nothing would be asked now

    default = default_resources(space, VOCAB, sizes)
    monkeypatch.setattr(sharing, "gpu_memory", lambda: 80e9)
    shared = default_resources(space, VOCAB, sizes)
    assert bundle(space, 1e5, default) == bundle(space, 1e5, shared) == {"CPU": 1, "GPU": 1}
    assert trials_at_a_time(space, shared) == 2
    assert bundle(space, 1e5, default_resources(space, VOCAB)) == {"CPU": 1, "GPU": 0.25}


@pytest.mark.slow
def test_nothing_is_measured_where_it_can_decide_nothing(
    two_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacking, "task_with", forbidden)
    for number, (rung, budget, recipe) in enumerate(
        [
            ({"resources": {"gpu": 0.5}}, {}, {}),  # they are to share
            ({"resources": {"gpu": 2}}, {}, {}),
            ({"resources": {"cpu": 2}}, {}, {}),
            ({}, {"stop_poor": True}, {}),
            ({}, {}, {"family": "bert"}),
            ({}, {"per_round": 3}, {}),  # one for each GPU, and one more
        ]
    ):
        space = worlds.space(ladder=[SMALL | rung], budget={"trials": 12, "per_round": 8} | budget, recipe=recipe)
        assert told(space, tmp_path / str(number)) == ({}, [])
    space = worlds.space(ladder=[SMALL | {"stack": 3}], budget={"trials": 12, "per_round": 8})
    assert told(space, tmp_path / "said") == ({AT_SMALL: 3}, [])
    assert bundle(space, 1e5, default_resources(space, VOCAB, {AT_SMALL: 3})) == {"CPU": 1, "GPU": 1}


@pytest.mark.slow
def test_where_no_gpu_answers_trials_are_trained_one_by_one_and_that_is_said(
    two_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not recorded: the next start asks again. These GPUs are none; then a node that does not come; then an error."""
    budget = {"trials": 12, "per_round": 8}
    assert told(worlds.space(ladder=[SMALL], budget=budget), tmp_path / "none") == ({}, [])
    assert "its worker sees no GPU" in caplog.text
    caplog.clear()
    monkeypatch.setattr(stacking, "PATIENCE", 0.5)
    missing = SMALL | {"resources": {"gpu": 1, "accelerator": "H200"}}
    assert told(worlds.space(ladder=[missing], budget=budget), tmp_path / "waiting") == ({}, [])
    assert "waiting for a GPU" in caplog.text
    assert "stacks could not be timed (Get timed out" in caplog.text
    caplog.clear()
    monkeypatch.setattr(stacking, "PATIENCE", 60.0)
    monkeypatch.setattr(stacking, "measured", forbidden)
    there = SMALL | {"resources": {"gpu": 1, "accelerator": "L4"}}
    assert told(worlds.space(ladder=[there], budget=budget), tmp_path / "broken") == ({}, [])
    assert "not to be asked" in caplog.text


def forbidden(*question: Any) -> Any:
    """What nobody may call."""
    raise RuntimeError("not to be asked")
