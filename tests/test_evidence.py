"""Observations of other studies: what of them is still valid when domains change, and what is said of the rest."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymix import Study
from raymix.design import SpaceFilling
from raymix.observations import REUSED, Observations
from raymix.space import SearchSpace, SpaceError
from raymix.study.budget import spent
from raymix.study.evidence import take_evidence
from raymix.study.ledger import Ledger
from tests import worlds

OLD = ("web", "code", "books")
SHARES = ([0.6, 0.4, 0.0], [0.5, 0.3, 0.2], [0.8, 0.0, 0.2], [1.0, 0.0, 0.0], [0.496, 0.5, 0.004])


def table(path: Path, shares: Any = SHARES, domains: Any = OLD, evals: Any = OLD, **columns: Any) -> Path:
    """One finished run per mixture; the loss on eval domain i is 3 + i + its number / 10."""
    rows = [
        {"trial_id": f"t{b}", "n_params": 1e5, "n_tokens": 5e5, "seed": 3}
        | {f"mixture/{name}": share for name, share in zip(domains, mix, strict=True)}
        | {f"loss/{name}": 3 + i + b / 10 for i, name in enumerate(evals)}
        | {name: values[b] for name, values in columns.items()}
        for b, mix in enumerate(shares)
    ]
    Observations.from_rows(rows, domains, evals).write(path / "old.csv")
    return path / "old.csv"


def space(domains: Any, entry: Any, evals: Any = OLD, **changes: Any) -> SearchSpace:
    raw: dict[str, Any] = {
        "name": "new",
        "domains": [{"name": n} if isinstance(n, str) else n for n in domains],
        "eval_domains": [{"name": n} for n in evals],
        "ladder": [{"n_params": 1e5, "n_tokens": 5e5}],
        "target": {"n_params": 4e6, "n_tokens": 1e7},
        "from": [entry],
    }
    return SearchSpace.parse(raw | changes)


def with_text(names: Any = OLD, other: Any = (), **changes: Any) -> SearchSpace:
    """A space that trains proxies on a file for each domain, and holds its eval domains out from them."""
    folders = {name: "there" if name in other else "here" for name in names}
    raw = worlds.space().model_dump(mode="json", exclude_none=True) | {
        "domains": [{"name": n, "source": {"files": f"{f}/{n}.txt"}, "prior": 1.0} for n, f in folders.items()],
        "eval_domains": [{"name": n, "own": n} for n in names],
    }
    return SearchSpace.parse(raw | changes)


def taken(wanted: SearchSpace) -> tuple[Observations, list[str]]:
    book = Ledger(wanted)
    take_evidence(book)
    return book.table(), [note for body in book.reused.values() for note in body["notes"]]


def test_an_added_domain_had_a_share_of_zero(tmp_path: Path) -> None:
    found, notes = taken(space((*OLD, "maths"), str(table(tmp_path))))
    np.testing.assert_allclose(found.mix_BK, [[*mix, 0.0] for mix in SHARES], atol=1e-12)
    assert "'maths': not in the old runs, a share of 0 there" in notes
    assert notes[-1] == "5 of 5 rows (5 of 5 trials) taken"
    assert all(trial_id.startswith(REUSED) for trial_id in found.trial_ids)
    assert found.loss_BM[1].tolist() == [3.1, 4.1, 5.1]


def test_a_dropped_domain_leaves_the_rows_that_did_without_it(tmp_path: Path) -> None:
    found, notes = taken(space(("web", "code"), str(table(tmp_path)), evals=("web", "code")))
    np.testing.assert_allclose(found.mix_BK, [[0.6, 0.4], [1.0, 0.0], [0.496 / 0.996, 0.5 / 0.996]])
    assert "2 rows left out: they trained on text that this study cannot name" in notes
    assert "1 rows had up to 0.004 of it: the rest is scaled up" in notes
    assert "eval domain 'books' is not one of this study: left out" in notes
    strict, _ = taken(space(("web", "code"), {"table": str(table(tmp_path)), "drop_below": 0.0}, evals=("web", "code")))
    assert len(strict) == 2


def test_a_renamed_domain_keeps_its_share(tmp_path: Path) -> None:
    entry = {"table": str(table(tmp_path)), "rename": {"books": "prose"}, "rename_evals": {"books": "prose"}}
    found, notes = taken(space(("code", "prose", "web"), entry, evals=("prose", "web", "code")))
    np.testing.assert_allclose(found.mix_BK[1], [0.3, 0.2, 0.5])
    assert found.loss_BM[1].tolist() == [5.1, 3.1, 4.1]
    assert notes == ["5 of 5 rows (5 of 5 trials) taken"]


def test_a_merged_domain_is_the_sum_and_its_spread_is_said(tmp_path: Path) -> None:
    entry = {"table": str(table(tmp_path)), "merge": {"text": ["web", "books"]}}
    found, notes = taken(space(("text", "code"), entry))
    np.testing.assert_allclose(found.mix_BK[:, 0], [0.6, 0.7, 1.0, 1.0, 0.5])
    assert "'text' is 'web' + 'books', taken as one domain; 'web' was 71% to 100% of it" in notes


def test_a_split_domain_counts_where_its_parts_are_known(tmp_path: Path) -> None:
    path = str(table(tmp_path))
    new = ("web", "code", "novels", "papers")
    given, _ = taken(space(new, {"table": path, "split": {"books": {"novels": 3, "papers": 1}}}))
    np.testing.assert_allclose(given.mix_BK[1], [0.5, 0.3, 0.15, 0.05])
    sized = [{"name": name, "available_tokens": tokens} for name, tokens in zip(new, (1e9, 1e9, 1e8, 3e8), strict=True)]
    counted, _ = taken(space(sized, {"table": path, "split": {"books": ["novels", "papers"]}}))
    np.testing.assert_allclose(counted.mix_BK[1], [0.5, 0.3, 0.05, 0.15])
    unknown, notes = taken(space(new, {"table": path, "split": {"books": ["novels", "papers"]}}))
    assert len(unknown) == 2  # those without books
    assert "'books' was split, in proportions that are not known: only rows without it count" in notes


def test_tokens_and_scales_come_along_and_failures_stay_behind(tmp_path: Path) -> None:
    columns = {"tokens/books": [0, 1e5, 1e5, 0, 2e3], "seconds": [1.0] * 5, "status": ["done"] * 4 + ["failed"]}
    entry = {"table": str(table(tmp_path, **columns)), "merge": {"text": ["web", "books"]}}
    found, notes = taken(space(("text", "code"), entry))
    assert len(found) == 4
    assert "1 rows without losses (failed or stopped trials) left out" in notes
    np.testing.assert_array_equal(found.scale_B2, [[1e5, 5e5]] * 4)
    assert found.column("seconds").tolist() == [1.0] * 4


def test_tokens_of_one_domain_that_are_not_known_leave_the_others(tmp_path: Path) -> None:
    unknown = {"unique/web": [1e6] * 5, "unique/code": [2e6] * 5, "tokens/code": [3e5] * 5}
    path = str(table(tmp_path, **unknown))
    found, _ = taken(space((*OLD, "maths"), path))
    np.testing.assert_array_equal(found.unique_BK[0], [1e6, 2e6, np.nan, np.nan])
    np.testing.assert_array_equal(found.tokens_BK[0], [np.nan, 3e5, np.nan, 0])
    merged, _ = taken(space(("text", "code"), {"table": path, "merge": {"text": ["web", "books"]}}))
    np.testing.assert_array_equal(merged.unique_BK[0], [np.nan, 2e6])
    untold, _ = taken(space((*OLD, "maths"), str(table(tmp_path))))
    assert np.isnan(untold.unique_BK).all()


def test_a_law_waits_until_every_eval_domain_is_measured(tmp_path: Path) -> None:
    wanted = space(OLD, str(table(tmp_path)), evals=(*OLD, "exams"))
    book = Ledger(wanted)
    take_evidence(book)
    assert len(book.table()) == 0  # no row of the old runs says anything about exams
    (trial,) = book.ask(1)
    book.observe(trial.trial_id, {f"loss/{name}": 3.0 for name in wanted.eval_names})
    assert len(book.table()) == 6
    assert np.isnan(book.table().loss_BM[:5, 3]).all()


def test_evidence_is_no_part_of_the_budget_and_helps_from_the_first_round(tmp_path: Path) -> None:
    old = Study.create(worlds.space(), tmp_path / "old")
    for trial in old.ask(5):
        mix_K = np.asarray([trial.mixture[name] for name in OLD])
        old.tell(trial.trial_id, dict(zip(OLD, worlds.losses(mix_K, trial.n_params, trial.n_tokens), strict=True)))
    wanted = worlds.space(budget={"trials": 2}, **{"from": [str(tmp_path / "old")]})
    study = Study.create(wanted, tmp_path / "new")
    found = study.recommend()
    assert found.evidence["reused"] == 5
    assert found.evidence["flops"] == found.evidence["tokens"] == 0
    assert spent(study.ledger).trials == 0
    assert found.mixture == pytest.approx(old.recommend().mixture, abs=1e-6)
    assert len(Study.open(tmp_path / "new", SpaceFilling(wanted)).ask(8)) == 2


def test_what_was_taken_outlives_its_source(tmp_path: Path) -> None:
    path = table(tmp_path)
    wanted = space(OLD, str(path))
    Study.create(wanted, tmp_path / "new")
    path.unlink()
    again = Study.resume(wanted, tmp_path / "new")
    assert len(again.table()) == 5
    assert len(next(iter(again.ledger.reused.values()))["sha256"]) == 64
    assert len(again.ask(2)) == 2
    without = Study.resume(wanted.model_copy(update={"reuse": ()}), tmp_path / "new")
    assert not [trial_id for trial_id in without.table().trial_ids if trial_id.startswith(REUSED)]


def test_a_source_that_has_more_since_is_said_and_a_fork_takes_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = Study.create(worlds.space(), tmp_path / "old")
    trials = old.ask(5)
    for trial in trials[:3]:
        old.tell(trial.trial_id, dict(zip(OLD, (3.0, 4.0, 5.0), strict=True)))
    wanted = worlds.space(**{"from": [str(tmp_path / "old")]})
    Study.create(wanted, tmp_path / "new")
    old.fail(trials[3].trial_id, "out of memory")  # gives no row
    Study.resume(wanted, tmp_path / "new")
    assert "it has changed" not in caplog.text
    old.tell(trials[4].trial_id, dict(zip(OLD, (3.5, 4.0, 5.0), strict=True)))
    again = Study.resume(wanted, tmp_path / "new")
    assert "it has changed: it would give 4 rows, and this study goes on with the 3 that it took" in caplog.text
    assert len(again.table()) == 3
    assert len(Study.fork(wanted, tmp_path / "new", tmp_path / "fork").table()) == 4


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a"), ("b", "c"), ("a", "b", "c")])
def test_evidence_by_several_routes_counts_once(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name, sources in (("a", []), ("b", ["a"]), ("c", ["b"])):
        study = Study.create(worlds.space(**{"from": [str(tmp_path / source) for source in sources]}), tmp_path / name)
        for trial in study.ask(2):
            row = worlds.rows(trial)[1]
            study.tell(trial.trial_id, {domain: row[f"loss/{domain}"] for domain in OLD})
    found, _ = taken(worlds.space(**{"from": [str(tmp_path / name) for name in names]}))
    assert len(found) == len({tuple(loss_M) for loss_M in found.loss_BM}) == (6 if "c" in names else 4)
    assert sum(trial_id.count(REUSED) == 1 for trial_id in found.trial_ids) == 2 * len(names), "by the shortest route"


def test_what_a_study_measured_itself_is_no_evidence_for_it(tmp_path: Path) -> None:
    for name, source in (("a", []), ("b", ["a"])):
        study = Study.create(worlds.space(**{"from": [str(tmp_path / old) for old in source]}), tmp_path / name)
        for trial in study.ask(3):
            row = worlds.rows(trial)[1]
            study.tell(trial.trial_id, {domain: row[f"loss/{domain}"] for domain in OLD})
    both = Study.fork(worlds.space(), tmp_path / "b", tmp_path / "a").table()
    assert len(both) == len({tuple(loss_M) for loss_M in both.loss_BM}) == 6
    assert sum(trial_id.startswith(REUSED) for trial_id in both.trial_ids) == 3


def test_runs_whose_stages_fix_another_part_are_no_evidence(tmp_path: Path) -> None:
    """Their mixtures are of the rest of a run, and not of the whole of it."""
    staged = {"recipe": {"stages": [{"tokens": 0.75}, {"tokens": 0.25, "mixture": {"books": 1.0}}]}}
    study = Study.create(worlds.space(**staged), tmp_path / "a")
    for trial in study.ask(3):
        study.tell(trial.trial_id, dict.fromkeys(OLD, 3.0))
    entry = {"from": [str(tmp_path / "a")]}
    for changes, n in (({}, 0), (staged, 3), ({"recipe": {"stages": [{"tokens": 0.5}, {"tokens": 0.5}]}}, 0)):
        found, notes = taken(worlds.space(**entry, **changes))
        assert len(found) == n
        assert any("recipe.stages" in note for note in notes) == (n == 0)


def test_stages_that_fix_the_same_part_in_other_words_are_no_reason(tmp_path: Path) -> None:
    """A share of 0 that is written, and domains put together that the stage shared out."""

    def staged(**mixture: float) -> dict[str, Any]:
        return {"recipe": {"stages": [{"tokens": 0.75}, {"tokens": 0.25, "mixture": mixture}]}}

    study = Study.create(worlds.space(**staged(code=0.5, books=0.5)), tmp_path / "a")
    for trial in study.ask(3):
        study.tell(trial.trial_id, dict.fromkeys(OLD, 3.0))
    old = {"study": str(tmp_path / "a")}
    for domains, entry, changes, n in (
        (OLD, old, staged(web=0.0, code=0.5, books=0.5), 3),
        (OLD, old, staged(web=0.5, code=0.5), 0),
        (("web", "text"), old | {"merge": {"text": ["code", "books"]}}, staged(text=1.0), 3),
        (("web", "text"), old | {"merge": {"text": ["code", "books"]}}, staged(web=1.0), 0),
    ):
        insist = {"rename": {"web": "web"} if "merge" in entry else {name: name for name in OLD},
                  "rename_evals": {name: name for name in OLD}}  # fmt: skip
        found, notes = taken(space(domains, None, **{"from": [entry | insist]}, **changes))
        assert len(found) == n
        assert any("recipe.stages" in note for note in notes) == (n == 0)


def test_two_entries_may_map_one_table_differently(tmp_path: Path) -> None:
    path, swapped = str(table(tmp_path)), {"rename_evals": {"web": "code", "code": "web"}}
    found, _ = taken(space(OLD, path, **{"from": [{"table": path}, {"table": path} | swapped]}))
    assert len(found) == len(set(found.trial_ids)) == 2 * len(SHARES)


def test_a_table_given_twice_under_other_names_counts_once(tmp_path: Path) -> None:
    first = table(tmp_path).rename(tmp_path / "first.csv")
    rows = [row | {"trial_id": f"run-{row['trial_id']}"} for row in Observations.read(first).table.to_pylist()]
    rows[0] |= {f"loss/{name}": 2.5 for name in OLD}  # another run of that mixture
    Observations.from_rows(rows, OLD, OLD).write(tmp_path / "second.csv")
    wanted = space(OLD, str(first)).model_dump(mode="json", by_alias=True, exclude_none=True)
    wanted["from"] = [str(first), str(tmp_path / "second.csv")]
    found, notes = taken(SearchSpace.parse(wanted))
    assert len(found) == len(SHARES) + 1
    assert "4 trials have the mixture, scale and every loss of another to the last digit ('run-t1' of 't1'" in notes[-1]


def test_a_fork_has_what_the_old_study_took_once(tmp_path: Path) -> None:
    wanted = space(OLD, str(table(tmp_path)))
    Study.create(wanted, tmp_path / "old")
    larger = wanted.model_copy(update={"target": wanted.target.model_copy(update={"n_params": 8e6})})
    assert len(Study.fork(larger, tmp_path / "old", tmp_path / "new").table()) == len(SHARES)


def test_trials_numbered_alike_in_two_tables_both_count(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    paths = table(tmp_path), table(tmp_path / "other", evals=OLD[::-1])
    found, _ = taken(space(OLD, str(paths[0]), **{"from": list(map(str, paths))}))
    assert len(found) == 2 * len(SHARES)


def test_the_same_evidence_gives_the_same_proposals(tmp_path: Path) -> None:
    wanted = space(OLD, str(table(tmp_path)))
    asked = []
    for name in ("a", "b"):
        study = Study.create(wanted, tmp_path / name)
        asked.append([trial.trial_id for trial in study.ask(3)])
    assert asked[0] == asked[1]


def test_other_text_under_the_same_name_is_not_evidence(tmp_path: Path) -> None:
    old = Study.create(with_text(tokenizer="gpt2"), tmp_path / "old")
    for trial in old.ask(4):
        mix_K = np.asarray([trial.mixture[name] for name in OLD])
        old.tell(trial.trial_id, dict(zip(OLD, worlds.losses(mix_K, trial.n_params, trial.n_tokens), strict=True)))
    entry = {"study": str(tmp_path / "old")}
    same, _ = taken(with_text(tokenizer="gpt2", **{"from": [entry]}))
    assert len(same) == 4
    other, notes = taken(with_text(other=OLD, tokenizer="gpt2", **{"from": [entry]}))
    assert len(other) == 0
    assert "'web' has another source here: only rows without it count (or rename it to itself)" in notes
    insisted, _ = taken(
        with_text(other=OLD, tokenizer="gpt2", **{"from": [entry | {"rename": {name: name for name in OLD}}]})
    )
    assert len(insisted) == 4
    tokenized, notes = taken(with_text(tokenizer="llama", **{"from": [entry]}))
    assert len(tokenized) == 0
    assert any("its tokenizer is another one" in note for note in notes)


@pytest.mark.parametrize(
    ("names", "other", "entry"),
    [
        ((*OLD, "forums"), (), {"split": {"web": {"web": 3, "forums": 1}}}),
        (("web", "code"), (), {"merge": {"web": ["web", "books"]}}),
        (OLD, ("web",), {"drop_below": 0.4}),
        (OLD, ("web",), {"rename": {"web": "web"}}),
    ],
)
def test_held_out_from_other_text_is_another_eval_domain(tmp_path: Path, names: Any, other: Any, entry: Any) -> None:
    """A part of a domain, or a domain and more, under the old name; unless the text is said to be the same."""
    Study.create(with_text(), tmp_path / "old")
    entry = {"study": str(tmp_path / "old")} | entry
    _, notes = taken(with_text(names, other, **{"from": [entry]}))
    said = "eval domain 'web' is another text here: left out (rename it to itself to insist)"
    assert (said in notes) == ("rename" not in entry)
    _, notes = taken(with_text(names, other, **{"from": [entry | {"rename_evals": {"web": "web"}}]}))
    assert said not in notes


def test_losses_of_another_recipe_are_others(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "old")
    for trial in study.ask(3):
        study.tell(trial.trial_id, dict.fromkeys(OLD, 3.0))
    study.table().write(tmp_path / "old.csv")
    bert = {"recipe": {"family": "bert", "hang_seconds": 60.0}}
    found, notes = taken(worlds.space(**bert, **{"from": [str(tmp_path / "old")]}))
    assert len(found) == 0
    assert any(note.startswith("trained by another recipe (family: gpt2 -> bert), so its losses") for note in notes)
    assert len(taken(worlds.space(**bert, **{"from": [str(tmp_path / "old.csv")]}))[0]) == 3
    same = {"recipe": {"hang_seconds": 60.0, "promote": False}}
    assert len(taken(worlds.space(**same, **{"from": [str(tmp_path / "old")]}))[0]) == 3


def test_tokenizers_trained_on_other_domains_are_said(tmp_path: Path) -> None:
    Study.create(with_text(), tmp_path / "old")
    entry = {"from": [str(tmp_path / "old")]}
    for names, n_said in ((OLD, 0), (OLD[::-1], 0), ((*OLD, "maths"), 1)):
        _, notes = taken(with_text(names, **entry))
        assert sum("name one `tokenizer`" in note for note in notes) == n_said
    Study.create(with_text(tokenizer="gpt2"), tmp_path / "named")
    Study.create(worlds.space(), tmp_path / "trained elsewhere")
    for name, tokenizer in (("named", {"tokenizer": "gpt2"}), ("trained elsewhere", {})):
        _, notes = taken(with_text((*OLD, "maths"), **tokenizer, **{"from": [str(tmp_path / name)]}))
        assert not any("tokenizer" in note for note in notes)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"table": "nowhere.csv"}, "there is no such file"),
        ({"study": "nowhere"}, "no study here"),
        ({"rename": {"wep": "web"}}, "it has no domain 'wep'"),
        ({"rename": {"web": "webb"}}, "'webb' is not a domain of this space"),
        ({"rename": {"web": "code"}, "merge": {"code": ["web"]}}, "'web' is named twice"),
        ({"rename_evals": {"exams": "web"}}, "no eval domain 'exams'"),
        ({"rename_evals": {"web": "code"}}, "'web' and 'code' would both be eval domain 'code'"),
        ({"rename": {"web": "code"}}, "'web' and 'code' would both be 'code': name them under merge"),
        ({"split": {"web": []}}, "split: 'web' names no parts"),
        ({"split": {"web": ["code", "code"]}}, "split: 'web' names 'code' twice"),
        ({"split": {"web": {"code": -1, "books": 2}}}, "split: the share of 'code' in 'web' is -1"),
        ({"split": {"web": {"code": 0, "books": 0}}}, "split: the shares of 'web' are all 0"),
        ({"merge": {"web": []}}, "merge: 'web' names no parts"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, entry: dict[str, Any], words: str) -> None:
    known = {} if {"table", "study"} & set(entry) else {"table": str(table(tmp_path))}
    with pytest.raises(SpaceError, match=words):
        Study.create(space(OLD, entry | known), tmp_path / "new")
    assert not (tmp_path / "new" / "study.json").exists()


def test_two_domains_may_change_names(tmp_path: Path) -> None:
    swapped, _ = taken(space(OLD, {"table": str(table(tmp_path)), "rename": {"web": "code", "code": "web"}}))
    assert swapped.mix_BK[0].tolist() == [0.4, 0.6, 0.0]


def test_an_entry_names_one_source() -> None:
    with pytest.raises(SpaceError, match="either a study or a table"):
        space(OLD, {"study": "a", "table": "b"})
    with pytest.raises(SpaceError, match="did you mean 'from'"):
        SearchSpace.parse(worlds.space().model_dump(mode="json", exclude_none=True) | {"form": []})


def test_runs_of_several_sizes_under_one_name_are_several_trials(tmp_path: Path) -> None:
    """As checkpoints of one run the rows of the small sizes, a tenth of the longest and less, would not be fitted."""
    ids, sizes, tokens = ["m0", "m0", "m0", "m1", "m2"], [1e5, 1e6, 1e7, 1e5, 1e6], [5e5, 5e6, 1e8, 5e5, 5e6]
    shares = [SHARES[0], SHARES[0], SHARES[0], SHARES[1], SHARES[2]]
    path = table(tmp_path, shares, trial_id=ids, n_params=sizes, n_tokens=tokens)
    found, _ = taken(space(OLD, str(path)))
    assert len(set(found.run_B.tolist())) == len(found.last()) == 5
    assert [trial_id.rpartition("/")[2] for trial_id in found.trial_ids] == [
        "m0@100000",
        "m0@1e+06",
        "m0@1e+07",
        "m1",
        "m2",
    ]


def test_a_study_that_took_them_under_one_name_reads_them_as_several(tmp_path: Path) -> None:
    """As versions did that recorded the names of the table."""
    path = table(tmp_path, [SHARES[0]] * 2 + [SHARES[1]], trial_id=["m0", "m0", "m1"], n_params=[1e5, 1e7, 1e5])
    wanted = space(OLD, str(path))
    now = Ledger(wanted)
    take_evidence(now)
    ((kind, body),) = now.events or []
    rows = [row | {"trial_id": row["trial_id"].partition("@")[0]} for row in body["rows"]]
    then = Ledger(wanted, events=[(kind, body | {"rows": rows})])
    assert then.table().trial_ids == now.table().trial_ids
    assert len(set(then.table().run_B.tolist())) == 3
