"""Datasets by name: local repositories of every form, chunk by chunk; a clear error where the hub is out of reach."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from raymix.corpus import hub, prepare, sources
from raymix.space import SearchSpace, Source, SpaceError

datasets = pytest.importorskip("datasets")

TEXTS = [f"text {i}" for i in range(40)]


def read(folder: Path, **source: Any) -> list[str]:
    hub._load.cache_clear()
    return [document.text for document in sources.documents(Source.model_validate(source), folder)]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A dataset repository as the hub has them: two configs, two splits, a card that names the files."""
    root = tmp_path / "repo"
    for config in ("en", "de"):
        (root / config).mkdir(parents=True)
        for split, texts in (("train", TEXTS), ("test", TEXTS[:3])):
            table = pa.table({"body": [f"{config} {t}" for t in texts], "meta": [{"n": i} for i in range(len(texts))]})
            pa.parquet.write_table(table, root / config / f"{split}.parquet", row_group_size=10)
    configs = [
        {"config_name": c, "data_files": [{"split": s, "path": f"{c}/{s}.parquet"} for s in ("train", "test")]}
        for c in ("en", "de")
    ]
    (root / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    return root


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("streaming", [True, False])
def test_config_split_field_and_filter_are_heeded(
    tmp_path: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    source = {"dataset": "repo", "config": "de", "text": "body", "streaming": streaming}
    assert read(tmp_path, **source) == [f"de {text}" for text in TEXTS]
    assert read(tmp_path, **source, split="test") == [f"de {text}" for text in TEXTS[:3]]
    assert read(tmp_path, **source, where={"meta.n": {"min": 38}}) == ["de text 38", "de text 39"]


@pytest.mark.usefixtures("repository")
def test_a_streamed_dataset_is_cut_at_its_row_groups(tmp_path: Path) -> None:
    hub._load.cache_clear()
    source = Source(dataset="repo", config="en", text="body")
    chunks = list(sources.plan(source, tmp_path))
    assert len(chunks) == 4
    found = [document.text for document in sources.read(source, chunks[2], tmp_path)]
    assert found == [f"en {text}" for text in TEXTS[20:30]]


@pytest.mark.usefixtures("repository")
def test_of_many_files_none_is_opened_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"dataset": "repo", "config": "en", "text": "body"}
    by_groups = list(sources.plan(Source.model_validate(source), tmp_path))
    hub.forget()
    monkeypatch.setattr(hub, "FEW", 1)
    assert read(tmp_path, **source) == [f"en {text}" for text in TEXTS]
    by_files = list(sources.plan(Source.model_validate(source), tmp_path))
    assert len(by_files) == 1 and by_files[0] not in by_groups  # or a part of a group is taken for the file's


@pytest.mark.parametrize("streaming", [True, False])
def test_columns_that_nobody_asks_for_are_not_decoded(
    tmp_path: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features({"text": datasets.Value("string"), "scan": datasets.Image()})
    no_image = [{"bytes": b"none", "path": None}] * len(TEXTS)
    (tmp_path / "scans").mkdir()
    table = pa.table({"text": TEXTS, "scan": no_image}, schema=features.arrow_schema)
    pa.parquet.write_table(table, tmp_path / "scans" / "train.parquet")
    assert read(tmp_path, dataset="scans", streaming=streaming) == TEXTS


def test_a_saved_dataset_is_cut_by_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "SMALLEST", 64)
    saved = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": TEXTS})})
    saved.save_to_disk(tmp_path / "saved")
    assert len(list(sources.plan(Source(dataset="saved"), tmp_path))) > 4
    assert read(tmp_path, dataset="saved") == TEXTS
    saved["train"].save_to_disk(tmp_path / "one")
    assert read(tmp_path, dataset="one") == TEXTS
    with pytest.raises(SpaceError, match="saved without splits, so there is no split 'dev'"):
        read(tmp_path, dataset="one", split="dev")


def test_a_changed_local_dataset_is_read_anew_by_the_same_process(
    make_space: Callable[..., SearchSpace], tmp_path: Path, texts: Callable[[int, int], list[str]]
) -> None:
    sources_of = {"a": {"dataset": "saved"}, "b": {"files": "b.jsonl"}}
    space = make_space(domains=[{"name": name, "source": source} for name, source in sources_of.items()])
    for n in (60, 90):
        shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        datasets.Dataset.from_dict({"text": texts(n, 3)}).save_to_disk(tmp_path / "saved")
        manifest = prepare(space, tmp_path / "cache").manifest
        assert manifest["train"]["a"]["documents"] + manifest["eval"]["a"]["documents"] == n


@pytest.mark.usefixtures("repository")
def test_what_the_repository_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"dataset 'repo' \(config 'fr'.*cannot be loaded.*'en'|'en'.*'de'"):
        read(tmp_path, dataset="repo", config="fr", text="body")
    with pytest.raises(SpaceError, match=r"dataset 'repo'.*split 'dev'.*cannot be loaded"):
        read(tmp_path, dataset="repo", config="en", split="dev", text="body")
    with pytest.raises(SpaceError, match=r"no field 'text'.*body, meta"):
        read(tmp_path, dataset="repo", config="en")


def test_the_commit_that_was_read_is_known_or_not_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class Answer:
        sha = "abc123"

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, revision=None: Answer())
    assert hub.commit(Source(dataset="org/name"), tmp_path) == "abc123"

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    assert hub.commit(Source(dataset="org/name"), tmp_path) is None
    assert hub.commit(Source(files="x.jsonl"), tmp_path) is None


@pytest.mark.slow
def test_offline_is_exit_code_2_and_one_sentence(tmp_path: Path) -> None:
    domains = [{"name": n, "source": {"dataset": f"org/{n}"}} for n in "ab"]
    space = {
        "name": "away",
        "domains": domains,
        "eval_domains": [{"name": "a", "own": "a"}],
        "ladder": [{"n_params": 1e4, "n_tokens": 1e4}],
        "target": {"n_params": 1e5, "n_tokens": 1e5},
    }
    (tmp_path / "space.yaml").write_text(json.dumps(space))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "RAYMIX_CACHE": str(tmp_path / "c")}
    words = [sys.executable, "-m", "raymix", "prepare", str(tmp_path / "space.yaml")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("raymix:")]
    assert "domain 'a': dataset 'org/a'" in sentence
    assert "without network, give the folder of a local copy" in sentence
    assert "Traceback" not in done.stderr
