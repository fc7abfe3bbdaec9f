"""LAW.json gives back the law, and says what is wrong with a file that is no law."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from raymix.laws import make_law
from raymix.observations import Observations
from raymix.space import Scale
from raymix.tables.law_file import LawFile, Trained, read_law, write_law
from raymix.tables.notes import notes_at
from raymix.testing import synthetic_runs

RUNS = synthetic_runs(n_mixtures=8)
DOMAINS, EVALS = ("web", "code", "<b>", "\u65e5\u672c"), ("exams", "a/b", "c")
TRAINED = Trained((2e7, 6e7, 2e8), (5e8, 2e9), 8, 24, 72, ((0.0, 0.5), (0.0, 0.6), (0.1, 0.7), (0.0, 1.0)))


def law_file(name: str = "union") -> LawFile:
    choice = {"name": name, "why": "asked for", "scores": []}
    return LawFile(RUNS.fit(make_law(name)), DOMAINS, EVALS, np.array([0.5, 0.25, 0.25]), TRAINED, choice)


@pytest.mark.parametrize("name", ["union", "hedged_union", "residual_gp", "nested", "average"])
def test_what_was_written_is_read_back_exactly(name: str, tmp_path: Path) -> None:
    found = law_file(name)
    write_law(tmp_path / "law.json", found)
    again = read_law(tmp_path / "law.json")
    assert again.law.to_json() == found.law.to_json()
    for read in ("predict", "sd"):
        want_BM = getattr(found.law, read)(RUNS.mix_BK, RUNS.scale_B2)
        got_BM = getattr(again.law, read)(RUNS.mix_BK, RUNS.scale_B2)
        np.testing.assert_allclose(got_BM, want_BM, rtol=1e-9)  # nested: the order of sums goes with the scales asked
    assert (again.domains, again.eval_domains, again.trained) == (DOMAINS, EVALS, TRAINED)
    assert again.weights_M.tolist() == [0.5, 0.25, 0.25]
    assert again.choice == found.choice
    assert [path.name for path in tmp_path.iterdir()] == ["law.json"]


def test_a_law_and_names_alone_are_read(tmp_path: Path) -> None:
    """As a program of one's own writes them."""
    path = tmp_path / "law.json"
    path.write_text(json.dumps(law_file().law.to_json() | {"domains": DOMAINS, "eval_domains": EVALS}))
    found = read_law(path)
    assert found.trained is None
    assert found.choice == {}
    np.testing.assert_allclose(found.weights_M, 1 / 3)


def test_share_beyond_any_run_is_counted() -> None:
    mix_BK = np.array([[0.75, 0.0, 0.25, 0.0], [0.25, 0.25, 0.25, 0.25], [0.0, 0.1, 0.9, 0.0]])
    np.testing.assert_allclose(TRAINED.beyond(mix_BK), [0.25, 0.0, 0.2])


def test_notes_of_eval_domains_are_by_name_and_said_once() -> None:
    found = law_file()
    found.law.notes_ = [*(f"eval domain {i}: no own training domain" for i in range(3)), "eval domain 1: odd", "else"]
    assert found.notes == ["eval domains exams, a/b, c: no own training domain", "eval domain a/b: odd", "else"]
    held = replace(TRAINED, shares=((0.1, 0.1), (0.0, 0.6), (0.1, 0.7), (0.0, 0.0)))
    said = "all runs have one share of web (0.1), \u65e5\u672c (0): the effect of another is prior only"
    assert replace(found, trained=held).notes[3:] == [said]
    assert replace(found, trained=replace(held, mixtures=1)).notes == found.notes  # a law says so itself
    both = replace(found, trained=held, elsewhere=law_file("m1").law)  # which is read beyond 2B tokens
    assert not set(both.notes) & set(notes_at(both, Scale(2e8, 2e10)))
    many = replace(found, eval_domains=tuple(f"e{i}" for i in range(22)))
    many.law.notes_ = [f"eval domain {i}: far" for i in range(22)]
    assert many.notes == ["22 eval domains (e0, e1, e2, ...): far"]


def test_intervals_of_few_mixtures_are_said_to_hold_less() -> None:
    found = law_file()
    for mixtures, domains, few in (
        (6, DOMAINS, True),
        (7, DOMAINS, False),
        (11, range(40), True),
        (12, range(40), False),
    ):
        wide = Trained((2e7,), (5e8, 2e9), mixtures, 24, 72, ((0.0, 0.5),) * len(domains))
        notes = replace(found, domains=tuple(map(str, domains)), trained=wide).notes
        assert ([note for note in notes if "hold less often" in note] != []) == few
    for name, mixtures, few in (("union", 4, True), ("union", 1, False), ("chinchilla", 4, False)):  # it reads none
        notes = replace(law_file(name), trained=replace(TRAINED, mixtures=mixtures)).notes
        assert any("hold less often" in note for note in notes) == few


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    write_law(path, law_file())
    whole = path.read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // 200)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"law\.json: not a law file"):
            read_law(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"law": "no_such_law"}, "unknown law"),
        ({"learned": {}}, "is missing"),
        ({"settings": {"exec": 1}}, "damaged"),
        ({"domains": ["web", "code", "books"]}, "damaged"),
        ({"domains": ["web", "web", "code", "books"]}, "distinct"),
        ({"domains": "web"}, "list of names"),
        ({"eval_domains": ["exams"]}, "names 1 eval domains"),
        ({"weights": {"exams": 1.0}}, "is missing"),
        ({"weights": {"exams": -1.0, "a/b": 1.0, "c": 1.0}}, "weights must be"),
        ({"trained": {"n_params": []}}, "damaged"),
        ({"trained": asdict(TRAINED) | {"shares": [[0, 1]]}}, "shares of 1 domains, and names 4"),
        ({"trained": {k: v for k, v in asdict(TRAINED).items() if k != "shares"}}, "'shares' is missing .* an earlier"),
        ({"format": 2}, "newer raymix"),
    ],
)
def test_damage_is_named(change: dict[str, object], says: str, tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    write_law(path, law_file())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=says) as refused:
        read_law(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other"
    for content in (b"a,b\n1,2\n", b"[1, 2]", b'{"model": 1}', b"\x80\x04\x95pickle", b"{" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a law file"):
            read_law(path)
    with pytest.raises(ValueError, match="no such file"):
        read_law(tmp_path / "nowhere.json")


def test_a_number_that_is_none_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    write_law(path, law_file())
    raw = json.loads(path.read_text())
    raw["learned"]["sig_M_"][0] = float("nan")
    path.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="a number is NaN"):
        read_law(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    write_law(path, law_file())
    before, broken = path.read_bytes(), law_file()
    broken.choice["scores"] = [float("nan")]
    with pytest.raises(ValueError, match="JSON compliant"):
        write_law(path, broken)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("path", ["s3://bucket/law.json", "gs://bucket/law.json"])
def test_a_law_in_an_object_store_is_said_to_be_out_of_reach(path: str) -> None:
    with pytest.raises(ValueError, match="there is no such file: tables and laws are read from a disk"):
        read_law(Path(path))


def test_mixtures_that_differ_in_the_last_digit_are_one() -> None:
    shares = [(0.1 + 0.2, 0.7), (0.3, 0.7), (0.5, 0.5)]
    rows = [
        {"trial_id": f"{i}", "n_params": 1e6, "n_tokens": 1e9, "mixture/a": a, "mixture/b": b, "loss/x": 3.0}
        for i, (a, b) in enumerate(shares)
    ]
    assert Trained.on(Observations.from_rows(rows, ("a", "b"), ("x",)).usable()).mixtures == 2
