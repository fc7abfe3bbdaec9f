"""A run that is stopped anywhere goes on with the same tokens and ends with the same bits; damage is seen."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from raymix.corpus import Corpus
from raymix.proxy import checkpoint, loop, resolve
from raymix.proxy.checkpoint import Checkpoints, Interrupted, Snapshot
from raymix.proxy.plan import Batches
from raymix.proxy.train import train_proxy
from raymix.space import SearchSpace

MakeSpace = Callable[..., SearchSpace]
MIX = np.asarray([0.3, 0.7])
STEPS = 12


class Watched:
    """A run under observation: the tokens of every step, the mean losses it is judged by, and a stop after a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, corpus: Corpus, space: SearchSpace, folder: Path) -> None:
        self.corpus, self.space, self.folder = corpus, space, folder
        self.tokens: dict[int, Any] = {}
        self.looks: dict[int, float] = {}
        self.run: Any = None
        self.stop_after, self.checkpoints = -1, Checkpoints(folder)
        taken, judged = loop.Run.step, loop.verdict

        def step(run: loop.Run, step: int, batch: Any) -> None:
            self.run, self.tokens[step] = run, batch.copy()
            taken(run, step, batch)
            self.checkpoints.stopping = step == self.stop_after

        def verdict(mean: float, step: int, shape: Any) -> str | None:
            self.looks[step] = mean
            return judged(mean, step, shape)

        monkeypatch.setattr(loop.Run, "step", step)
        monkeypatch.setattr(loop, "verdict", verdict)

    def rows(self, stop_after: int = -1, mix_K: Any = MIX, seed: int = 0) -> Iterator[dict[str, Any]]:
        self.stop_after, self.checkpoints = stop_after, Checkpoints(self.folder)
        rows = train_proxy(
            self.corpus, self.space, mix_K, 1e4, STEPS * 128, seed, "cpu", 1, "eager", checkpoints=self.checkpoints
        )
        yield from ({key: value for key, value in row.items() if key != "seconds"} for row in rows)


@pytest.fixture
def make_watched(
    monkeypatch: pytest.MonkeyPatch, corpus: Corpus, make_space: MakeSpace, tmp_path: Path
) -> Callable[..., Watched]:
    return lambda **recipe: Watched(monkeypatch, corpus, make_space(**recipe), tmp_path / "checkpoints")


@pytest.mark.parametrize("recipe", [{}, {"family": "bert", "schedule": "wsd", "micro_batch": 3}], ids=["gpt2", "bert"])
def test_a_run_stopped_at_any_step_ends_with_the_same_bits(make_watched: Callable[..., Watched], recipe: Any) -> None:
    watched = make_watched(**recipe)
    rows = list(watched.rows())
    tokens, looks = dict(watched.tokens), dict(watched.looks)
    weights = [param.detach().clone() for param in watched.run.params]
    for stop in range(STEPS - 1):
        watched.tokens = {}
        seen = []
        with pytest.raises(Interrupted, match=f"saved at step {stop + 1} of {STEPS}"):
            seen.extend(watched.rows(stop_after=stop))
        assert sorted(watched.tokens) == list(range(stop + 1))
        again = list(watched.rows())
        assert again == rows and watched.looks == looks
        assert sorted(watched.tokens) == list(range(STEPS))  # every step taken once
        assert all(np.array_equal(watched.tokens[step], tokens[step]) for step in tokens)
        assert all(torch.equal(param, known) for param, known in zip(watched.run.params, weights, strict=True))
        watched.checkpoints.remove()
        assert not watched.folder.exists()


def test_a_damaged_checkpoint_is_passed_over_for_its_predecessor(
    make_watched: Callable[..., Watched], caplog: pytest.LogCaptureFixture
) -> None:
    watched = make_watched()
    rows = list(watched.rows())
    for stop in (3, 9):
        with pytest.raises(Interrupted):
            list(watched.rows(stop_after=stop))
    older, newer = sorted(watched.folder.iterdir())
    for name in ("weights.safetensors", "rest.safetensors", "state.json"):
        good = (newer / name).read_bytes()
        for at in (len(good) // 3, len(good) - 2, good.find(b'"loss/a": ') + 13):  # the last also a digit of a loss
            (newer / name).write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            watched.tokens = {}
            assert list(watched.rows()) == rows
            assert min(watched.tokens) == 4  # from the older one
            assert f"{newer.name}: cannot be resumed from" in caplog.text
            caplog.clear()
        (newer / name).write_bytes(good[:-7])
        watched.tokens = {}
        assert list(watched.rows()) == rows
        assert min(watched.tokens) == 4
        (newer / name).write_bytes(good)
    (older / "state.json").unlink()
    (newer / "weights.safetensors").unlink()
    watched.tokens = {}
    assert list(watched.rows()) == rows
    assert min(watched.tokens) == 0  # none left: from the start


def test_a_checkpoint_of_another_run_is_not_taken_up(make_watched: Callable[..., Watched]) -> None:
    watched = make_watched()
    with pytest.raises(Interrupted):
        list(watched.rows(stop_after=5))
    for other in ({"seed": 1}, {"mix_K": np.asarray([0.31, 0.69])}):
        watched.tokens = {}
        list(watched.rows(**other))
        assert min(watched.tokens) == 0


def test_two_are_kept_and_saving_takes_a_small_part_of_the_time(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", every_seconds=0)
    for step in (5, 10, 15):
        checkpoints.save("run", Snapshot(step, {"w": torch.arange(3)}, {}, {"rows": []}))
    assert [path.name for path in sorted(checkpoints.folder.iterdir())] == ["step-00000010", "step-00000015"]
    found = checkpoints.latest("run")
    assert found is not None and found.step == 15 and torch.equal(found.weights["w"], torch.arange(3))
    assert checkpoints.latest("other") is None
    checkpoints._cost = 1e6  # a large model on a slow disk
    assert not checkpoints.due()
    checkpoints.stopping = True
    assert checkpoints.due()


def test_a_disk_too_full_for_a_checkpoint_is_named_and_ends_no_run(
    make_watched: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that has no room for a checkpoint may well have room for the trial's result."""

    def full(*args: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    watched = make_watched(checkpoint_seconds=1e-9)
    expected = list(watched.rows())
    rows = watched.rows(stop_after=5)
    with pytest.raises(Interrupted):
        list(rows)
    before = [path.name for path in watched.folder.iterdir()]
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(Interrupted):
        list(watched.rows(stop_after=8))
    assert [path.name for path in watched.folder.iterdir()] == before
    assert re.search(r"not saved, .*weights.safetensors: cannot be written .*No space left", caplog.text)
    assert list(watched.rows()) == expected


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_plan_is_the_same_whatever_the_number_of_workers(
    corpus: Corpus, make_space: MakeSpace, workers: int
) -> None:
    space = make_space()
    shape = resolve(space.recipe, 1e4, 30 * 128, corpus.vocab)
    alone = [Batches.of(corpus, space, MIX, 0, shape)[step] for step in range(shape.n_steps)]
    shared = Batches.of(corpus, space, MIX, 0, shape)
    with ThreadPoolExecutor(workers) as pool:
        spread = list(pool.map(shared.__getitem__, range(shape.n_steps)))
    each = [Batches.of(corpus, space, MIX, 0, shape) for _ in range(workers)]  # as processes would
    taken = [each[step % workers][step] for step in range(shape.n_steps)]
    for step, known in enumerate(alone):
        assert np.array_equal(spread[step], known)
        assert np.array_equal(taken[step], known)
