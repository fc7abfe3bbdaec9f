"""Rows 1, 2 and 25 of the faults: the driver of a study on Ray, or its whole machine, gone; on a disk and on S3."""

from pathlib import Path

import pytest

from tests.faults import real_study
from tests.faults.object_store import ObjectStore

pytestmark = pytest.mark.slow  # seven starts of Ray


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study to be equal to, beside its corpora."""
    folder = tmp_path_factory.mktemp("kill")
    real_study.write(folder)
    process = real_study.start(folder, "unkilled")
    assert "finished" in list(real_study.events(process))
    assert process.wait() == 0, (folder / "unkilled.log").read_text()
    return folder / "unkilled"


def test_a_study_whose_driver_is_killed_ends_like_one_that_is_not(unkilled: Path) -> None:
    folder, study = unkilled.parent, unkilled.with_name("killed")
    known: set[str] = set()
    for n_ended in (0, 2):  # at the start, and within the rounds; benchmarks/chaos.py kills at random
        process = real_study.start(folder, "killed")
        for event in real_study.events(process):
            n_ended -= event == "ended"
            if n_ended <= 0:
                break
        process.kill()
        process.wait()
        assert real_study.done(study) >= known
        known = real_study.done(study)
        real_study.kill_all(process)  # what Ray has not yet ended by itself
    process = real_study.start(folder, "killed")
    list(real_study.events(process))
    assert process.wait() == 0, (folder / "killed.log").read_text()
    assert_equal(study, unkilled)


def test_a_study_on_s3_goes_on_from_another_machine(unkilled: Path, s3: ObjectStore) -> None:
    """A machine is lost in mid-trial; another one has nothing of it but the bucket, checkpoints included."""
    folder, where = unkilled.parent, s3.uri("lost")
    process = real_study.start(folder, "lost", where, "first-machine")
    for event in real_study.events(process):
        if event == "checkpoint":
            break
    real_study.kill_all(process)
    saved = {path.split("/")[-3] for path in sent(s3, "PUT")}
    assert saved
    interrupted = saved - real_study.done(where)
    process = real_study.start(folder, "lost", where, "second-machine")
    list(real_study.events(process))
    assert process.wait() == 0, (folder / "lost.log").read_text()
    assert_equal(where, unkilled)
    assert interrupted <= {path.split("/")[-3] for path in sent(s3, "GET")}
    assert (folder / "second-machine").is_dir()


def sent(s3: ObjectStore, method: str) -> list[str]:
    """Weights of checkpoints that went to the store, or came from it."""
    return [path for verb, path in s3.requests if verb == method and path.endswith("/weights.safetensors")]


def assert_equal(study: Path | str, unkilled: Path) -> None:
    proposed, ended = real_study.ended_in(study)
    assert sorted(ended) == sorted(proposed)  # each once, and none again after its end
    assert proposed == real_study.ended_in(unkilled)[0]
    assert real_study.recommendation(study) == pytest.approx(real_study.recommendation(unkilled), abs=1e-9)
