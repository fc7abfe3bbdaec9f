"""import, fit, predict and optimize from a shell: files in, files out, one sentence where something is wrong."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from raymix import SearchSpace, Study
from raymix.cli import app
from raymix.commands.online import as_recommended
from raymix.commands.options import check_out
from raymix.laws.reach import Reach
from raymix.observations import Observations
from raymix.proxy.online.session import Answer
from raymix.results import write_results
from raymix.tables.law_file import read_law, write_law
from raymix.target.recommend import NotEnoughTrialsError
from raymix.target.refits import rows_of

DATA = Path(os.environ.get("RAYMIX_DATA") or Path(__file__).parents[2] / "shared" / "data")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no published runs in {DATA}; set RAYMIX_DATA to theirs")
DOMAINS = ("web", "code", "books")
KEYS = "trial_id,n_params,n_tokens,mixture/web,mixture/code,mixture/books"


def raymix(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def ask(*words: object) -> dict[str, Any]:
    """The JSON answer of a command that must succeed."""
    result = raymix(*words, "--json")
    assert result.exit_code == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def losses(mix_K: np.ndarray, n_params: float, n_tokens: float) -> np.ndarray:
    exposure = (np.eye(3) + 0.1) @ (mix_K + 0.01) ** 0.7
    return np.asarray(1.5 + 1.5 * (n_params / 1e6) ** -0.2 + 2 * (n_tokens / 1e9 * exposure) ** -0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs.csv of three domains, two sizes and two checkpoints, queries.csv, and law.json of the union law."""
    path, rng = tmp_path_factory.mktemp("commands"), np.random.default_rng(0)
    rows = []
    for trial, mix_K in enumerate(rng.dirichlet(np.ones(3), 12)):
        n_params = (1e6, 4e6)[trial % 2]
        noise = np.exp(0.003 * rng.normal(size=3))
        for n_tokens in (5e8, 1e9):
            rows.append(
                {"trial_id": f"t{trial}", "n_params": n_params, "n_tokens": n_tokens}
                | {f"mixture/{name}": share for name, share in zip(DOMAINS, mix_K, strict=True)}
                | dict(
                    zip(("loss/Web", "loss/code", "loss/exams"), losses(mix_K, n_params, n_tokens) * noise, strict=True)
                )
            )
    Observations.from_rows(rows, DOMAINS, ("Web", "code", "exams")).write(path / "runs.csv")
    # The order of the columns is not that of the law, and a share may be missing from no row.
    (path / "queries.csv").write_text(
        "trial_id,n_params,n_tokens,mixture/books,mixture/web,mixture/code\na,1e6,1e9,0.2,0.5,0.3\nb,4e6,2e9,1,0,0\n"
    )
    raymix("fit", path / "runs.csv", "-o", path / "law.json", "--law", "union")
    return path


def test_fit_says_what_was_chosen_and_why(folder: Path, tmp_path: Path) -> None:
    target = ("--n-params", 1e8, "--n-tokens", 1e10)
    answer = ask("fit", folder / "runs.csv", "-o", tmp_path / "law.json", "--weights", "Web=3,exams=1", *target)
    assert answer["own"] == {"Web": "web", "code": "code"}
    assert answer["name"] in {score["name"] for score in answer["scores"]}
    assert (answer["trials"], answer["rows"], answer["mixtures"]) == (12, 24, 12)
    found = read_law(tmp_path / "law.json")
    assert found.law.name == answer["name"]
    assert found.weights_M.tolist() == [0.75, 0.0, 0.25]
    assert found.trained is not None
    assert found.trained.n_params == (1e6, 4e6)


