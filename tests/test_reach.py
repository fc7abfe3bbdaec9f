"""Outside the mixtures trained intervals are as wide as the law errs on its own extremes, inside as they were."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raymix.laws import make_law
from raymix.laws import reach as laws_reach
from raymix.laws.base import Array
from raymix.laws.reach import MOST, Reach, widening
from raymix.observations import Observations
from raymix.space import Scale, SearchSpace
from raymix.tables.advise import Wanted, advise
from raymix.tables.choose import own_domains, rows_of
from raymix.tables.law_file import LawFile, Trained, read_law, write_law
from raymix.tables.predictions import predict_table
from raymix.target.recommend import fit_law, recommend

DATA = Path(os.environ.get("RAYMIX_DATA") or Path(__file__).parents[2] / "shared" / "data")
NAMES = ("a", "b", "c")


def losses(mix_BK: Array) -> Array:
    """Straight in the shares up to .6, then steep: no law of ours has such a corner."""
    bend_BK = np.maximum(mix_BK - 0.6, 0.0)
    return np.asarray(3.0 - 0.5 * mix_BK @ np.array([[1.0, 0.2], [0.3, 0.8], [0.2, 0.1]]) + 2 * bend_BK.sum(1)[:, None])


def runs_of(mix_BK: Array, seed: int = 0) -> Observations:
    loss_BM = losses(mix_BK) * np.exp(0.002 * np.random.default_rng(seed).normal(size=(len(mix_BK), 2)))
    rows = [
        {"trial_id": f"t{i}", "n_params": 1e8, "n_tokens": 1e9}
        | {f"mixture/{name}": share for name, share in zip(NAMES, mix_K, strict=True)}
        | {"loss/x": loss_M[0], "loss/y": loss_M[1]}
        for i, (mix_K, loss_M) in enumerate(zip(mix_BK, loss_BM, strict=True))
    ]
    return Observations.from_rows(rows, NAMES, ("x", "y"))


def fitted(runs: Observations, name: str = "union") -> LawFile:
    law = make_law(name).fit(runs.mix_BK, runs.scale_B2, runs.loss_BM)
    reach = Reach.of(rows_of(runs, None), name)
    return LawFile(law, runs.domains, runs.eval_domains, np.full(2, 0.5), Trained.on(runs), {}, None, reach)


BENT = np.random.default_rng(1).dirichlet(np.ones(3), 40)
BENT = BENT[BENT.max(axis=1) < 0.8]


def test_a_law_that_errs_on_its_extremes_is_less_sure_beyond_them_alone() -> None:
    found = fitted(runs_of(BENT))
    assert found.reach is not None
    assert 1.2 < found.reach.widen <= MOST
    corner, inside = np.eye(3), np.full((1, 3), 1 / 3)
    assert found.widening(np.vstack([corner, inside])).tolist() == [*[found.reach.widen] * 3, 1.0]
    assert (found.widening(BENT) == 1).all()  # what was trained is inside, whatever the last digit
    queries = runs_of(np.vstack([corner[:1], inside]))
    table, notes = predict_table(found, queries, "q.csv")
    half_B = np.log(np.array(table["loss_high/x"]) / np.array(table["loss/x"]))
    sd_B = found.law.sd(queries.mix_BK, queries.scale_B2)[:, 0]
    np.testing.assert_allclose(half_B, 1.645 * sd_B * [found.reach.widen, 1.0], rtol=1e-9)
    assert [note for note in notes if f"{found.reach.widen:.2g} times as wide" in note]
    there = advise(found, Wanted(Scale(1e8, 1e9), least={"a": 0.95}))
    x = there.losses["x"]
    mix_1K = np.array([list(there.mixture.values())])
    sd = found.law.sd(mix_1K, [1e8, 1e9])[0, 0] * found.reach.widen
    assert x.high / x.mean == pytest.approx(np.exp(1.645 * sd), rel=1e-3)


def test_intervals_that_are_hardly_wider_are_not_said_to_be_once_as_wide() -> None:
    found = fitted(runs_of(BENT))
    assert found.reach is not None
    hardly = replace(found, reach=replace(found.reach, widen=1.03))
    (note,) = predict_table(hardly, runs_of(np.eye(3)[:1]), "q.csv")[1]
    assert note.endswith("trained): errors may be larger than the intervals there")


def space_where(least: float) -> SearchSpace:
    """Of the domains of `runs_of`, with so much of the first at least."""
    scale = {"n_params": 1e8, "n_tokens": 1e9}
    domains = [{"name": name, "min_share": least if name == "a" else 0.0} for name in NAMES]
    evals = [{"name": name} for name in ("x", "y")]
    return SearchSpace.parse(
        {"name": "s", "domains": domains, "eval_domains": evals, "ladder": [scale], "target": scale}
    )


def test_a_study_is_less_sure_of_what_it_recommends_outside_its_mixtures() -> None:
    space, runs = space_where(0.95), runs_of(BENT)
    law = fit_law(space, runs)
    found, _ = recommend(space, runs, law)
    mix_1K = np.array([list(found.mixture.values())])
    (factor,) = widening(rows_of(runs, None), law.name, mix_1K)
    assert 1.2 < factor <= MOST
    half = 1.645 * law.sd(mix_1K, [1e8, 1e9])[0, 0] * factor
    assert found.losses["x"].high / found.losses["x"].mean == pytest.approx(np.exp(half), rel=1e-6)
    assert [note for note in found.law["notes"] if f"{factor:.2g} times as wide" in note]


def test_a_study_that_recommends_inside_its_mixtures_fits_no_law_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laws_reach, "_widening", lambda *_: pytest.fail("a law was fitted once more"))
    space, runs = space_where(0.0), runs_of(BENT)
    law = fit_law(space, runs)
    found, _ = recommend(space, runs, law)
    half = 1.645 * law.sd(np.array([list(found.mixture.values())]), [1e8, 1e9])[0, 0]
    assert found.losses["x"].high / found.losses["x"].mean == pytest.approx(np.exp(half), rel=1e-6)


def test_a_law_that_holds_there_is_as_sure_as_before() -> None:
    rng = np.random.default_rng(2)
    mix_BK = rng.dirichlet(np.ones(3), 40)
    rows = runs_of(mix_BK)
    truth_BM = 1.5 + 0.7 * ((mix_BK + 0.01) ** 0.5 @ np.array([[1.0, 0.3], [0.3, 1.0], [0.2, 0.2]])) ** -0.3
    table = rows.table
    for i, name in enumerate(("x", "y")):
        column = truth_BM[:, i] * np.exp(0.004 * rng.normal(size=len(mix_BK)))
        table = table.set_column(table.column_names.index(f"loss/{name}"), f"loss/{name}", [column])
    found = fitted(Observations(table, NAMES, ("x", "y")))
    assert found.reach is not None
    assert found.reach.widen < 1.2


def test_few_mixtures_say_nothing() -> None:
    assert Reach.of(rows_of(runs_of(BENT[:11]), None), "union").widen == 1


def test_the_order_of_rows_and_domains_changes_nothing() -> None:
    one = Reach.of(rows_of(runs_of(BENT), None), "union")
    rows = runs_of(BENT)
    again = Reach.of(rows_of(rows.select(np.random.default_rng(0).permutation(len(rows))), None), "union")
    assert again.widen == pytest.approx(one.widen, rel=1e-9)
    other = Observations(rows.table, NAMES[::-1], rows.eval_domains)
    assert Reach.of(rows_of(other, None), "union").widen == pytest.approx(one.widen, rel=1e-6)


def test_reach_is_written_and_read_and_damage_is_named(tmp_path: Path) -> None:
    found, path = fitted(runs_of(BENT)), tmp_path / "law.json"
    write_law(path, found)
    assert read_law(path).reach == found.reach
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in raw.items() if key != "reach"}))
    assert read_law(path).widening(np.eye(3)).tolist() == [1, 1, 1]
    for damage in ({"center": [0.5]}, {"widen": 0.5}, {"radius": "much"}):
        path.write_text(json.dumps(raw | {"reach": raw["reach"] | damage}))
        with pytest.raises(ValueError, match="the law in this file is damaged"):
            read_law(path)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no published runs in {DATA}; set RAYMIX_DATA to their folder")
def test_intervals_of_the_farthest_published_mixtures_hold_more() -> None:
    """RegMix, 256 runs of which the farthest quarter is kept back: .79 of its losses were held, and now .9."""
    from raymix.formats import import_runs

    runs = import_runs("regmix", DATA / "regmix")
    runs = runs.select(np.random.default_rng(6).permutation(len(runs))[:256])
    root_BK = np.sqrt(runs.mix_BK)
    order = np.argsort(((root_BK - root_BK.mean(axis=0)) ** 2).sum(axis=1))
    inner, far, own_M = runs.select(order[:192]), runs.select(order[192:]), own_domains(runs.domains, runs.eval_domains)
    law = make_law("union").fit(inner.mix_BK, inner.scale_B2, inner.loss_BM, None, own_M)
    weights_M, reach = np.full(13, 1 / 13), Reach.of(rows_of(inner, own_M), "union")
    found = LawFile(law, runs.domains, runs.eval_domains, weights_M, Trained.on(inner), {}, None, reach)
    error_BM = np.abs(np.log(law.predict(far.mix_BK, far.scale_B2) / far.loss_BM))
    sd_BM = law.sd(far.mix_BK, far.scale_B2)
    assert (error_BM < 1.645 * sd_BM).mean() < 0.82
    assert 0.86 < (error_BM < 1.645 * sd_BM * found.widening(far.mix_BK)[:, None]).mean() < 0.95
