"""Published answers from the shell: the critical share of continual pre-training, and AutoScale from its runs on."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymix import cli
from raymix.laws.ddo import perturbations
from raymix.observations import Observations
from raymix.space import Scale
from raymix.tables.two_scales import OptimumAtScale, carried, ddo_optimum

DATA = Path(os.environ.get("RAYMIX_DATA", Path(__file__).parents[2] / "shared" / "data"))
BASE = np.array([3e8, 1e8, 6e8])
A, B = np.array([0.5, 2.0, 1.0]), np.array([0.8, 1.5, 1.1])


def raymix(*args: str | Path) -> int:
    try:
        cli.app([str(arg) for arg in args])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def loss(tokens_K: Any) -> Any:
    """3 nats at the base; of DDO's form."""
    fall_K = (tokens_K / BASE + A) ** -B
    return 3 * (1 + (fall_K - (1 + A) ** -B).sum(axis=-1))


def ddo_runs() -> Observations:
    mix_BK, n_tokens_B = perturbations(BASE)
    rows = [
        {"trial_id": f"{i}", "n_params": 1e7, "n_tokens": n_tokens, "loss/all": loss(mix_K * n_tokens)}
        | {f"mixture/{name}": share for name, share in zip("abc", mix_K, strict=True)}
        for i, (mix_K, n_tokens) in enumerate(zip(mix_BK, n_tokens_B, strict=True))
    ]
    return Observations.from_rows(rows, ("a", "b", "c"), ("all",))


def test_optimum_of_ddo_runs_is_that_of_the_truth() -> None:
    """Bases are not equal: a token of one domain is not worth one of another's base quantity."""
    found = ddo_optimum(ddo_runs(), np.ones(1))
    assert found.tokens_K.sum() == pytest.approx(1e9)
    np.testing.assert_allclose(found.offset_K, A * BASE, rtol=1e-6)
    np.testing.assert_allclose(found.least_K, BASE / 5)
    others = np.random.default_rng(0).dirichlet(np.ones(3), 2000) * 1e9
    others = others[(others >= found.least_K).all(axis=1)]
    assert len(others) > 500
    assert (loss(others) >= loss(found.tokens_K)).all()
    marginal_K = B / BASE * (found.tokens_K / BASE + A) ** (-B - 1)
    free = found.tokens_K > found.least_K * 1.001
    np.testing.assert_allclose(marginal_K[free], marginal_K[free][0], rtol=1e-4)
    assert (marginal_K[~free] <= marginal_K[free][0] * (1 + 1e-4)).all()


def test_ddo_refuses_runs_that_are_not_its_own() -> None:
    runs = ddo_runs()
    with pytest.raises(ValueError, match="no base run"):
        ddo_optimum(runs.select(np.arange(1, 7)), np.ones(1))
    with pytest.raises(ValueError, match="a: 2 different quantities"):
        ddo_optimum(runs.select(np.array([0, 2, 3, 4, 5, 6])), np.ones(1))
    rows = runs.table.to_pylist()
    rows[3] |= {"n_tokens": rows[3]["n_tokens"] * 2}
    moved = Observations.from_rows(rows, runs.domains, runs.eval_domains)
    with pytest.raises(ValueError, match=r"run .3. has other tokens of 3 domains"):
        ddo_optimum(moved, np.ones(1))
    larger = [row | {"trial_id": f"large-{row['trial_id']}", "n_params": 1e8} for row in runs.table.to_pylist()]
    sizes = Observations.from_rows([*runs.table.to_pylist(), *larger], runs.domains, runs.eval_domains)
    with pytest.raises(ValueError, match=r"2 model sizes .1e\+07, 1e\+08.: a scale of DDO's runs is one"):
        ddo_optimum(sizes, np.ones(1))
    with pytest.raises(ValueError, match="no run ended with all losses"):
        ddo_optimum(runs.select(np.zeros(7, dtype=bool)), np.ones(1))