def test_runs_that_stand_in_a_table_twice_count_once(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same runs under other names: they are no replicates, and no second evidence."""
    rows = Observations.read(folder / "runs.csv").table.to_pylist()
    again = [row | {"trial_id": f"copy-{row['trial_id']}"} for row in rows]
    Observations.from_rows([*rows, *again], DOMAINS, ("Web", "code", "exams")).write(tmp_path / "twice.csv")
    once = ask("fit", folder / "runs.csv", "-o", tmp_path / "once.json", "--law", "union")
    assert "every loss" not in caplog.text
    twice = ask("fit", tmp_path / "twice.csv", "-o", tmp_path / "twice.json", "--law", "union")
    assert "12 trials have the mixture, scale and every loss of another to the last digit" in caplog.text
    assert "'copy-t0' of 't0'" in caplog.text
    assert (twice["trials"], twice["rows"], twice["scores"]) == (once["trials"], once["rows"], once["scores"])
    caplog.clear()
    assert ask("import", "exchange", tmp_path / "twice.csv", "-o", tmp_path / "kept.csv")["trials"] == 24
    assert "raymix fit counts each once" in caplog.text


def test_several_tables_are_fitted_as_one(folder: Path, tmp_path: Path) -> None:
    """A sweep whose sizes were imported one by one, columns in another order, an eval domain of one size alone."""
    rows = Observations.read(folder / "runs.csv").table.to_pylist()
    sizes = [[row for row in rows if row["n_params"] == size] for size in (1e6, 4e6)]
    small, large, law = tmp_path / "small.csv", tmp_path / "large.parquet", tmp_path / "law.json"
    Observations.from_rows(sizes[0], DOMAINS, ("Web", "code", "exams")).write(small)
    extra = [row | {"loss/late": 2.0} for row in sizes[1]]
    Observations.from_rows(extra, DOMAINS[::-1], ("late", "exams", "code", "Web")).write(large)
    whole = ask("fit", folder / "runs.csv", "-o", law, "--law", "union")
    both = ask("fit", small, large, "-o", law, "--law", "union", "--eval", "Web", "--eval", "code", "--eval", "exams")
    assert (both["trials"], both["rows"], both["mixtures"]) == (12, 24, 12)
    assert both["scores"][0]["error"] == pytest.approx(whole["scores"][0]["error"])
    found = read_law(law)
    assert found.domains == DOMAINS and found.trained is not None and found.trained.n_params == (1e6, 4e6)
    ask("fit", small, large, "-o", law, "--law", "union")
    assert read_law(law).eval_domains == ("Web", "code", "exams", "late")


def test_tables_that_are_not_of_one_sweep_are_refused(folder: Path, tmp_path: Path) -> None:
    runs, other, law = folder / "runs.csv", tmp_path / "other.csv", tmp_path / "law.json"
    other.write_text(runs.read_text().replace("mixture/books", "mixture/novels").replace("s/books", "s/novels")
                     .replace("e/books", "e/novels"))  # fmt: skip
    (tmp_path / "scored.csv").write_text(runs.read_text().replace("loss/exams", "metric/exams"))
    for tables, said in (
        ((runs, other), f"other.csv: there is no column mixture/books, which {runs} has"),
        ((runs, runs), "trial 't0' has two rows"),
        ((runs, tmp_path / "scored.csv"), f"scored.csv: metric/exams has no loss/exams beside it, which {runs} has"),
    ):
        result = raymix("fit", *tables, "-o", law)
        assert (result.exit_code, law.exists()) == (2, False)
        assert said in result.stderr


def test_fit_for_people(folder: Path, tmp_path: Path) -> None:
    result = raymix("fit", folder / "runs.csv", "-o", tmp_path / "l.json", "--law", "union", "--eval", "Web")
    assert result.exit_code == 0
    (score,) = ask("fit", folder / "runs.csv", "-o", tmp_path / "l.json", "--law", "union", "--eval", "Web")["scores"]
    total = score["error"] + score["weighted_error"]
    assert f"union as asked for (with mixtures held out, error + objective {total:.2%})" in result.stdout
    assert read_law(tmp_path / "l.json").eval_domains == ("Web",)


def test_predictions_carry_their_keys_and_intervals(folder: Path, tmp_path: Path) -> None:
    for ending in ("csv", "parquet", "csv.gz"):
        out = tmp_path / f"pred.{ending}"
        assert ask("predict", folder / "law.json", folder / "queries.csv", "-o", out)["rows"] == 2
    table = Observations.read(tmp_path / "pred.csv")
    assert table.trial_ids == ["a", "b"]
    assert table.domains == ("books", "web", "code")
    truth = [losses(np.array(mix), n, d) for mix, n, d in (([0.5, 0.3, 0.2], 1e6, 1e9), ([0, 0, 1], 4e6, 2e9))]
    np.testing.assert_allclose(table.loss_BM, truth, rtol=0.05)
    raw = Observations.read(tmp_path / "pred.parquet")
    np.testing.assert_array_equal(raw.loss_BM, table.loss_BM)
    header = (tmp_path / "pred.csv").read_text().splitlines()[0].replace('"', "").split(",")
    assert [name for name in header if name.startswith("loss")] == [
        f"{kind}/{name}" for kind in ("loss", "loss_low", "loss_high") for name in ("Web", "code", "exams")
    ]
    first = dict(zip(header, (tmp_path / "pred.csv").read_text().splitlines()[1].split(","), strict=True))
    assert float(first["loss_low/Web"]) < float(first["loss/Web"]) < float(first["loss_high/Web"])


def test_rows_without_a_scale_have_no_losses(folder: Path, tmp_path: Path) -> None:
    """As the table of a study has them: of a run that failed at once, of the model that a run goes on from."""
    mixture = {f"mixture/{name}": 1 / 3 for name in DOMAINS}
    rows = [
        {"trial_id": name, "status": status, "n_params": size, "n_tokens": tokens} | mixture
        for name, status, size, tokens in (("a", "start", 1e6, 0), ("b", "failed", None, None), ("c", "done", 1e6, 1e9))
    ]
    Observations.from_rows(rows, DOMAINS, ()).write(tmp_path / "q.csv")
    said = ask("predict", folder / "law.json", tmp_path / "q.csv", "-o", tmp_path / "p.parquet")
    assert not any("unit" in note for note in said["notes"])
    assert np.isfinite(pyarrow.parquet.read_table(tmp_path / "p.parquet")["loss/Web"]).tolist() == [False, False, True]


def test_mixtures_far_from_any_run_are_said(folder: Path, tmp_path: Path) -> None:
    """Runs of at most 60% of a domain: at its corner a law errs by more than its intervals say."""
    rows = [line.replace('"', "").split(",") for line in (folder / "runs.csv").read_text().splitlines()]
    columns = [i for i, name in enumerate(rows[0]) if name.startswith("mixture/")]
    near = [row for row in rows[1:] if max(float(row[i]) for i in columns) <= 0.6]
    (tmp_path / "near.csv").write_text("\n".join(",".join(row) for row in [rows[0], *near]))
    ask("fit", tmp_path / "near.csv", "-o", tmp_path / "law.json", "--law", "union")
    far = ask("predict", tmp_path / "law.json", folder / "queries.csv", "-o", tmp_path / "p.csv")["notes"]
    assert [note for note in far if "1 of 2 mixtures have more of a domain than any run had (books 100%" in note]
    (tmp_path / "inside.csv").write_text("\n".join((folder / "queries.csv").read_text().splitlines()[:2]))
    inside = ask("predict", tmp_path / "law.json", tmp_path / "inside.csv", "-o", tmp_path / "p.csv")["notes"]
    assert not [note for note in inside if "than any run had" in note]
    best = ("--n-params", 4e6, "--n-tokens", 2e9, "-o", tmp_path / "best.json")
    at_corner = ask("optimize", tmp_path / "law.json", *best, "--min", "books=0.95")
    assert [note for note in at_corner["law"]["notes"] if "the mixture has more of a domain" in note]


def test_runs_of_one_size_are_no_ground_to_use_a_mixture_far_beyond_it(folder: Path, tmp_path: Path) -> None:
    rows = [row for row in Observations.read(folder / "runs.csv").table.to_pylist() if row["n_params"] == 1e6]
    Observations.from_rows(rows, DOMAINS, ("Web", "code", "exams")).write(tmp_path / "one.csv")
    (tmp_path / "prior.json").write_text('{"web": 8, "code": 1, "books": 1}')
    (tmp_path / "weights.json").write_text('{"exams": 1}')
    exams, caps = ("--objective", tmp_path / "weights.json"), ("--max", "books=0.4")
    wanted = ("--n-tokens", 1e9, "-o", tmp_path / "best.json", "--prior", tmp_path / "prior.json", *exams, *caps)
    ask("fit", tmp_path / "one.csv", "-o", tmp_path / "law.json", "--law", "union", "--weights", "exams=1")
    near = ask("optimize", tmp_path / "law.json", "--n-params", 2e6, *wanted)["verdict"]
    assert near["answer"] == "use it", near
    far = ask("optimize", tmp_path / "law.json", "--n-params", 3.5e8, *wanted)["verdict"]
    assert far["answer"].startswith("confirm first") and "350 times" in far["reason"], far


def test_scales_far_below_any_run_are_said(folder: Path, tmp_path: Path) -> None:
    """Parameters in millions, tokens in billions: a law reads them, and answers with losses of 10 and more."""
    (tmp_path / "q.csv").write_text(f"{KEYS}\na,4,1e9,0.5,0.3,0.2\nb,4e6,1,0.5,0.3,0.2\nc,4e6,1e9,0.5,0.3,0.2\n")
    notes = ask("predict", folder / "law.json", tmp_path / "q.csv", "-o", tmp_path / "p.csv")["notes"]
    assert [note for note in notes if "n_params 4 is 250,000 times below the smallest size trained (1e+06)" in note]
    assert [note for note in notes if "n_tokens 1 is 500,000,000 times below the shortest run (5e+08)" in note]
    assert all("another unit" in note for note in notes if "below" in note)
    inside = ask("predict", folder / "law.json", folder / "queries.csv", "-o", tmp_path / "p.csv")["notes"]
    assert not [note for note in inside if "below" in note]
    scale = ("--n-params", 7, "--n-tokens", 1e9, "-o", tmp_path / "best.json")
    best = ask("optimize", folder / "law.json", *scale)
    assert [note for note in best["law"]["notes"] if "another unit" in note]


def test_optimum_is_certified_and_compared(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prior.json").write_text('{"train_domain_weights": {"web": 8, "code": 1, "books": 1}}')  # DoReMi's
    (tmp_path / "available.csv").write_text("domain,tokens\nweb,1e10\ncode,1e9\nbooks,2e8\n")
    (tmp_path / "weights.json").write_text('{"exams": 1}')
    files = ("--prior", tmp_path / "prior.json", "--available", tmp_path / "available.csv")
    answer = ask(
        "optimize", folder / "law.json", "--n-params", 4e7, "--n-tokens", 4e9, "-o", tmp_path / "best.json",
        "--objective", tmp_path / "weights.json", "--min", "code=0.1", *files,
    )  # fmt: skip
    written = json.loads((tmp_path / "best.json").read_text())
    assert {key: answer[key] for key in written} == written
    assert sum(written["mixture"].values()) == pytest.approx(1, abs=1e-9)
    assert written["mixture"]["code"] >= 0.1 - 1e-9
    assert written["mixture"]["books"] == pytest.approx(0.2, abs=1e-4)  # wanted most, 4 epochs at most
    assert written["epochs"]["books"] == pytest.approx(4, rel=1e-3)
    assert written["certificate"]["convex"]
    assert written["certificate"]["gap"] < 1e-4
    assert set(written["baselines"]) == {"prior", "uniform", "proportional", "temperature 2", "unimax"}
    for baseline in written["baselines"].values():
        gain = baseline["gain"]
        assert gain["low"] < gain["mean"] < gain["high"]
        assert gain["mean"] > -1e-4
        assert baseline["mixture"]["books"] <= 0.2 + 1e-9
    for name, near in written["near_optimal"].items():
        assert near["low"] <= written["mixture"][name] <= near["high"]
    assert written["verdict"]["answer"] == "confirm first: law not judged"  # but by the mean of all
    assert "other weights" in written["verdict"]["reason"]
    assert written["objective"]["mean"] == pytest.approx(written["losses"]["exams"]["mean"])


def test_an_optimum_may_be_pulled_to_the_prior(folder: Path, tmp_path: Path) -> None:
    """It has the least loss + pull x KL(mixture || prior): of its own law no drawn mixture has less."""
    today = {"web": 0.8, "code": 0.15, "books": 0.05}
    (tmp_path / "prior.json").write_text(json.dumps(today))
    law, prior_K = read_law(folder / "law.json"), np.array(list(today.values()))
    drawn_BK = np.random.default_rng(0).dirichlet(np.ones(3), 2000)
    scale, far = ("--n-params", 4e6, "--n-tokens", 1e9), []
    for pull in (0.0, 0.05, 0.5):
        best = ask("optimize", folder / "law.json", *scale, "--prior", tmp_path / "prior.json", "--pull", pull,
                   "-o", tmp_path / "best.json")  # fmt: skip
        mix_BK = np.vstack([list(best["mixture"].values()), drawn_BK])
        loss_B = law.law.predict(mix_BK, np.tile([4e6, 1e9], (len(mix_BK), 1))) @ law.weights_M
        level_B = loss_B + pull * (mix_BK * np.log(mix_BK / prior_K)).sum(axis=1)
        assert level_B[0] <= level_B[1:].min() + best["certificate"]["gap"]
        assert best["objective"]["mean"] == pytest.approx(loss_B[0])  # the pull is no loss
        assert any("pulled to the prior" in note for note in best["law"]["notes"]) == (pull > 0)
        far.append(np.abs(mix_BK[0] - prior_K).sum())
    assert far[0] > far[1] > far[2]


def test_an_optimum_without_proof_is_not_said_to_be_within_a_gap(folder: Path, tmp_path: Path) -> None:
    """The gap of a law that is not convex is that of one local optimum; under a polished law it is the inner law's."""
    scale = ("--n-params", 4e6, "--n-tokens", 1e9, "-o", tmp_path / "best.json")
    for law, proven in (("log_feature_joint", False), ("union", True), ("residual_gp", True)):
        ask("fit", folder / "runs.csv", "-o", tmp_path / "law.json", "--law", law)
        said = " ".join(raymix("optimize", tmp_path / "law.json", *scale).stdout.split())
        assert ("Optimum within" in said) == proven
        assert (f"without proof: {law} is not convex" in said) != proven


def test_domains_that_a_prior_leaves_out_are_named(folder: Path, tmp_path: Path) -> None:
    scale = ("--n-params", 4e6, "--n-tokens", 1e9, "--prior", tmp_path / "prior.json", "-o", tmp_path / "best.json")
    for prior, said in (('{"web": 3, "code": 1}', True), ('{"web": 3, "code": 1, "books": 0}', False)):
        (tmp_path / "prior.json").write_text(prior)
        best = ask("optimize", folder / "law.json", *scale)
        assert ("the prior leaves out books: its share of each counts as 0" in best["law"]["notes"]) == said
        assert best["baselines"]["prior"]["mixture"]["books"] == 0


def test_domains_whose_tokens_nobody_counted_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "available.csv").write_text("domain,tokens\nbooks,2e8\n")
    scale = ("--n-params", 4e7, "--n-tokens", 4e9, "--available", tmp_path / "available.csv")
    best = ask("optimize", folder / "law.json", *scale, "-o", tmp_path / "best.json")
    (note,) = [note for note in best["law"]["notes"] if "at hand" in note]
    assert "of 'web', 'code' are not known: taken without end" in note
    assert best["mixture"]["books"] <= 0.2 + 1e-4  # 4 epochs of what is known
    assert best["epochs"]["web"] is None


