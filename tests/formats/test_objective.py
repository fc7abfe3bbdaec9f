"""Weights of eval domains and tokens at hand, from small files."""

import json
from pathlib import Path

import pytest

from raymix.formats import read_available, read_weights


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


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
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
        ("w.yaml", "a: {b: 1}", r"a: \{'b': 1\} is not a number"),
        ("w.yaml", "a: 1\na: 2", r"the key 'a' stands twice"),
        ("w.txt", "a 1", r"names and numbers come as .csv"),
    ],
)
def test_bad_weights_are_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        read_weights(tmp_path / name)
    assert name in str(caught.value)


def test_bad_tokens_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("domain,tokens\nweb,0\n")
    with pytest.raises(ValueError, match=r"the tokens of 'web' are 0.0: they must be a number above 0"):
        read_available(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="there is no such file"):
        read_available(tmp_path / "b.csv")