def test_a_domain_that_is_soon_enough_has_an_optimum_at_any_number_of_tokens() -> None:
    """Its power is large, and trillions to that power are no number any more."""
    loss_B = 3.0 + np.array([0.0, 0.3, 0.3, 0.3, -1e-7, -0.1, -0.1])
    found = []
    for unit in (1.0, 3e12):
        tokens_BK = np.ones((7, 3)) * unit
        for k in range(3):
            tokens_BK[[1 + k, 4 + k], k] *= [0.2, 3.0]
        rows = [
            {"trial_id": f"{i}", "n_params": 1e7, "n_tokens": tokens_K.sum(), "loss/all": loss_B[i]}
            | {f"mixture/{name}": part for name, part in zip("abc", tokens_K / tokens_K.sum(), strict=True)}
            for i, tokens_K in enumerate(tokens_BK)
        ]
        found.append(ddo_optimum(Observations.from_rows(rows, ("a", "b", "c"), ("all",)), np.ones(1)).tokens_K / unit)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    assert found[0][0] < 0.9 < found[0][1]


def test_bounds_and_offsets_of_ddo_are_said() -> None:
    """A domain at its least quantity follows the bound, and offsets make the formula wrong: both are known here."""
    first = OptimumAtScale(("a", "b"), np.array([2e8, 8e8]), np.array([2e8, 1e8]), np.array([1e6, 9e8]))
    second = OptimumAtScale(("b", "a"), np.array([3e9, 1e9]), np.array([1e8, 1e8]), np.array([9e8, 1e6]))
    found = carried(first, second, Scale(1e9, 16e9))
    assert found.domains == ("a", "b")
    assert found.tokens_K.sum() == pytest.approx(16e9)
    assert any("a is at a bound of its share (0.2) at the first scale" in note for note in found.notes)
    assert any("b has an offset of 9e+08" in note for note in found.notes)
    assert found.to_json()["verdict"]["answer"] == "confirm first"


def test_a_bound_is_that_of_its_own_scale() -> None:
    """The least of one scale's runs is none of the other's, whose runs had another base."""
    first = OptimumAtScale(("a", "b"), np.array([5e8, 5e8]), np.array([1e8, 1e8]), np.zeros(2))
    second = OptimumAtScale(("a", "b"), np.array([6e8, 9.4e9]), np.array([1e8, 1e8]), np.zeros(2))
    assert carried(first, second, Scale(1e9, 2e10)).notes == ()
    at_bound = OptimumAtScale(("a", "b"), second.tokens_K, np.array([6e8, 1e8]), np.zeros(2))
    (note,) = carried(first, at_bound, Scale(1e9, 2e10)).notes
    assert note.startswith("a is at a bound of its share (0.06) at the second scale")


def test_an_offset_below_a_quantity_is_said_and_ends_nothing() -> None:
    """What the larger runs say may be beyond the tokens of the small scale; the formula itself knows no offsets."""
    first = OptimumAtScale.of({"a": 2e8, "b": 8e8})
    second = OptimumAtScale(("a", "b"), np.array([4e9, 6e9]), np.zeros(2), np.array([-3e8, 1e6]))
    found = carried(first, second, Scale(1e9, 2e10))
    assert found.tokens_K.sum() == pytest.approx(2e10)
    assert found.notes == ("a has an offset of -3e+08, as large as its quantity at a scale: fit a law",)