def test_five_runs_of_noise_are_no_ground_to_use_a_mixture(tmp_path: Path) -> None:
    """Losses that no mixture changes, 1% apart by noise; the law's interval of the gain over the prior is above 0."""
    rng, table = np.random.default_rng(0), tmp_path / "runs.csv"
    mix_BK = np.vstack([rng.dirichlet(np.full(4, 2.0)), rng.dirichlet(np.ones(4), 4)])
    head = "trial_id,n_params,n_tokens," + ",".join(f"mixture/{name}" for name in "abcd")
    runs = [f"t{i},1e8,1e9,{','.join(map(str, mix_K))},{','.join(map(str, 2.5 * np.exp(0.01 * rng.normal(size=3))))}"
            for i, mix_K in enumerate(mix_BK)]  # fmt: skip
    table.write_text("\n".join([f"{head},loss/a,loss/b,loss/c", *runs]))
    (tmp_path / "prior.json").write_text(json.dumps(dict(zip("abcd", mix_BK[0].tolist(), strict=True))))
    ask("fit", table, "-o", tmp_path / "law.json", "--law", "union")
    wanted = ("--n-params", 1e8, "--n-tokens", 1e9, "--prior", tmp_path / "prior.json", "-o", tmp_path / "best.json")
    best = ask("optimize", tmp_path / "law.json", *wanted)
    assert best["baselines"]["prior"]["gain"]["low"] > 0
    assert best["verdict"]["answer"] == "keep the baseline: law not trusted"
    assert "5 mixtures are too few" in best["verdict"]["reason"]


