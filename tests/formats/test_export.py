"""An export, read back, is the mixture; what a trainer cannot express is refused."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from raymix import Study
from raymix.cli import app
from raymix.formats.export import TARGETS, Blend, ExportError, blend_of, export, write_files
from raymix.formats.export.blend import rounded
from raymix.results import write_results
from raymix.space import SearchSpace, SpaceError
from tests import worlds

SHARES = {"web": 0.6123456789, "code": 0.2876543211, "books": 0.1, "forum": 0.0}
LENGTHS = {"web": 400.0, "code": 1500.0, "books": 90000.0, "forum": 100.0}
PATHS = {"web": ("data/web.bin",), "code": ("data/code",)}
EPOCHS = {"web": 0.2, "code": 1.1, "books": 4.0}


def blend(**changes: object) -> Blend:
    return Blend(**{"shares": SHARES, "n_params": 7e9, "n_tokens": 2e12, "epochs": EPOCHS, "paths": PATHS,
                    "tokens_per_row": LENGTHS} | changes)  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_written_reads_back_as_the_mixture(target: str) -> None:
    files = export(blend(), target)
    shares = TARGETS[target].read(files, blend())
    assert sum(shares.values()) == pytest.approx(1, abs=1e-9)
    assert shares == pytest.approx({name: share for name, share in SHARES.items() if share}, abs=1e-4)


@pytest.mark.parametrize("target", TARGETS)
def test_the_summary_says_unit_epochs_and_what_was_dropped(target: str) -> None:
    about = json.loads(export(blend(), target)["mixture.json"])
    assert about["unit"] and about["beware"] and about["dropped"] == ["forum"]
    assert about["epochs_at_scale"] == EPOCHS | {"forum": None}
    assert about["shares_of_tokens"] == SHARES


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40).filter(lambda x: sum(x) > 0.1))
def test_rounded_shares_sum_to_one_and_move_less_than_a_millionth(values: list[float]) -> None:
    shares = {str(i): value for i, value in enumerate(values)}
    found = rounded(shares)
    assert round(sum(found.values()) * 10**6) == 10**6
    for name, share in shares.items():
        assert abs(found.get(name, 0) - share / sum(values)) <= 1.0000001e-6


def test_interleaving_real_rows_gives_the_shares_of_tokens() -> None:
    datasets = pytest.importorskip("datasets")
    lengths = {"a": 1, "b": 4, "c": 20}
    shares = {"a": 0.3, "b": 0.5, "c": 0.2}
    given = Blend(shares, 1e9, 1e12, tokens_per_row=lengths, epochs=dict.fromkeys(shares, 0.5))
    arguments = json.loads(export(given, "hf-datasets")["interleave.json"])
    rows = {name: datasets.Dataset.from_dict({"n": [length] * 20000}) for name, length in lengths.items()}
    arguments["datasets"] = [rows[name] for name in arguments["datasets"]]
    drawn = np.array(datasets.interleave_datasets(**arguments)["n"])
    for name, length in lengths.items():
        # binomial draws of over 20,000 rows: three standard errors of the largest share are about .01
        assert drawn[drawn == length].sum() / drawn.sum() == pytest.approx(shares[name], abs=0.02)


@pytest.mark.parametrize("target", ["hf-datasets", "torchtitan", "mosaic", "ray-data", "llama-factory", "energon"])
def test_a_trainer_of_rows_needs_their_length_or_packing(target: str) -> None:
    with pytest.raises(ExportError, match=r"'code' are not known.*--tokens-per-row"):
        export(blend(tokens_per_row={"web": 400.0}), target)
    packed = blend(tokens_per_row={}, packed=True)
    assert TARGETS[target].read(export(packed, target), packed)["web"] == pytest.approx(SHARES["web"], abs=1e-6)


@pytest.mark.parametrize(
    ("target", "changes", "reason"),
    [
        ("megatron", {"paths": {"web": ("my data/web",)}}, "has a space"),
        ("megatron", {"paths": {"web": ("a", "b")}}, "one path per domain, 2 are given"),
        ("automodel", {"shares": {"weighted": 0.5, "b": 0.5}, "paths": {}}, "'weighted'"),
        ("llama-factory", {"paths": {"web": ("a,b",)}}, "commas"),
        ("axolotl", {"epochs": {}}, "available tokens of 'web'"),
        ("megatron", {"paths": {"web": ("same",), "code": ("same",)}}, "cannot express"),
        ("gpt-neox", {}, "no such target"),
    ],
)
def test_what_a_target_cannot_say_is_refused(target: str, changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        export(blend(**changes), target)


def test_domains_are_checked_and_files_never_replaced(tmp_path: Path) -> None:
    recommendation = {
        "mixture": SHARES,
        "scale": {"n_params": 7e9, "n_tokens": 2e12},
        "epochs": EPOCHS | {"forum": None},
    }
    assert blend_of(recommendation).epochs == EPOCHS
    with pytest.raises(ExportError, match="'wbe' is not a domain"):
        blend_of(recommendation, paths={"wbe": ("x",)})
    with pytest.raises(ExportError, match="not a recommendation"):
        blend_of({"mixture": {}})
    write_files(tmp_path, export(blend_of(recommendation), "megatron"))
    with pytest.raises(ExportError, match="is there already"):
        write_files(tmp_path, export(blend_of(recommendation), "megatron"))


def test_olmo_core_is_allowed_the_repetition_of_the_rounded_ratios() -> None:
    """As OLMo-core checks it: whole tokens needed of a source against whole tokens there, times its repetition."""
    n_tokens, shares = 1e11, {"a": 0.1234564999, "b": 0.3765435001, "c": 0.5}  # b is rounded up
    available = {name: int(share * n_tokens / 4) for name, share in shares.items()}
    epochs = {name: share * n_tokens / available[name] for name, share in shares.items()}
    config = json.loads(export(Blend(shares, 7e9, n_tokens, epochs), "olmo-core")["source_mixture.json"])
    assert sum(source["target_ratio"] for source in config["source_list"]["sources"]) == pytest.approx(1)
    for source in config["source_list"]["sources"]:
        needed = int(config["requested_tokens"] * source["target_ratio"])
        assert needed <= int(available[source["source_name"]] * source["max_repetition_ratio"])
        assert source["max_repetition_ratio"] < 4.001


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Told all its trials, under a name that is no folder."""
    path = tmp_path_factory.mktemp("export") / "s"
    work = Study.create(worlds.space(name="../web/\u7db2"), path)
    with work.writing() as ledger:
        worlds.play(ledger)
    write_results(work)
    return work


