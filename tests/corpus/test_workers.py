"""Whoever tokenises, and however often it is killed: the same bytes, and nothing finished is done again."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymix.corpus import CorpusError, files, parts, prepare, workers
from raymix.corpus.files import Chunk
from raymix.corpus.parts import Job, Part
from raymix.corpus.prepare import _locked
from raymix.corpus.workers import Feed
from raymix.space import SearchSpace, Source, SpaceError, Tokenizer

MakeSpace = Callable[..., SearchSpace]
Texts = Callable[[int, int], list[str]]
Write = Callable[[Path, list[str]], Path]


@pytest.fixture
def large(make_space: MakeSpace, tmp_path: Path, texts: Texts, write_jsonl: Write) -> SearchSpace:
    """Domains of some hundred kilobytes."""
    for seed, name in enumerate("ab"):
        write_jsonl(tmp_path / f"{name}.jsonl", texts(1500, seed))
    return make_space()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def staging(cache: Path) -> list[Path]:
    return sorted((cache / "parts").glob("*/source-*/*.json"))


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_number_of_workers(large: SearchSpace, tmp_path: Path) -> None:
    made = {n: prepare(large, tmp_path / str(n), workers=n) for n in (1, 3)}
    first = bytes_of(made[1].path)
    assert len(first) == 6
    assert bytes_of(made[3].path) == first


def noted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Will hold the parts that are made, not those that are found finished."""
    made: list[Path] = []
    make = parts._make

    def note(job: Job, source: Any) -> Part:
        made.append(job.stem)
        return make(job, source)

    monkeypatch.setattr(parts, "_make", note)
    return made


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from raymix.corpus import files, prepare
    from raymix.space import SearchSpace

    if __name__ == "__main__":
        files.SMALLEST = 16_000
        def tell(stage, done):
            if stage == "tokenise" and done > 0.3:
                os.kill(os.getpid(), signal.SIGKILL)
        prepare(SearchSpace.load(sys.argv[1]), Path(sys.argv[2]), tell, workers=2)
"""


@pytest.mark.slow
def test_a_kill_loses_no_finished_part(large: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SMALLEST", 16_000)
    (tmp_path / "space.yaml").write_text(large.model_dump_json(exclude_none=True))
    (tmp_path / "killed.py").write_text(textwrap.dedent(KILLED))
    words = [sys.executable, str(tmp_path / "killed.py"), str(tmp_path / "space.yaml"), str(tmp_path / "cache")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    process.communicate(timeout=300)  # returns when the last process that holds the pipe is gone: the workers too
    assert process.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in staging(tmp_path / "cache")}
    assert len(kept) >= 5
    made = noted(monkeypatch)
    resumed = prepare(large, tmp_path / "cache", workers=1)
    stems = {path.with_suffix("") for path in kept}
    assert made
    assert not stems & set(made)
    whole = prepare(large, tmp_path / "uninterrupted", workers=1)
    assert bytes_of(resumed.path) == bytes_of(whole.path)
    assert list((tmp_path / "cache" / "parts").iterdir()) == []


class Stopped(Exception):  # noqa: N818
    """Where a test interrupts."""


def interrupted(space: SearchSpace, cache: Path) -> list[Path]:
    def tell(stage: str, done: float) -> None:
        if stage == "tokenise" and done > 0.5:
            raise Stopped

    with pytest.raises(Stopped):
        prepare(space, cache, tell, workers=1)
    return staging(cache)


@pytest.mark.parametrize("ending", [".ids", ".npy", ".json"])
def test_a_damaged_part_is_made_again(
    large: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(files, "SMALLEST", 16_000)
    receipt = interrupted(large, tmp_path / "cache")[2]
    victim = receipt.with_suffix(ending)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.write_bytes(data)
    resumed = prepare(large, tmp_path / "cache", workers=1)
    assert resumed.hash == prepare(large, tmp_path / "whole", workers=1).hash


def test_what_does_not_change_the_tokens_keeps_the_parts(
    make_space: MakeSpace, tmp_path: Path, texts: Texts, write_jsonl: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "exams.jsonl", texts(2, 0))
    evals = [{"name": "exams", "source": {"files": "exams.jsonl"}}]
    with pytest.raises(SpaceError, match="allow_eval_overlap"):
        prepare(make_space(eval_domains=evals), tmp_path / "cache")
    monkeypatch.setattr(parts, "_make", lambda *_: pytest.fail("a finished part was made again"))
    prepare(make_space(eval_domains=evals, allow_eval_overlap=True), tmp_path / "cache")


def test_two_preparations_of_one_corpus_do_it_once(
    large: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = noted(monkeypatch)
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(prepare(large, tmp_path / "cache", workers=1).hash))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert len(count) == len(set(count))


def test_a_cache_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "scratch" / "gone")
    with pytest.raises(FileExistsError), _locked(tmp_path / "link" / "parts" / "key"):
        pass


@pytest.mark.parametrize("moment", ["mkdir", "open"])
def test_a_folder_taken_away_before_it_is_locked_is_made_again(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another preparation ends between our making the folder and our locking it, or between two looks of mkdir."""
    staging, whole, times = tmp_path / "parts", getattr(Path, moment), []

    def late(path: Path, *args: Any, **settings: Any) -> Any:
        if path in (staging, staging / "lock") and not times:
            times.append(path)
            if moment == "mkdir":
                raise FileExistsError(path)
            staging.rmdir()
        return whole(path, *args, **settings)

    monkeypatch.setattr(Path, moment, late)
    with _locked(staging) as found:
        assert found.is_dir()
    assert times