def test_scores_of_one_objective_say_nothing_of_another(folder: Path, tmp_path: Path) -> None:
    """How well a law predicts a mean over eval domains, and its noise, are not those of one of them."""
    (tmp_path / "one.json").write_text('{"exams": 1}')
    (tmp_path / "same.json").write_text('{"exams": 2, "Web": 2, "code": 2}')
    scale = ("--n-params", 4e6, "--n-tokens", 1e9, "-o", tmp_path / "best.json")
    (tmp_path / "prior.json").write_text('{"web": 8, "code": 1, "books": 1}')
    prior = ("--prior", tmp_path / "prior.json", "--max", "books=0.4")
    found = read_law(folder / "law.json")
    noisier = [{**score, "noise": 3 * score["noise"]} for score in found.choice["scores"]]
    write_law(tmp_path / "noisy.json", replace(found, choice={**found.choice, "scores": noisier}))
    (plain, _), (same, _), (one, said), (noisy, _) = (
        (best["law"], best["verdict"])
        for law, more in (
            (folder / "law.json", ()),
            (folder / "law.json", ("--objective", tmp_path / "same.json")),
            (folder / "law.json", ("--objective", tmp_path / "one.json", *prior)),
            (tmp_path / "noisy.json", ("--objective", tmp_path / "one.json", *prior)),
        )
        for best in [ask("optimize", law, *scale, *more)]
    )
    assert plain == same and plain["rank_correlation"] is not None
    assert one["rank_correlation"] is one["error"] is None
    assert any("for other weights" in note for note in one["notes"])
    assert said["answer"] == "confirm first: law not judged" and "raymix fit --weights" in said["reason"], said
    write_law(tmp_path / "bare.json", replace(found, choice={}))
    bare = ask("optimize", tmp_path / "bare.json", *scale, *prior)["verdict"]
    assert bare["answer"] == "confirm first: law not judged" and "nothing says" in bare["reason"], bare
    assert noisy["noise"] > 2.5 * one["noise"]  # taken over from the fitted weights (here the law's own was 1.09 times)


def test_a_law_of_the_mixture_alone_is_not_read_at_another_scale(tmp_path: Path) -> None:
    """Losses exponential in the shares at one scale: m4 there, and elsewhere the default, which knows of scales."""
    rng, table = np.random.default_rng(0), tmp_path / "runs.csv"
    mix_BK = rng.dirichlet(np.ones(3), 16)
    loss_B = (1.5 + 1.5 * np.exp(-mix_BK @ [2.0, 0.5, 0.8])) * np.exp(0.001 * rng.normal(size=16))
    shares = [",".join(f"{share:.9f}" for share in mix_K) for mix_K in mix_BK]
    head = "trial_id,n_params,n_tokens,mixture/a,mixture/b,mixture/c"
    runs = [f"t{i},1e8,1e9,{text},{loss}" for i, (text, loss) in enumerate(zip(shares, loss_B, strict=True))]
    table.write_text("\n".join([f"{head},loss/x", *runs]))
    asked = (1e8, 1e9), (1e8, 8e9), (3e9, 6e10)
    (tmp_path / "q.csv").write_text("\n".join([head, *(f"{n},{n},{d},{shares[0]}" for n, d in asked)]))
    assert ask("fit", table, "-o", tmp_path / "law.json")["name"] == "m4"
    notes = ask("predict", tmp_path / "law.json", tmp_path / "q.csv", "-o", tmp_path / "p.csv")["notes"]
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    here, longer, larger = (float(row["loss/x"]) for row in rows)
    widths = [float(row["loss_high/x"]) / float(row["loss_low/x"]) for row in rows]
    assert abs(here / loss_B[0] - 1) < 0.01
    assert larger < longer < 0.97 * here
    assert widths[0] < 1.02 < 1.1 < widths[1]
    assert any("residual_gp is read beyond the scale of the runs" in note for note in notes)
    scale = ("--n-params", 3e9, "--n-tokens", 6e10)
    best = ask("optimize", tmp_path / "law.json", *scale, "-o", tmp_path / "best.json")
    assert best["objective"]["mean"] < 0.97 * loss_B.min()
    assert best["law"]["name"] == "residual_gp"