def exported(study: Study, *words: object) -> Result:
    return CliRunner().invoke(app, ["export", str(study.store.path), *map(str, words)])


@pytest.mark.parametrize(
    ("option", "text", "says"),
    [
        ("--paths", "[1, 2]", "a mapping of domains to paths"),
        ("--paths", '{"web": 3}', "'web' it says 3"),
        ("--paths", '{"web": []}', "a path or a list of paths"),
        ("--paths", '{"web": {"a": 1}}', "a path or a list of paths"),
        ("--paths", "{bad", "not valid JSON"),
        ("--tokens-per-row", '{"web": 400, "code": 0, "books": 90}', "'code' are 0"),
    ],
)
def test_a_file_that_says_something_else_is_named(
    study: Study, tmp_path: Path, option: str, text: str, says: str
) -> None:
    (tmp_path / "given.json").write_text(text)
    done = exported(study, "--to", "mosaic", "-o", tmp_path / "out", option, tmp_path / "given.json")
    assert isinstance(done.exception, SpaceError)  # exit code 2 through main()
    assert says in str(done.exception)
    assert "given.json" in str(done.exception)


def test_files_go_to_one_folder_whatever_the_study_is_called(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert exported(study, "--to", "olmix").exit_code == 0
    (folder,) = (tmp_path / "here").iterdir()
    assert sorted(file.name for file in folder.iterdir()) == ["mixture.json", "weights.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    endless = exported(study, "--to", "olmix", "-o", "x" * 300)
    assert isinstance(endless.exception, SpaceError) and "cannot be written (File name too" in str(endless.exception)
    (tmp_path / "here" / "file").write_text("")
    done = exported(study, "--to", "olmix", "-o", "file")
    assert isinstance(done.exception, SpaceError) and "there is a file" in str(done.exception)


def test_a_mixture_that_was_not_recommended_is_said_to_be_none(study: Study, tmp_path: Path) -> None:
    found = study.store.read_json("recommendation.json")
    good = {"answer": "use it", "reason": "predicted gain over the prior 0.0273 nats"}
    study.store.write_json("recommendation.json", found | {"verdict": good})
    assert "verdict" not in exported(study, "--to", "olmix", "-o", tmp_path / "a").output
    verdict = {"answer": "keep the baseline: gain within noise", "reason": "the interval includes 0"}
    study.store.write_json("recommendation.json", found | {"verdict": verdict})
    try:
        said = " ".join(exported(study, "--to", "olmix", "-o", tmp_path / "b").output.split())
    finally:
        study.store.write_json("recommendation.json", found)
    assert "keep the baseline: gain within noise" in said
    assert json.loads((tmp_path / "b" / "mixture.json").read_text())["verdict"] == verdict


def test_a_mixture_of_some_stages_is_not_handed_over_as_that_of_the_run(tmp_path: Path) -> None:
    raw = {"name": "s", "domains": ["web", "code"], "eval_domains": ["x"], "target": {"n_params": 1e8, "n_tokens": 1e9}}
    stages = [{"tokens": 0.3, "mixture": {"web": 1}}, {"tokens": 0.7}]
    work = Study.create(SearchSpace.parse(raw | {"recipe": {"stages": stages}}), tmp_path / "s")
    for trial in work.ask(6):
        work.tell(trial.trial_id, {"x": 2 - 0.5 * trial.mixture["code"] + 0.001 * trial.seed})
    found = write_results(work)
    (said,) = [note for note in found.law["notes"] if "recipe.stages" in note]
    assert said.startswith("the mixture is that of 70% of the tokens: recipe.stages fixes the others, 30% web=1")
    assert said in " ".join(exported(work, "--to", "megatron", "-o", tmp_path / "out").output.split())
    assert json.loads((tmp_path / "out" / "mixture.json").read_text())["notes"] == [said]


def test_a_mixture_older_than_the_rows_is_said_to_be(study: Study, tmp_path: Path) -> None:
    assert "before the last change" not in exported(study, "--to", "olmix", "-o", tmp_path / "a").output
    work = Study.open(shutil.copytree(study.store.path, tmp_path / "s"))
    with work.writing() as ledger:
        (trial,) = ledger.ask(1)
        ledger.fail(trial.trial_id, "out of memory")
    assert "before the last change" in " ".join(exported(work, "--to", "olmix", "-o", tmp_path / "b").output.split())


def test_where_all_failed_no_command_is_named_that_fails_too(tmp_path: Path) -> None:
    work = Study.create(worlds.space(), tmp_path / "s")
    unfinished = exported(work, "--to", "olmix", "-o", tmp_path / "out")
    assert "0 trials have losses, a law needs at least 4; continue with: raymix ask" in str(unfinished.exception)
    for trial in work.ask(12):
        work.fail(trial.trial_id, "out of memory")
    assert work.finished
    said = str(exported(work, "--to", "olmix", "-o", tmp_path / "out").exception)
    assert "nothing was recommended: 0 trials have losses" in said and "failures: out of memory" in said
    assert "raymix report" not in said and said.endswith(f"raymix resume {tmp_path / 's'} --set budget.trials=24")
    done = CliRunner().invoke(app, ["resume", str(tmp_path / "s"), "--set", "budget.trials=24"])
    assert done.exit_code == 0, done.output
    assert Study.open(tmp_path / "s").ask(1)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"mixture": {}}'])
def test_a_damaged_recommendation_names_the_command_that_writes_it_anew(
    study: Study, tmp_path: Path, content: bytes
) -> None:
    kept = study.store.read("recommendation.json")
    try:
        study.store.write("recommendation.json", content)
        done = exported(study, "--to", "olmix", "-o", tmp_path / "there")
    finally:
        study.store.write("recommendation.json", kept)
    assert "recommendation.json: damaged; this writes it anew: raymix report" in str(done.exception)


def test_what_optimize_wrote_is_handed_over_without_a_study(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = study.store.read_json("recommendation.json") | {"verdict": {"answer": "confirm first", "reason": "far"}}
    (tmp_path / "best.json").write_text(json.dumps(found))
    done = CliRunner().invoke(app, ["export", "best.json", "--to", "megatron"])
    assert done.exit_code == 0, done.output
    assert "confirm first: far" in " ".join(done.output.split())
    assert exported(study, "--to", "megatron", "-o", tmp_path / "study").exit_code == 0
    for file in (tmp_path / "study").iterdir():
        if file.name != "mixture.json":  # it says which tokenizer
            assert (tmp_path / "best-megatron" / file.name).read_text() == file.read_text()
    assert json.loads((tmp_path / "best-megatron" / "mixture.json").read_text())["shares_of_tokens"] == found["mixture"]


@pytest.mark.parametrize(
    ("text", "to", "says"),
    [
        ("{bad", "olmix", r"best.json: this is no recommendation \(invalid JSON: .*raymix optimize writes one"),
        ('{"law": "m4"}', "olmix", r"best.json: this is no recommendation \(missing key 'mixture'"),
        (
            '{"mixture": {"a": "much"}, "scale": {"n_params": 1, "n_tokens": 1}}',
            "olmix",
            r"\(mixture.a is 'much': it must be a number\)",
        ),
        ('{"mixture": {"a": 0.4}, "scale": {"n_params": 1, "n_tokens": 1}}', "olmix", "best.json: .* must sum to 1"),
        (
            '{"mixture": {"a": 1}, "scale": {"n_params": 0, "n_tokens": 1}}',
            "olmix",
            r"\(scale.n_params is 0: it must be ",
        ),
        ('{"mixture": {"a": 1}, "scale": {"n_params": 1, "n_tokens": 1}}', "optuna", "optuna takes a study"),
    ],
)
def test_a_file_that_is_no_recommendation_is_refused(tmp_path: Path, text: str, to: str, says: str) -> None:
    (tmp_path / "best.json").write_text(text)
    done = CliRunner().invoke(app, ["export", str(tmp_path / "best.json"), "--to", to, "-o", str(tmp_path / "out")])
    assert isinstance(done.exception, SpaceError)  # exit code 2 through main()
    assert re.search(says, str(done.exception))
    assert not (tmp_path / "out").exists()
