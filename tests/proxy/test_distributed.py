"""Several processes on one run give the numbers of one; a compiled run gives those of an eager one."""

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raymix.corpus import Corpus
from raymix.proxy import distributed, resolve
from raymix.proxy.checkpoint import Interrupted
from raymix.proxy.compiled import worth_compiling
from raymix.proxy.distributed import World, across
from raymix.proxy.train import train_proxy
from raymix.space import SearchSpace

MakeSpace = Callable[..., SearchSpace]
CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {"n_params": 1e4, "n_tokens": 2048, "seed": 0, "attention": "eager", "threads": 1}


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(corpus: Corpus, make_space: MakeSpace) -> None:
    space = make_space(precision="float32")
    arguments = {"corpus": corpus, "space": space, "mixture": np.asarray([0.3, 0.7]), **SETTINGS}
    expected = list(train_proxy(**arguments, device="cpu"))
    found = list(across(2, "cpu", train_proxy, **arguments))
    assert len(found) == len(expected) == 3
    for row, alone in zip(found, expected, strict=True):
        for key in alone.keys() - {"seconds"}:
            assert row[key] == pytest.approx(alone[key], abs=1e-4), key  # rounding, after Adam's division


WAITING = """
import os, sys, threading
from raymix.proxy.distributed import across

def rows(fifo, device, world):
    if world.rank:
        os.write(os.open(fifo, os.O_WRONLY), b"here")
    threading.Event().wait()
    yield

if __name__ == "__main__":
    list(across(2, "cpu", rows, fifo=sys.argv[1]))
"""


@pytest.mark.slow
def test_no_process_outlives_a_first_one_that_is_killed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "script.py").write_text(WAITING)
    command = [sys.executable, tmp_path / "script.py", tmp_path / "fifo"]
    with subprocess.Popen(command) as first, (tmp_path / "fifo").open("rb", buffering=0) as stream:
        assert stream.read(4) == b"here"
        first.kill()
        ended, _, _ = select.select([stream], [], [], 60)
        assert ended and stream.read(1) == b"", "the second process is still there"


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda backend, **_: done.append(backend))
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: False)
    rows = distributed._joined(1, 2, "file:///nowhere", "cuda", lambda device, world: iter([device]), {})
    assert list(rows) == ["cuda:1"] and done == ["cuda:1", "nccl"]


def test_slices_of_a_gpu_of_which_a_process_sees_one_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"given 2 GPUs, and sees 1: .*MIG"):
        next(across(2, "cuda", train_proxy))


def test_the_first_process_does_not_wait_for_the_others_when_it_alone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """An orderly end of nccl waits for every process of a node, and they wait for gradients."""
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda backend, **_: None)
    monkeypatch.setattr(distributed.dist, "get_backend", lambda: "nccl")
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: not done)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: done.append("orderly"))
    monkeypatch.setattr(distributed.dist.distributed_c10d, "_abort_process_group", lambda: done.append("at once"))

    def stopped(device: str, world: World) -> Iterator[None]:
        yield
        raise Interrupted("asked to stop")

    with pytest.raises(Interrupted):
        list(distributed._joined(0, 2, "file:///nowhere", "cuda", stopped, {}))
    assert done == ["at once"]


STOPPED = """
import sys, threading
from raymix.proxy.distributed import across

def rows(device, world):
    if world.rank:
        world.in_turn(lambda: None)
        threading.Event().wait()
    yield "here"
    raise ValueError("the first alone")

if __name__ == "__main__":
    try:
        list(across(2, "cpu", rows))
    except ValueError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_first_process_that_ends_alone_ends_the_others(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(STOPPED)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=120)
    assert done.stdout == "the first alone\n", done.stderr


def test_a_batch_is_divided_evenly_or_not_at_all() -> None:
    assert [World(rank, 4).rows(8) for rank in range(4)] == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
    with pytest.raises(ValueError, match="batch of 6 sequences cannot be divided among 4 devices"):
        World(0, 4).rows(6)


@pytest.mark.parametrize(
    ("world", "order"), [(World(), ["read"]), (World(0, 2), ["read", "wait"]), (World(1, 2), ["wait", "read"])]
)
def test_the_first_process_fetches_what_the_others_find(
    monkeypatch: pytest.MonkeyPatch, world: World, order: list[str]
) -> None:
    done: list[str] = []
    monkeypatch.setattr(distributed.dist, "barrier", lambda: done.append("wait"))
    assert world.in_turn(lambda: done.append("read") or "found") == "found"
    assert done == order


def test_only_long_trials_are_compiled(make_space: MakeSpace) -> None:
    recipe = make_space(batch=8, context=256).recipe
    short, long = (resolve(recipe, 0.79e6, n_tokens, 4096) for n_tokens in (1e6, 1e9))
    cuda = torch.device("cuda")
    for device in (CPU, cuda):
        assert not worth_compiling("auto", short, device)
        assert worth_compiling("auto", long, device)
    assert worth_compiling("always", short, CPU)
    assert not worth_compiling("never", long, cuda)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs a C++ compiler")
def test_a_compiled_run_gives_the_losses_of_an_eager_one(corpus: Corpus, make_space: MakeSpace) -> None:
    mix_K = np.asarray([0.3, 0.7])
    expected = list(train_proxy(corpus, make_space(precision="float32"), mix_K, device="cpu", **SETTINGS))
    found = list(
        train_proxy(corpus, make_space(compile="always", precision="float32"), mix_K, device="cpu", **SETTINGS)
    )
    for row, eager in zip(found, expected, strict=True):
        assert row["loss/a"] == pytest.approx(eager["loss/a"], abs=1e-4)
