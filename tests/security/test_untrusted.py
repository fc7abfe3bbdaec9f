"""A study, a table, a law, a tokenizer that somebody sends is data: nothing in it is ever run."""

import ast
import contextlib
import json
import pickle
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import raymix
from raymix import SearchSpace, Study
from raymix.formats import FORMATS, import_runs
from raymix.results import write_results
from raymix.sheet import read_sheet
from raymix.tables.law_file import read_law
from tests import worlds

SOURCE = Path(raymix.__file__).parent


SECRETS = {
    "HF_TOKEN": "hf_canarycanary1",
    "AWS_SECRET_ACCESS_KEY": "awscanarycanary2",
    "WANDB_API_KEY": "wbcanarycanary3",
}


class Canary:
    """A pickle of this makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study with all its derived files and a failed trial, made where the environment holds secrets."""
    folder = tmp_path_factory.mktemp("untrusted") / "study"
    with pytest.MonkeyPatch.context() as environment:
        for name, value in SECRETS.items():
            environment.setenv(name, value)
        with Study.create(worlds.space(), folder, seed=0).writing() as ledger:
            worlds.play(ledger)
            ledger.fail(ledger.ask(1)[0].trial_id, "no reason")
        write_results(Study.open(folder))
    return folder


def test_the_canary_sings_where_a_pickle_is_loaded(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Canary(tmp_path / "sung"))).close()
    assert (tmp_path / "sung").exists()


def test_no_file_of_a_study_is_loaded_as_a_pickle(study: Path, tmp_path: Path) -> None:
    study = shutil.copytree(study, tmp_path / "study")
    canary, files = tmp_path / "sung", [file for file in study.rglob("*") if file.is_file()]
    assert len(files) > 12
    for file in files:
        content = file.read_bytes()
        for poison in (pickle.dumps(Canary(canary)), pickle.dumps(Canary(canary), protocol=0)):
            file.write_bytes(poison)
            with contextlib.suppress(Exception):
                opened = Study.open(study)
                opened.table()
                with opened.writing():
                    pass
            assert not canary.exists(), file
        file.write_bytes(content)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json", ".csv.gz"])
def test_no_table_or_law_is_loaded_as_a_pickle(tmp_path: Path, suffix: str) -> None:
    canary, file = tmp_path / "sung", tmp_path / f"sent{suffix}"
    file.write_bytes(pickle.dumps(Canary(canary)))
    for read in (read_sheet, read_law, *(partial(import_runs, form) for form in FORMATS)):
        with pytest.raises((ValueError, OSError)):
            read(file)
    assert not canary.exists()


def test_a_tokenizer_that_brings_code_is_not_run(tmp_path: Path) -> None:
    canary, folder = tmp_path / "sung", tmp_path / "tokenizer"
    folder.mkdir()
    code = f"open({str(canary)!r}, 'w')\nfrom transformers import PreTrainedTokenizer as Evil\n"
    (folder / "evil.py").write_text(code)
    config = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}))
    (tmp_path / "a.txt").write_text("some text\n" * 500)
    raw = {
        "name": "sent",
        "domains": [{"name": "a", "source": {"files": str(tmp_path / "a.txt")}}],
        "eval_domains": [{"name": "a", "own": "a"}],
        "ladder": [{"n_params": 2e4, "n_tokens": 1e3}],
        "target": {"n_params": 1e6, "n_tokens": 1e4},
        "tokenizer": {"name": str(folder)},
    }
    from raymix.corpus import prepare

    with pytest.raises((ValueError, OSError)):
        prepare(SearchSpace.parse(raw), cache=tmp_path / "cache")
    assert not canary.exists()


HOSTILE = [
    "../../etc/passwd",
    "<script>document.title='owned'</script>",
    "$(touch owned)",
    "a\"b'c",
    "文件",
    "a\nb: c",
    "no",
]


def test_hostile_names_stay_names_in_every_file(tmp_path: Path) -> None:
    from raymix.formats.export import TARGETS, ExportError, blend_of, export, write_files

    raw = {
        "name": "../../outside",
        "domains": [{"name": name, "available_tokens": 1e6} for name in HOSTILE],
        "eval_domains": [{"name": name, "own": name} for name in HOSTILE],
        "ladder": [{"n_params": 1e5, "n_tokens": 5e5}],
        "target": {"n_params": 4e6, "n_tokens": 1e6},
        "budget": {"trials": 8, "per_round": 8},
    }
    root = tmp_path / "root"
    study = Study.create(SearchSpace.parse(raw), root / "study", seed=0)
    for i, trial in enumerate(study.ask(8)):
        study.tell(trial.trial_id, {name: 3.0 + 0.01 * ((i * k) % 5) for k, name in enumerate(HOSTILE)})
    write_results(study)
    again = Study.open(root / "study")
    assert list(again.space.domain_names) == HOSTILE
    recommendation = json.loads((root / "study" / "recommendation.json").read_text())
    assert list(recommendation["mixture"]) == HOSTILE
    page = (root / "study" / "report.html").read_text()
    assert "<script>document.title" not in page
    for target in TARGETS:
        try:
            files = export(blend_of(recommendation, packed=True), target)
        except ExportError:
            continue
        write_files(root / "export" / target, files)
    assert {path.name for path in tmp_path.iterdir()} == {"root"}
    assert not Path("owned").exists()


def test_secrets_of_the_environment_are_written_nowhere(study: Path) -> None:
    written = b"".join(file.read_bytes() for file in study.rglob("*") if file.is_file())
    assert len(written) > 10_000
    for value in SECRETS.values():
        assert value.encode() not in written


def test_workers_get_only_what_is_named() -> None:
    from raymix.proxy import WORKER_ENV

    assert not [name for name in WORKER_ENV if any(word in name for word in ("_TOKEN", "_KEY", "SECRET", "PASSWORD"))]


FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def calls() -> Iterator[tuple[str, ast.Call]]:
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                yield f"{file.relative_to(SOURCE)}:{node.lineno}", node


def test_the_code_runs_no_shell_no_pickle_and_no_foreign_code() -> None:
    for where, call in calls():
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        dotted = ast.unparse(call.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert name not in FORBIDDEN_CALLS, f"{where} calls {name}"
        assert keywords.get("shell", "False") == "False", f"{where} opens a shell"
        assert keywords.get("trust_remote_code", "False") == "False", f"{where} trusts remote code"
        assert keywords.get("allow_pickle", "False") == "False", f"{where} allows pickles"
        assert dotted not in ("os.system", "os.popen", "yaml.load", "yaml.unsafe_load"), f"{where} calls {dotted}"
        if dotted == "torch.load":
            assert keywords.get("weights_only") == "True", f"{where} loads more than weights"
        assert not dotted.startswith(("pickle.", "cloudpickle.", "dill.", "joblib.", "shelve.", "marshal.")), where
        assert not dotted.endswith(".extractall"), f"{where} unpacks an archive without looking at its members"
