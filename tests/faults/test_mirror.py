"""Checkpoints of a study in an object store: copied, found elsewhere, never in the way of the run."""

import logging
from pathlib import Path

import pytest
import torch

from raymix.on_ray.kept import FINAL, Kept
from raymix.proxy.checkpoint import KEPT, Checkpoints, Snapshot
from raymix.store import Store
from raymix.store.mirror import Mirror
from tests.faults.object_store import ObjectStore

RUN = "a run"


@pytest.fixture
def mirror(s3: ObjectStore, request: pytest.FixtureRequest) -> Mirror:
    """Where the checkpoints of a study of this test are copied to."""
    found = Store(s3.uri(request.node.name)).mirror("checkpoints")
    assert found is not None
    return found


def snapshot(step: int) -> Snapshot:
    return Snapshot(step, {"weight": torch.full((3,), float(step))}, {"moment": torch.ones(2)}, {"seconds": 1.0})


def saved(checkpoints: Checkpoints, *steps: int) -> Checkpoints:
    for step in steps:
        checkpoints.save(RUN, snapshot(step))
    return checkpoints


def test_a_directory_needs_no_copies(tmp_path: Path) -> None:
    assert Store(tmp_path).mirror("checkpoints") is None


def test_a_checkpoint_is_found_on_another_machine(tmp_path: Path, mirror: Mirror) -> None:
    first, second = Kept(tmp_path / "first", mirror), Kept(tmp_path / "second", mirror)
    saved(first.of("t1"), 1, 2, 3)
    assert mirror.of("t1").names() == ["step-00000002", "step-00000003"][-KEPT:]
    found = second.of("t1").latest(RUN)
    assert found is not None
    assert (found.step, float(found.weights["weight"][0])) == (3, 3.0)
    assert second.of("t2").latest(RUN) is None
    saved(second.of("t1"), 7)
    back = first.of("t1").latest(RUN)  # the one here is older than the copy
    assert back is not None
    assert back.step == 7


def test_a_damaged_checkpoint_is_fetched_again(
    tmp_path: Path, mirror: Mirror, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saved(Kept(tmp_path, mirror).of("t1"), 4)
    weights = checkpoints.folder / "step-00000004" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found = checkpoints.latest(RUN)
    assert found is not None
    assert float(found.weights["weight"][-1]) == 4.0
    assert "sha256" in caplog.text


def test_a_half_sent_copy_is_passed_over_for_its_predecessor(tmp_path: Path, mirror: Mirror) -> None:
    saved(Kept(tmp_path / "first", mirror).of("t1"), 1, 2)
    mirror.objects.delete("checkpoints/t1/step-00000002/state.json")
    found = Kept(tmp_path / "second", mirror).of("t1").latest(RUN)
    assert found is not None
    assert found.step == 1


def test_a_store_that_refuses_copies_ends_no_run(
    tmp_path: Path, s3: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    missing = Store(s3.uri("x").replace("bucket/", "no-such-bucket/")).mirror("checkpoints")
    with caplog.at_level(logging.WARNING):
        found = saved(Kept(tmp_path, missing).of("t1"), 5).latest(RUN)
    assert found is not None
    assert found.step == 5
    assert "not copied, so only this machine can go on from it" in caplog.text


def test_what_has_ended_is_forgotten_in_both_places_but_its_model_stays(tmp_path: Path, mirror: Mirror) -> None:
    kept = Kept(tmp_path / "here", mirror)
    for trial_id in ("ended", "ended before", "pending"):
        saved(kept.of(trial_id), 1)
    final = kept.folder / "ended" / FINAL
    final.mkdir()
    (final / "config.json").write_text("{}")
    kept.copy_final("ended")
    kept.forget("ended")
    Kept(tmp_path / "another machine", mirror).forget_all_but({"ended", "pending"})
    assert mirror.of("ended").names() == [FINAL]
    assert mirror.of("ended before").names() == []
    assert mirror.of("pending").names() == ["step-00000001"]
    assert final.is_dir()