def test_without_prior_the_uniform_mixture_is_the_measure(folder: Path, tmp_path: Path) -> None:
    scale = ("--n-params", 4e6, "--n-tokens", 1e9)
    result = raymix("optimize", folder / "law.json", *scale, "-o", tmp_path / "best.json")
    assert result.exit_code == 0
    assert "Verdict" in result.stdout
    written = json.loads((tmp_path / "best.json").read_text())
    assert set(written["baselines"]) == {"uniform"}
    assert written["epochs"] == dict.fromkeys(DOMAINS)
    assert "uniform" in written["verdict"]["reason"]
    (tmp_path / "available.csv").write_text("domain,tokens\nweb,1e13\ncode,4e8\nbooks,4e8\n")
    best = ask("optimize", folder / "law.json", *scale, "-o", tmp_path / "best.json",
               "--available", tmp_path / "available.csv")  # fmt: skip
    assert set(best["baselines"]) == {"uniform", "proportional", "temperature 2", "unimax"}
    assert best["baselines"]["proportional"]["gain"]["low"] > 0  # nearly all of it is web: anything is better
    assert "gain over the uniform" in best["verdict"]["reason"]


def test_a_law_with_a_process_is_polished_near_the_certified_optimum(folder: Path, tmp_path: Path) -> None:
    ask("fit", folder / "runs.csv", "-o", tmp_path / "law.json", "--law", "residual_gp")
    tight = ("--n-params", 4e6, "--n-tokens", 1e9, "--max", "web=0", "--min", "code=0.3", "-o", tmp_path / "best.json")
    answer = ask("optimize", tmp_path / "law.json", *tight)
    assert answer["mixture"]["web"] == 0
    assert answer["mixture"]["code"] >= 0.3 - 1e-9
    assert not answer["certificate"]["convex"]
    assert answer["certificate"]["gap"] < 1e-4  # of the law underneath
    assert answer["certificate"]["polish"] >= 0