def test_autoscale_carries_what_optimize_wrote_and_export_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recommendation at one scale, tokens in a file at the other, any order; 16 times the tokens are two steps."""
    small, large, out = tmp_path / "small.json", tmp_path / "large.csv", tmp_path / "out.json"
    scale = {"n_params": 1e8, "n_tokens": 1e9}
    small.write_text(json.dumps({"mixture": {"a": 0.5, "b": 0.5}, "scale": scale}))
    large.write_text("domain,tokens\nb,3.2e9\na,8e8\n")
    wanted = ("--n-params", "7e9", "--n-tokens", "2.1e10", "-o", out)
    assert raymix("autoscale", small, large, *wanted) == 0
    found, shown = json.loads(out.read_text()), capsys.readouterr().out
    t = 1 + found["steps"]
    assert found["tokens"] == pytest.approx({"a": 5e8 * 1.6**t, "b": 5e8 * 6.4**t})
    assert sum(found["mixture"].values()) == pytest.approx(1)
    assert found["scale"] == {"n_params": 7e9, "n_tokens": 2.1e10}
    assert "at 1B tokens" in shown and "at 21B tokens" in shown
    assert "more than one published step" in " ".join(shown.split())  # in a narrow terminal, too
    assert raymix("export", out, "--to", "olmix", "--out", tmp_path / "there") == 0
    assert "confirm first" in capsys.readouterr().out


def test_what_has_no_effect_on_autoscale_or_is_no_larger_scale_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    small, large, out = tmp_path / "small.json", tmp_path / "large.json", tmp_path / "out.json"
    small.write_text('{"a": 1e9, "b": 1e9}')
    large.write_text('{"a": 2e9, "b": 8e9}')
    asked = ("autoscale", small, large, "--n-params", "1e9", "-o", out, "--n-tokens")
    assert raymix(*asked, "4e10", "--weights", "books=1") == 0
    assert "--weights has no effect: neither scale is a table of runs" in caplog.text
    assert "verdict" not in json.loads(out.read_text())
    assert raymix(*asked, "1e9") == 0
    assert "smaller than the first scale's" in json.loads(out.read_text())["verdict"]["reason"]


def test_autoscale_takes_tables_of_ddo_runs(tmp_path: Path) -> None:
    table, tokens, out = tmp_path / "ddo.csv", tmp_path / "tokens.json", tmp_path / "out.json"
    ddo_runs().write(table)
    at_1b = ddo_optimum(ddo_runs(), np.ones(1)).tokens_K
    tokens.write_text(json.dumps(dict(zip("abc", (4 * at_1b).tolist(), strict=True))))
    assert raymix("autoscale", table, tokens, "--n-params", "1e9", "--n-tokens", "1.6e10", "-o", out) == 0
    np.testing.assert_allclose(list(json.loads(out.read_text())["tokens"].values()), 16 * at_1b)


@pytest.mark.parametrize(
    ("small", "said"),
    [
        ("[]", "it must be a mapping"),
        ('{"mixture": {"a": 0.7, "b": 0.7}, "scale": {"n_params": 1, "n_tokens": 1}}', "sum"),
        ('{"mixture": {"a": 1}, "scale": 7}', "this is no recommendation"),
        ('{"a": 1e9, "c": 1e9}', "in one alone: b, c"),
        ('{"a": 1e12, "b": 1e12}', "the second scale must be the larger"),
        ('{"a": -1, "b": 1}', "above 0"),
        (
            '{"mixture": {"a": 1, "b": 0}, "scale": {"n_params": 1e8, "n_tokens": 1e9}}',
            "small.json: nothing of 'b'",
        ),
    ],
)
def test_autoscale_refuses_what_is_no_optimum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], small: str, said: str
) -> None:
    first, second = tmp_path / "small.json", tmp_path / "large.json"
    first.write_text(small)
    second.write_text('{"a": 2e9, "b": 3e9}')
    out = tmp_path / "out.json"
    assert raymix("autoscale", first, second, "--n-params", "1e9", "--n-tokens", "1e10", "-o", out) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.data
def test_published_optimum_of_autoscale_from_its_table_of_runs() -> None:
    """The 15 runs of GPT-2 large at 1.2B tokens, perplexities as released: the optimum that its authors print."""
    published = json.loads((DATA / "autoscale" / "autoscale_vectors.json").read_text())
    names = tuple(published["domains"])
    rows = []
    with (DATA / "autoscale" / "ddo_gpt2large_1p2B_ppl.csv").open() as file:
        for run in csv.DictReader(file):
            factor = {"base": 1.0, "down": 0.2, "up": 3.0}[run["direction"]]
            tokens_K = np.array([factor if name == run["domain"] else 1.0 for name in names])
            row = {"trial_id": run["run"], "n_params": 774e6, "n_tokens": tokens_K.sum() * 171e6}
            row |= {f"mixture/{name}": share for name, share in zip(names, tokens_K / tokens_K.sum(), strict=True)}
            rows.append(row | {"loss/mean": float(run["ppl_avg"])})
    found = ddo_optimum(Observations.from_rows(rows, names, ("mean",)), np.ones(1))
    free = found.tokens_K > 0.2001 * 171e6
    np.testing.assert_allclose(found.tokens_K[free] / 171e6, published["pgd_printed_6dom"], atol=1e-6)
    assert names[int(np.flatnonzero(~free)[0])] == "github" and (~free).sum() == 1


@pytest.mark.data
def test_published_critical_share_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Import, then the share: the base model's losses come from the file of the runs."""
    table, out, folder = tmp_path / "ct.csv", tmp_path / "share.json", DATA / "mixinglaws"
    assert raymix("import", "mixinglaws", folder / "ct.parquet", "-o", table) == 0
    asked = ("critical-share", table, "--original", "pile", "--weights", folder / "valid_domains.csv", "-o", out)
    assert raymix(*asked, "--json") == 0
    found = json.loads(out.read_text())
    assert found == json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["share"] == pytest.approx(0.2831, abs=5e-4)
    assert found["low"] < 0.283 < found["high"]
    assert len(found["steps"]) == 10
    assert raymix(*asked) == 0
    assert "28.3%" in capsys.readouterr().out