def test_lock_is_free_once_its_holder_is_dead(large: SearchSpace, tmp_path: Path) -> None:
    folder = interrupted(large, tmp_path / "cache")[0].parents[1]
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl,sys;f=open(sys.argv[1]);fcntl.flock(f,2);print(flush=True);input()",
         str(folder / "lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    with (folder / "lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    threading.Timer(0.2, holder.kill).start()
    assert prepare(large, tmp_path / "cache", workers=1).tokens["a"] > 0
    holder.wait()


def test_limits_cut_at_the_document_that_reaches_them(
    make_space: MakeSpace, tmp_path: Path, texts: Texts, write_jsonl: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SMALLEST", 2000)
    write_jsonl(tmp_path / "a.jsonl", texts(300, 0))
    sources: dict[str, dict[str, float]] = {"max_tokens": {"max_tokens": 9000}, "megabytes": {"megabytes": 0.02}}
    for key, limit in sources.items():
        domains = [
            {"name": "a", "source": {"files": "a.jsonl", **limit}},
            {"name": "b", "source": {"files": "b.jsonl"}},
        ]
        corpus = prepare(make_space(domains=domains), tmp_path / key, workers=1)
        entries = [corpus.manifest[side]["a"] for side in ("train", "eval")]
        have = sum(entry["tokens" if key == "max_tokens" else "text_bytes"] for entry in entries)
        most = max(len(text) for text in texts(300, 0)) + 1
        assert (goal := next(iter(limit.values())) * (1 if key == "max_tokens" else 1e6)) <= have < goal + most


def feed(n_chunks: int, tmp_path: Path, **limit: Any) -> Feed:
    chunks = iter([Chunk("lines", ("x",), size=10)] * n_chunks)
    source = Source.model_validate({"files": "x", **limit})
    return Feed(source, tmp_path, chunks, 10 * n_chunks, lambda c, i: Job(source, tmp_path, c, tmp_path, tmp_path, 0))


def test_no_more_is_asked_of_a_limited_source_than_it_needs(tmp_path: Path) -> None:
    limited = feed(100, tmp_path, max_tokens=1000)
    assert limited.next() is not None
    assert limited.next() is None  # the first part tells how much the others give
    limited.done(0, Part(tmp_path, 1, 300, 1200), 10)
    assert [limited.next() is not None for _ in range(4)] == [True, True, True, False]
    for i in (2, 3, 1):
        limited.done(i, Part(tmp_path, 1, 300, 1200), 10)
    assert limited.next() is None
    assert len(limited.in_order()) == 4
    assert limited.fraction() == 1.0


def test_a_source_without_limit_gives_all_and_one_that_falls_short_goes_on(tmp_path: Path) -> None:
    every = feed(5, tmp_path)
    assert [every.next() is not None for _ in range(6)] == [True] * 5 + [False]
    poor = feed(3, tmp_path, megabytes=1)
    for i in range(3):
        assert poor.next() is not None
        poor.done(i, Part(tmp_path, 0, 0, 0), 10)  # a filter let nothing through
    assert poor.next() is None
    assert poor.fraction() == 1.0


def test_a_filter_that_stops_everything_is_named(make_space: MakeSpace, tmp_path: Path) -> None:
    source = {"files": "a.jsonl", "where": {"lang": "en"}}
    space = make_space(domains=[{"name": "a", "source": source}, {"name": "b", "source": {"files": "b.jsonl"}}])
    with pytest.raises(SpaceError, match=r"'a' has no text.*filter \(lang\) lets nothing through"):
        prepare(space, tmp_path / "cache")


def test_origins_of_a_field_are_held_out_together(make_space: MakeSpace, tmp_path: Path, texts: Texts) -> None:
    import json

    rows = [{"text": text, "repo": f"repo {i % 12}"} for i, text in enumerate(texts(240, 0))]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"files": "a.jsonl", "origin": "repo"}
    space = make_space(domains=[{"name": "a", "source": source}, {"name": "b", "source": {"files": "b.jsonl"}}])
    corpus = prepare(space, tmp_path / "cache")
    assert corpus.manifest["eval"]["a"]["documents"] % 20 == 0  # 20 documents of each of 12 repositories


@pytest.mark.slow
def test_a_worker_that_dies_is_a_clear_error_and_loses_nothing(
    large: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SMALLEST", 16_000)

    def tell(stage: str, done: float) -> None:
        if stage == "tokenise" and 0.2 < done < 0.9:
            import multiprocessing

            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(CorpusError, match=r"a worker died.*run the same command again"):
        prepare(large, tmp_path / "cache", tell, workers=2)
    assert staging(tmp_path / "cache")
    assert prepare(large, tmp_path / "cache", workers=1).hash == prepare(large, tmp_path / "whole", workers=1).hash


@pytest.mark.slow
def test_a_script_whose_workers_begin_it_anew_ends_with_the_reason(large: SearchSpace, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(large.model_dump_json(exclude_none=True))
    unguarded = textwrap.dedent(KILLED).replace('if __name__ == "__main__":', "if True:")
    (tmp_path / "unguarded.py").write_text(unguarded)
    words = [sys.executable, str(tmp_path / "unguarded.py"), str(tmp_path / "space.yaml"), str(tmp_path / "cache")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, start_new_session=True)
    assert done.returncode == 1
    assert "a script of yours that lacks its" in done.stderr.splitlines()[-1]


def test_a_full_disk_is_named_and_keeps_no_half_of_a_part(
    large: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(OSError, match=r"cache: .*No space left.*free some space there"):
            prepare(large, tmp_path / "cache", workers=1)
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    assert prepare(large, tmp_path / "cache", workers=1).hash == prepare(large, tmp_path / "whole", workers=1).hash


def test_small_text_starts_no_processes(tmp_path: Path) -> None:
    with workers.executor(None, 1e6, tmp_path) as (pool, n):
        assert (type(pool), n) == (workers.SerialExecutor, 1)


@pytest.mark.slow
def test_cluster_tasks_make_the_same_bytes(large: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    here = prepare(large, tmp_path / "here", workers=1)
    with tempfile.TemporaryDirectory(prefix="rm") as short:  # Ray's sockets need a short path
        ray.init(address="local", num_cpus=2, include_dashboard=False, _temp_dir=short)
        try:
            monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
            there = prepare(large, tmp_path / "there")
            (tmp_path / "b.jsonl").write_text("{}\n" * 9)
            space = large.model_copy(update={"tokenizer": Tokenizer(name=str(here.path / "tokenizer.json"))})
            with pytest.raises(SpaceError, match=r"domain 'b'.*no field 'text'"):
                prepare(space, tmp_path / "broken")
        finally:
            ray.shutdown()
    assert bytes_of(there.path) == bytes_of(here.path)


def test_a_lost_task_that_cannot_be_begun_again_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    from raymix.corpus import on_ray

    def full(*_: Any) -> None:
        raise OSError("no room")

    pool, answer, ended = on_ray.RayExecutor(), Future[Any](), Future[Any]()
    monkeypatch.setattr(pool, "_begin", full)
    ended.add_done_callback(partial(pool._ended, answer, print, 0))
    ended.set_exception(ray.exceptions.WorkerCrashedError())
    with pytest.raises(OSError, match="no room"):
        answer.result(timeout=0)


@pytest.mark.slow
def test_a_task_that_ray_kills_for_memory_is_tried_so_often_and_no_oftener(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    from raymix.corpus import on_ray

    monkeypatch.setattr(on_ray, "PAUSES", (0.0, 0.0))
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")  # any node is full
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    with tempfile.TemporaryDirectory(prefix="rm") as short:
        ray.init(address="local", num_cpus=2, include_dashboard=False, _temp_dir=short)
        try:
            waits = on_ray.RayExecutor().submit(time.sleep, 600.0)
            with pytest.raises(CorpusError, match=r"tokenised 3 times.*memory of its node was full.*fewer cores"):
                waits.result(timeout=300)
        finally:
            ray.shutdown()
