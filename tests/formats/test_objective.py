"""Weights of eval domains and tokens at hand, from small files."""

import json
from pathlib import Path

import pytest

from raymix.formats import read_available, read_mixture, read_weights
from raymix.formats.export import Blend, export


def test_two_columns_with_any_header(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("what,how much\nweb,0.25\nexams,3\n")
    assert read_weights(tmp_path / "w.csv") == {"web": 0.25, "exams": 3.0}


def test_further_columns_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("valid_domain,pile_weight,coarse\nArXiv,0.1,academic\nGithub,0.9,symbolic\n")
    assert read_weights(tmp_path / "w.csv") == {"ArXiv": 0.1, "Github": 0.9}
    (tmp_path / "v.csv").write_text("name,rank,pile_weight,tokens\na,1,0.1,5\nb,2,0.9,6\n")
    assert read_weights(tmp_path / "v.csv") == {"a": 0.1, "b": 0.9}
    assert read_available(tmp_path / "v.csv") == {"a": 5.0, "b": 6.0}


@pytest.mark.parametrize("ending", ["json", "yaml", "yml"])
def test_mappings(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_text(json.dumps({"no": 1.5e9, "code": 20}) if ending == "json" else "no: 1.5e9\ncode: 20\n")
    assert read_available(path) == {"no": 1.5e9, "code": 20.0}


@pytest.mark.parametrize("target", ["tinyllama", "doremi", "olmix"])
def test_a_mixture_is_read_as_it_was_exported(tmp_path: Path, target: str) -> None:
    """Today's mixture is often the file that a trainer or another tool reads."""
    shares = {"dclm:web": 0.7, "code": 0.3}
    files = export(Blend(shares, 1e9, 1e10), target)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        assert read_mixture(tmp_path / name) == shares
        for read in (read_available, read_weights):  # shares are no tokens, nor what is asked of eval domains
            with pytest.raises(ValueError, match=r"a mapping of names to numbers|is not a number"):
                read(tmp_path / name)


def test_mixtures_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "recommendation.json").write_text(json.dumps({"mixture": {"train_a": 0.7, "b": 0.3}, "scale": {}}))
    assert read_mixture(tmp_path / "recommendation.json") == {"train_a": 0.7, "b": 0.3}
    (tmp_path / "n1.yaml").write_text(
        "train:\n  train_the_pile_arxiv: 0.25\n  train_web: 0.75\nvalid:\n  valid_web: 1.0\nmodel_name: tinyllama_1M\n"
    )
    assert read_mixture(tmp_path / "n1.yaml") == {"arxiv": 0.25, "web": 0.75}
    counts = "swarm: {}\npriors:\n  token_counts:\n    a:b: 45_000_000_000\n    wiki: 900\n"
    (tmp_path / "fit.yaml").write_text(counts)
    assert read_available(tmp_path / "fit.yaml") == read_mixture(tmp_path / "fit.yaml") == {"a:b": 45e9, "wiki": 900.0}
    (tmp_path / "fit.yaml").write_text(f"{counts}  relative_sizes: {{'a:b': 0.9, wiki: 0.1}}\n")
    assert read_available(tmp_path / "fit.yaml") == {"a:b": 45e9, "wiki": 900.0}
    assert read_mixture(tmp_path / "fit.yaml") == {"a:b": 0.9, "wiki": 0.1}  # by which Olmix goes


def test_the_objective_of_a_space_is_read_where_it_has_weights_alone(tmp_path: Path) -> None:
    """Its guardrails would be lost without a word."""
    path = tmp_path / "objective.yaml"
    path.write_text("weights: {web: 0.5, pull: 2}\n")
    assert read_weights(path) == {"web": 0.5, "pull": 2.0}
    path.write_text("web: 0.5\npull: 2\n")  # an eval domain
    assert read_weights(path) == {"web": 0.5, "pull": 2.0}
    for more, key in (("guardrails: {web: 0.0}", "guardrails"), ("reduce: worst", "reduce"), ("pull: 0.1", "pull")):
        path.write_text(f"weights: {{web: 0.5}}\n{more}\n")
        with pytest.raises(ValueError, match=f"no {key}: that is for a space, which takes runs by from"):
            read_weights(path)
    path.write_text("reduce: worst\n")
    with pytest.raises(ValueError, match="no reduce: that is for a space"):
        read_weights(path)


@pytest.mark.parametrize("number", ["1_0", "1000_000", "_100", "1_000_"])
def test_only_thousands_are_set_apart(tmp_path: Path, number: str) -> None:
    (tmp_path / "a.yaml").write_text(f"web: {number}\n")
    with pytest.raises(ValueError, match=f"web: '{number}' is not a number"):
        read_available(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("w.json", '[{"domain": "a", "weight": 1}, {"domain": "a", "weight": 2}]', r"it must be a mapping"),
        ("w.json", '[{"domain": "a", "weight": "x"}]', r"a: 'x' is not a number"),
        ("w.csv", "n,w\na,1\na,2\n", r"the n 'a' stands twice"),
        ("w.csv", "n,w\na,1\nb,x\n", r"row 2, column 'w': 'x' is not a number"),
        ("w.csv", "n,w\na,1\nb,\n", r"the weight of 'b' is nan"),
        ("w.csv", "n,w\na,1\nb,-1\n", r"the weight of 'b' is -1.0: it must be a number of at least 0"),
        ("w.csv", "n,w\na,0\n", r"all weights are 0"),
        (
            "w.csv",
            "n,u,v\na,1,2\n",
            r"which column holds the weight\? Let the name of one end in 'weight' \(there are: u, v\)",
        ),
        ("w.csv", "n\na\n", r"there is no column of numbers beside 'n'"),
        ("w.csv", "n,w\na,1B\nb,2B\n", r"row 1, column 'w': '1B' is not a number"),
        ("w.csv", "web,1e9\ncode,2e9\n", r"the first line \(web, 1e9\) is no header, and would be lost"),
        ("w.csv", "", r"the file is empty"),
        ("w.json", '{"a": 1, "a": 2}', r"the name 'a' stands twice"),
        ("w.json", "{", r"not valid JSON"),
        ("w.json", "[1]", r"it must be a mapping of names to numbers"),
        ("w.yaml", "a: true", r"a: True is not a number"),
        ("w.yaml", "a: {b: 1}", r"a holds no number: it must be a mapping of names"),
        ("w.yaml", "a: 1\na: 2", r"the key 'a' stands twice"),
        ("w.txt", "a 1", r"names and numbers come as .csv"),
    ],
)
def test_bad_weights_are_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        read_mixture(tmp_path / name)
    assert name in str(caught.value)


def test_bad_tokens_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("domain,tokens\nweb,0\n")
    with pytest.raises(
        ValueError, match=r"the tokens of 'web' are 0: .* above 0; leave out a domain .* cap the share at 0"
    ):
        read_available(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="there is no such file"):
        read_available(tmp_path / "b.csv")