BAD = {
    "no such table": ("fit nowhere.csv -o x.json", "no such file"),
    "unknown law": ("fit {runs} -o x.json --law unoin", "unknown law 'unoin'"),
    "unknown eval": ("fit {runs} -o x.json --eval web", "'web' is not an eval domain; did you mean 'Web'"),
    "unknown weight": ("fit {runs} -o x.json --weights Wep=1", "did you mean"),
    "weight no number": ("fit {runs} -o x.json --weights Web=much", "must be a number"),
    "half a target": ("fit {runs} -o x.json --n-params 1e9", "both"),
    "wrong ending": ("fit {runs} -o x.pickle", "must end in .json"),
    "a folder for a law": ("predict {tmp} {queries} -o {tmp}/p.csv", "this is a folder"),
    "table that no disk takes": ("import exchange {runs} -o {tmp}/{endless}.csv", "cannot be written (File name too"),
    "law that no disk takes": ("fit {runs} -o {tmp}/{endless}.json", "cannot be written (File name too"),
    "prediction that no disk takes": ("predict {law} {queries} -o {tmp}/{endless}.csv", "another place with -o"),
    "optimum that no disk takes": (
        "optimize {law} --n-params 1e6 --n-tokens 1e9 -o {tmp}/{endless}.json",
        "cannot be written (File name too",
    ),
    "no folder": ("fit {runs} -o no/such/x.json", "there is no folder"),
    "table as law": ("predict {runs} {queries} -o {tmp}/p.csv", "not a law file"),
    "query without a domain": ("predict {law} {short} -o {tmp}/p.csv", "the column mixture/books is missing"),
    "shares of a domain without a column": (
        "predict {law} {lost} -o {tmp}/p.csv",
        "the column mixture/books is missing; the law has this domain, and knows no 'Books': rename mixture/Books",
    ),
    "query with a domain more": ("predict {law} {long} -o {tmp}/p.csv", "the law knows no domain 'music'"),
    "unknown bound": (
        "optimize {law} --n-params 1e6 --n-tokens 1e9 --max webb=1 -o {tmp}/b.json",
        "did you mean 'web'",
    ),
    "bound no share": ("optimize {law} --n-params 1e6 --n-tokens 1e9 --max web=2 -o {tmp}/b.json", "must lie in 0..1"),
    "nothing feasible": (
        "optimize {law} --n-params 1e6 --n-tokens 1e9 --max web=.1 --max code=.1 --max books=.1 -o {tmp}/b.json",
        "sum to 0.3, less than 1: raise --max\n",  # nothing of epochs, where none were asked for
    ),
    "bound twice": ("optimize {law} --n-params 1e6 --n-tokens 1e9 --min web=.1 --min web=.2 -o {tmp}/b.json", "twice"),
    "a mixture for an objective": (
        "optimize {law} --n-params 1e6 --n-tokens 1e9 --objective {mixed} -o {tmp}/b.json",
        "train_domain_weights holds no number: it must be a mapping of names to numbers",
    ),
    "epochs of nothing": ("optimize {law} --n-params 1 --n-tokens 1 --max-epochs 2 -o {tmp}/b.json", "--available"),
    "no epochs": (
        "optimize {law} --n-params 1e6 --n-tokens 1e9 --available {stock} --max-epochs 0 -o {tmp}/b.json",
        "--max-epochs is 0.0: it must be greater than 0",
    ),
    "too few epochs": (
        "optimize {law} --n-params 1e6 --n-tokens 1e9 --available {stock} --max-epochs .1 -o {tmp}/b.json",
        "raise --max-epochs or lower --n-tokens",
    ),
    "shares of a domain without tokens": (
        "fit {drawn} -o {tmp}/l.json",
        "trial a: unique/web is 0, and 0.5 of the run was drawn from it",
    ),
    "queries of a domain without tokens": (
        "predict {law} {drawn} -o {tmp}/p.csv",
        "drawn.csv: trial a: unique/web is 0, and 0.5 of the run was drawn from it",
    ),
    "numbers for a file": (
        "optimize {law} --n-params 1e6 --n-tokens 1e9 --objective Web=1 -o {tmp}/b.json",
        "Web=1: there is no such file; write the numbers into one",
    ),
    "numbers for a file, longer than a name may be": (
        "optimize {law} --n-params 1e6 --n-tokens 1e9 --prior web=.5,{endless}=.5 -o {tmp}/b.json",
        "there is no such file; write the numbers into one",
    ),
    "pull to nothing": ("optimize {law} --n-params 1e6 --n-tokens 1e9 --pull .1 -o {tmp}/b.json", "needs --prior"),
    "pull away": (
        "optimize {law} --n-params 1e6 --n-tokens 1e9 --pull -1 --prior {stock} -o {tmp}/b.json",
        "--pull -1: it must be a number of at least 0",
    ),
    "pull in a file": (
        "optimize {law} --n-params 1e6 --n-tokens 1e9 --objective {pulled} -o {tmp}/b.json",
        "raymix optimize has --pull",
    ),
    "scale of nothing": ("optimize {law} --n-params 0 --n-tokens 1e9 -o {tmp}/b.json", "above 0"),
    "unknown format": ("import regmx . -o {tmp}/t.csv", "did you mean 'regmix'"),
    "option without value": ("import exchange {runs} --option model -o {tmp}/t.csv", "write name=value"),
    "unknown option": ("import exchange {runs} --option model=x -o {tmp}/t.csv", "no option 'model'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_2(case: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text(KEYS.removesuffix(",mixture/books") + "\na,1e6,1e9,0.5,0.5\n")
    (tmp_path / "lost.csv").write_text(KEYS.replace("books", "Books") + "\na,1e6,1e9,0.2,0.2,0.7\n")
    (tmp_path / "long.csv").write_text(KEYS + ",mixture/music\na,1e6,1e9,0.5,0.5,0,0\n")
    names = {
        key: folder / f"{key}{ending}" for key, ending in (("runs", ".csv"), ("queries", ".csv"), ("law", ".json"))
    }
    words, says = BAD[case]
    (tmp_path / "drawn.csv").write_text(KEYS + ",loss/x,unique/web\na,1e6,1e9,0.5,0.5,0,2,0\nb,1e6,1e9,1,0,0,2,1\n")
    names |= {name: tmp_path / f"{name}.csv" for name in ("short", "long", "lost", "some", "drawn")}
    (tmp_path / "stock.json").write_text('{"web": 1e9, "code": 1e9, "books": 1e9}')
    (tmp_path / "mixed.json").write_text('{"train_domain_weights": {"Web": 0.7, "code": 0.3}}')
    (tmp_path / "pulled.json").write_text('{"weights": {"Web": 1}, "pull": 0.1}')
    names |= {name: tmp_path / f"{name}.json" for name in ("stock", "mixed", "pulled")}
    result = raymix(*words.format(**names, tmp=tmp_path, endless="x" * 300).split())
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert result.stderr.startswith("raymix: ")
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_place_to_write_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}")
    check_out(tmp_path / "old.json", (".json",))
    check_out(tmp_path / "new.json", (".json",))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.json", "{}")]


def test_missing_arguments_are_usage(folder: Path) -> None:
    assert raymix("fit", folder / "runs.csv").exit_code == 2
    assert raymix("optimize", folder / "law.json", "-o", "x.json").exit_code == 2


@pytest.mark.data
@needs_data
def test_regmix_from_import_to_optimum(tmp_path: Path) -> None:
    """The 512 published runs end to end; a convex law keeps it quick."""
    table, law = tmp_path / "regmix.parquet", tmp_path / "law.json"
    imported = ask("import", "regmix", DATA / "regmix", "-o", table)
    assert (imported["trials"], len(imported["domains"]), len(imported["eval_domains"])) == (512, 17, 13)
    fitted = ask("fit", table, "-o", law, "--law", "effective_data", "--weights", "pile_cc=1")
    assert len(fitted["own"]) == 13
    assert fitted["scores"][0]["weighted_error"] < 0.02
    queries, out = tmp_path / "queries.csv", tmp_path / "pred.csv"
    ask("import", "exchange", table, "-o", queries)
    assert ask("predict", law, queries, "-o", out)["rows"] == 512
    error_BM = np.log(Observations.read(out).loss_BM / Observations.read(table).loss_BM)
    assert np.abs(error_BM).mean() < 0.015
    best = ask("optimize", law, "--n-params", 1e6, "--n-tokens", 1e9, "-o", tmp_path / "best.json")
    assert best["certificate"]["gap"] < 1e-4
    assert best["mixture"]["pile_cc"] > 0.4
    assert best["verdict"]["answer"] == "use it"
    elsewhere = ask("optimize", law, "--n-params", 1e9, "--n-tokens", 1e9, "-o", tmp_path / "best.json")
    assert any("has no n_params" in note for note in elsewhere["law"]["notes"])


@pytest.mark.data
@needs_data
@pytest.mark.filterwarnings("error")
def test_a_law_without_priors_has_an_optimum_that_can_be_written(tmp_path: Path) -> None:
    """m4 by the published objective on runs of several sizes: draws of its exponents overflow."""
    table, law = tmp_path / "runs.parquet", tmp_path / "law.json"
    ask("import", "mixinglaws", DATA / "mixinglaws" / "5Mix.parquet", "-o", table)
    ask("fit", table, "-o", law, "--law", "m4_published")
    best = ask("optimize", law, "--n-params", 3e8, "--n-tokens", 3e10, "-o", tmp_path / "best.json")
    gain = best["baselines"]["uniform"]["gain"]
    assert gain["low"] < gain["mean"] < gain["high"]


@pytest.mark.data
@needs_data
def test_redpajama_and_its_queries(tmp_path: Path) -> None:
    table, queries, law = (tmp_path / name for name in ("runs.parquet", "queries.csv", "law.json"))
    ask("import", "mixinglaws", DATA / "mixinglaws" / "RedPajama.parquet", "-o", table)
    asked = ask("import", "mixinglaws", DATA / "mixinglaws" / "queries.csv.gz", "-o", queries,
                "--option", "experiment=RedPajama")  # fmt: skip
    assert asked["eval_domains"] == []
    weights = DATA / "mixinglaws" / "valid_domains.csv"
    fitted = ask("fit", table, "-o", law, "--law", "residual_gp", "--weights", weights, "--n-params", 1e9,
                 "--n-tokens", 1e11)  # fmt: skip
    assert {score["held_out"] for score in fitted["scores"]} == {"mixtures", "sizes"}
    assert all(score["weighted_error"] < 0.01 for score in fitted["scores"])
    ask("predict", law, queries, "-o", tmp_path / "pred.csv.gz")
    best = ask("optimize", law, "--n-params", 1e9, "--n-tokens", 1e11, "-o", tmp_path / "best.json")
    assert best["certificate"]["gap"] < 1e-4
    assert best["baselines"]["uniform"]["gain"]["mean"] > 0


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    (tmp_path / "law.json").mkdir()
    done = CliRunner().invoke(app, ["fit", "runs.csv", "-o", str(tmp_path / "law.json")])
    assert done.exit_code == 2
    assert "law.json: this is a folder; name a file" in done.output


def test_online_asks_where_to_write_before_it_trains(tmp_path: Path) -> None:
    result = raymix("online", "not-even-read.yaml", "--method", "ado", "-o", tmp_path / "none" / "mixture.json")
    assert "there is no folder" in str(result.exception)


def test_online_takes_settings_and_refuses_no_scale(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "{name: s, domains: [{name: a}, {name: b}], eval_domains: [{name: a}], ladder: [{n_params: 1e6, n_tokens: 1e9}]"
        ", target: {n_params: 1e9, n_tokens: 1e10}}"
    )
    assert "s: the domains have no source" in str(raymix("online", space).exception)
    assert "t: the domains have no source" in str(raymix("online", space, "--set", "name=t").exception)
    assert "--scale 0 1e+09" in str(raymix("online", space, "--scale", 0, 1e9).exception)


def test_what_online_answers_is_exported_for_the_target_and_not_for_the_proxy(tmp_path: Path) -> None:
    domains = [{"name": "web", "available_tokens": 1e10}, {"name": "code", "available_tokens": 1e9}]
    target = {"n_params": 1e9, "n_tokens": 1e10}
    space = SearchSpace.parse({"name": "s", "domains": domains, "eval_domains": ["web"], "target": target})
    answer = Answer(np.array([0.75, 0.25]), np.array([[0.75, 0.25]]), flops=1.0)
    (tmp_path / "ado.json").write_text(json.dumps(as_recommended(answer, space)))
    assert raymix("export", tmp_path / "ado.json", "--to", "olmo-core", "-o", tmp_path / "out").exit_code == 0
    about = json.loads((tmp_path / "out" / "mixture.json").read_text())
    assert about["scale"] == target
    assert about["epochs_at_scale"] == {"web": 0.75, "code": 2.5}


def test_the_law_of_a_study_is_minimised_by_the_objective_and_noise_of_the_study(tmp_path: Path) -> None:
    space = {
        "name": "s",
        "domains": [*DOMAINS],
        "eval_domains": [*DOMAINS],
        "target": {"n_params": 4e6, "n_tokens": 1e9},
    }
    study = Study.create(
        SearchSpace.parse(space | {"objective": {"weights": {"web": 0.9, "code": 0.1}}}), tmp_path / "s"
    )
    for trial in study.ask(10):
        found = losses(np.array([trial.mixture[name] for name in DOMAINS]), trial.n_params, trial.n_tokens)
        noise = np.exp(0.003 * np.random.default_rng(trial.seed + len(study.table())).normal(size=3))
        study.tell(trial.trial_id, dict(zip(DOMAINS, (found * noise).tolist(), strict=True)))
    wanted = write_results(study)
    scale = ("--n-params", 4e6, "--n-tokens", 1e9)
    best = ask("optimize", tmp_path / "s" / "law.json", *scale, "-o", tmp_path / "best.json")
    assert best["objective"]["mean"] == pytest.approx(wanted.objective.mean, rel=0.01)
    assert max(abs(best["mixture"][name] - wanted.mixture[name]) for name in DOMAINS) < 0.05
    assert best["law"]["noise"] == pytest.approx(wanted.law["noise"], rel=0.1)
    assert best["evidence"]["trials"] == 10
    far = ask(
        "optimize", tmp_path / "s" / "law.json", "--n-params", 4e6, "--n-tokens", 1e12, "-o", tmp_path / "best.json"
    )
    assert any("times the tokens of the longest run" in note for note in far["law"]["notes"])


def test_what_a_study_asks_and_its_law_file_cannot_say_is_named(tmp_path: Path) -> None:
    """Else the optimum of the weighted mean, outside bounds and guardrails, looks like that of the study."""
    space = {
        "name": "s",
        "domains": [{"name": name, "max_share": 0.6} for name in DOMAINS],
        "eval_domains": [*DOMAINS],
        "objective": {"reduce": "worst", "guardrails": {"web": 0.0}},
        "constraints": {"groups": [{"domains": ["web", "code"], "max": 0.5}]},
        "target": {"n_params": 4e6, "n_tokens": 1e9},
    }
    study = Study.create(SearchSpace.parse(space), tmp_path / "s")
    for trial in study.ask(14):
        found = losses(np.array([trial.mixture[name] for name in DOMAINS]), trial.n_params, trial.n_tokens)
        study.tell(trial.trial_id, dict(zip(DOMAINS, (found + np.array([0.0, 0.3, 0.1])).tolist(), strict=True)))
    write_results(study)
    law, scale = tmp_path / "s" / "law.json", ("--n-params", 4e6, "--n-tokens", 1e9)
    notes = ask("optimize", law, *scale, "-o", tmp_path / "best.json")["law"]["notes"]
    (said,) = [note for note in notes if "raymix report DIR" in note]
    assert "objective.reduce: worst, objective.guardrails, constraints.groups, max_share: none of it counts" in said
    assert read_law(law).reach == Reach.of(rows_of(study.space, study.table().usable()), "hedged_union")


def test_what_was_learnt_from_runs_taken_back_is_no_longer_there(tmp_path: Path) -> None:
    """Else the page says that nothing is recommended and raymix export hands it over."""
    space = {
        "name": "s",
        "domains": [*DOMAINS],
        "eval_domains": [*DOMAINS],
        "target": {"n_params": 4e6, "n_tokens": 1e9},
    }
    study = Study.create(SearchSpace.parse(space), tmp_path / "s")
    trials = study.ask(6)
    for trial in trials:
        found = losses(np.array([trial.mixture[name] for name in DOMAINS]), trial.n_params, trial.n_tokens)
        study.tell(trial.trial_id, dict(zip(DOMAINS, found.tolist(), strict=True)))
    write_results(study)
    for trial in trials:
        study.fail(trial.trial_id, "a bug in the trainer")
    with pytest.raises(NotEnoughTrialsError, match="a bug in the trainer"):
        write_results(study)
    assert not [name for name in ("law.json", "recommendation.json") if (tmp_path / "s" / name).exists()]
    assert "No recommendation" in (tmp_path / "s" / "report.html").read_text(encoding="utf-8")
    failed = raymix("export", tmp_path / "s", "--to", "megatron")
    assert "nothing was recommended" in str(failed.exception)


def test_scores_among_losses_are_asked_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An accuracy that is minimised gives the worst mixture; what is named as a metric is none."""
    for names, asked in (
        ("loss/web,loss/arc_acc", True),
        ("loss/web,metric/arc_acc", False),
        ("loss/web,loss/a", False),
    ):
        caplog.clear()
        (tmp_path / "runs.csv").write_text(f"{KEYS},{names}\na,1e7,1e9,0.2,0.5,0.3,3.1,0.4\n")
        ask("import", "exchange", tmp_path / "runs.csv", "-o", tmp_path / "table.csv")
        assert ("raymix fit --metric arc_acc=high" in caplog.text) == asked
    (tmp_path / "sweep.csv").write_text("run,w,c,web,eval/arc_acc\na,0.5,0.5,3.1,0.4\n")
    (tmp_path / "map.yaml").write_text(
        "{trial_id: run, n_params: 1e7, n_tokens: 1e9, mixture: {web: w, code: c}, loss: {web: web, arc: eval/arc_acc}}"
    )
    ask("import", "wandb", tmp_path / "sweep.csv", "-o", tmp_path / "table.csv", "--option",
        f"mapping={tmp_path / 'map.yaml'}")  # fmt: skip
    assert "losses are minimised: eval/arc_acc; of a score" in caplog.text
    assert "call loss/arc metric/arc in the table, and say raymix fit --metric arc=high" in caplog.text


def test_sizes_in_millions_and_steps_for_tokens_are_asked_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "runs.csv").write_text(KEYS + ",loss/web\n" + "a,70,5000,0.2,0.5,0.3,3.1\nb,160,5000,0.1,0.6,0.3,3.0\n")
    ask("import", "exchange", tmp_path / "runs.csv", "-o", tmp_path / "table.csv")
    assert "the largest n_params is 160: is it in another unit?" in caplog.text
    assert "the largest n_tokens is 5e+03: is it in another unit?" in caplog.text


def test_losses_far_above_the_law_are_named_with_what_to_do(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = Observations.read(folder / "runs.csv")
    loss_B = runs.column("loss/code").copy()
    for factor, said in ((1.0, False), (3.0, True)):
        caplog.clear()
        loss_B[5] *= factor
        at = runs.table.column_names.index("loss/code")
        replace(runs, table=runs.table.set_column(at, "loss/code", pa.array(loss_B))).write(tmp_path / "runs.csv")
        ask("fit", tmp_path / "runs.csv", "-o", tmp_path / "law.json", "--law", "union")
        assert (f"losses far above the law, of {runs.trial_ids[5]!r} (loss/code " in caplog.text) is said
        assert ("give these rows the status failed" in caplog.text) is said


@pytest.mark.parametrize(("measured", "said"), [("all", ""), ("t0", "(1 of 12 runs, 1 of 2 sizes)"),
                                                ("4e6", "(6 of 12 runs, 1 of 2 sizes)")])  # fmt: skip
def test_an_eval_domain_that_few_runs_measured_is_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, measured: str, said: str
) -> None:
    rows = Observations.read(folder / "runs.csv").table.to_pylist()
    for row in rows:
        if measured not in ("all", row["trial_id"], f"{row['n_params']:.0e}".replace("e+0", "e")):
            row["loss/exams"] = None
    Observations.from_rows(rows, DOMAINS, ("Web", "code", "exams")).write(tmp_path / "runs.csv")
    ask("fit", tmp_path / "runs.csv", "-o", tmp_path / "law.json", "--law", "union")
    assert ("measured in part of the runs alone: exams" in caplog.text) == bool(said)
    assert said in caplog.text


def test_a_warm_up_is_no_run_that_diverged(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = Observations.read(folder / "runs.csv").table.to_pylist()
    early = [row | {"n_tokens": 1e7, "status": "checkpoint", "loss/code": 30.0} for row in runs[::2]]
    Observations.from_rows([*early, *runs], DOMAINS, ("Web", "code", "exams")).write(tmp_path / "runs.csv")
    ask("fit", tmp_path / "runs.csv", "-o", tmp_path / "law.json", "--law", "union")
    assert "far above the law" not in caplog.text


def test_perplexities_are_asked_about_and_one_diverged_run_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mix = ["0.2,0.5,0.3", "0.1,0.6,0.3", "0.3,0.3,0.4"]
    for losses, said in (([38.4, 36.1, 41.0], True), ([3.1, 3.0, 1e6], False)):
        caplog.clear()
        rows = [f"{name},1e8,1e9,{shares},{loss}" for name, shares, loss in zip("abc", mix, losses, strict=True)]
        (tmp_path / "runs.csv").write_text("\n".join([KEYS + ",loss/web", *rows]) + "\n")
        ask("import", "exchange", tmp_path / "runs.csv", "-o", tmp_path / "table.csv")
        assert ("a typical loss/web is 38.4: losses are nats per token, so of perplexities" in caplog.text) is said
        assert ("perplexities" in caplog.text) is said