def test_losses_before_are_those_of_the_runs_that_measured_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """All go on from one model: where one run has not evaluated it, the others have."""
    rows: list[dict[str, Any]] = []
    for share in (0.1, 0.3, 0.5, 0.7):
        run = {"trial_id": f"{share}", "n_params": 1e7, "mixture/old": share, "mixture/new": 1 - share}
        before = 2.8 + 0.2 * np.exp(-4 * 0.4) if share > 0.1 else float("nan")
        rows.append(run | {"status": "start", "n_tokens": 0.0, "loss/old": before, "loss/new": float("nan")})
        rows.append(run | {"n_tokens": 1e9, "loss/old": 2.8 + 0.2 * np.exp(-4 * share), "loss/new": 2.0})
    table, out = tmp_path / "runs.csv", tmp_path / "share.json"
    Observations.from_rows(rows, ("old", "new"), ("old", "new")).write(table)
    assert raymix("critical-share", table, "--original", "old", "-o", out) == 0
    assert json.loads(out.read_text())["share"] == pytest.approx(0.4, abs=1e-4)
    assert raymix("critical-share", table, "--original", "old", "--weights", "old=1,new=1") == 2
    assert "'new' has no loss before" in capsys.readouterr().err
    assert raymix("critical-share", table, "--original", "old", "--n-params", "0") == 2
    assert "no row has it" in capsys.readouterr().err
    assert not [str(w.message) for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_critical_share_of_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The eval domain called as the original data is the original loss; sizes are told apart; nothing is guessed."""
    rows = [
        {"trial_id": f"{n_params:g}-{share}", "n_params": n_params, "n_tokens": 1e9, "loss/old": at, "loss/new": 2.0}
        | {"mixture/old": share, "mixture/new": 1 - share}
        for n_params, lift in ((1e7, 0.0), (3e7, -0.1))
        for share in (0.1, 0.3, 0.5, 0.7)
        for at in [2.8 + lift + 0.2 * np.exp(-4 * share)]
    ]
    table, before, out = tmp_path / "runs.csv", tmp_path / "before.json", tmp_path / "share.json"
    Observations.from_rows(rows, ("old", "new"), ("old", "new")).write(table)
    before.write_text(json.dumps({"old": 2.8 + 0.2 * np.exp(-4 * 0.4)}))
    asked = ("critical-share", table, "--original", "old", "-o", out)
    for more, said in (
        ((), "one model size"),
        (("--n-params", "1e7"), "--before FILE"),
        (("--n-params", "5e7", "--before", before), "--n-params 5e+07: no row has it"),
        (("--n-params", "1e7", "--before", before, "--weights", "new=1"), "before"),
    ):
        assert raymix(*asked, *more) == 2
        assert said in capsys.readouterr().err
    assert raymix(*asked, "--n-params", "1e7", "--before", before) == 0
    assert json.loads(out.read_text())["share"] == pytest.approx(0.4, abs=1e-4)
    (tmp_path / "weighed.csv").write_text(f"domain,weight,base_loss\nold,1,{2.8 + 0.2 * np.exp(-4 * 0.4)}\n")
    assert raymix(*asked, "--n-params", "1e7", "--before", tmp_path / "weighed.csv") == 0
    assert json.loads(out.read_text())["share"] == pytest.approx(0.4, abs=1e-4)  # the weight is no loss
    before.write_text('{"old": 0.0}')
    assert raymix(*asked, "--n-params", "1e7", "--before", before) == 2
    assert "the loss of 'old' is 0: it must be a number above 0" in capsys.readouterr().err
    before.write_text('{"old": 2.0}')
    assert raymix(*asked, "--n-params", "1e7", "--before", before) == 0
    assert json.loads(out.read_text())["share"] is None
    assert "none is enough" in capsys.readouterr().out
    assert raymix("critical-share", table, "--original", "odl") == 2
    assert "old" in capsys.readouterr().err
