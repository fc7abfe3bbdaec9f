"""What machines read is nothing but ours."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from raymix.on_ray.progress import Progress
from raymix.screens.screen import Screen, baseline_table, mixture_table, show_costs
from raymix.target.reading import Baseline, Interval
from raymix.target.recommend import Recommendation


def test_what_libraries_print_while_a_study_runs_is_kept_off_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(as_json=True) as screen:
        with screen.working("preparing the corpus"):
            print("(raylet) one thing")
        with screen.training() as progress:
            print("(raylet) The node with node id 1 has been marked dead")
            progress("ended", Progress(total=4, done=1))
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    assert json.loads(line)["event"] == "ended"
    assert "one thing" in err and "marked dead" in err


def test_people_see_what_is_printed_where_they_look(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(as_json=False) as screen, screen.training():
        print("the node died")
    assert "the node died" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "title"),
    [
        ("use it", "Recommended mixture"),
        ("keep the baseline", "Optimum under the law, not recommended"),
        ("confirm first: far from the runs", "Optimum under the law, to be confirmed"),
    ],
)
def test_only_what_is_to_be_used_is_called_recommended(answer: str, title: str) -> None:
    one = Interval(2.0, 1.9, 2.1)
    baseline = Baseline({"web": 1.0}, one, one)
    found = Recommendation(
        {"web": 1.0}, {"n_params": 1e9, "n_tokens": 1e11}, {}, one, {"prior": baseline},
        {"web": {"low": 1.0, "high": 1.0}}, {"web": None}, {}, {}, {"answer": answer, "reason": ""}, {},
    )  # fmt: skip
    assert str(mixture_table(found).title).startswith(title)
    assert (baseline_table(found).columns[2].header == "worse than recommended by") == (answer == "use it")
    assert next(iter(baseline_table(found).columns[0].cells)) == title.split()[0].lower()


def test_what_a_budget_resolves_is_in_the_unit_of_the_objective(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(as_json=False) as screen:
        show_costs(screen, None, [{"trials": 8, "resolves": 0.01}], "noise of one run 0.02 in 1 - exams", "1 - exams")
    said = capsys.readouterr().out
    assert "(1 - exams, 90%)" in said and "nats" not in said


@pytest.mark.parametrize("columns", [None, "30"])
def test_a_pipe_gets_whole_names_and_a_sentence_a_line(
    columns: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    name, sentence = "a_domain_with_a_long_name_" * 5, " ".join(["raymix resume a/study/in/a/folder"] * 9)
    with Screen(as_json=False) as screen:
        screen.say(sentence)
        screen.corpus(_corpus(name))
    out = capsys.readouterr().out
    assert sentence in out, "a command must not be broken where it is to be copied"
    assert (name in out) == (columns is None)


def test_a_narrow_terminal_cuts_no_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    with Screen(as_json=False) as screen:
        screen.corpus(_corpus("stackexchange_2024"))
    out = capsys.readouterr().out
    cells = [line.split("\u2502")[1].strip() for line in out.splitlines() if line.startswith("\u2502")]
    assert "".join(cells) == "stackexchange_2024"


def _corpus(name: str) -> Any:
    return SimpleNamespace(path="corpora/1", tokens={name: 1e9}, copied={name: 0.0})


def test_a_name_that_the_locale_cannot_show_ends_no_command() -> None:
    code = "from raymix import cli; cli.app = lambda: print(chr(0x65E5)); cli.main()"
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "\\u65e5\n"
