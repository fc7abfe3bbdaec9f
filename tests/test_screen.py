"""What machines read is nothing but ours."""

from __future__ import annotations

import json

import pytest

from raymix.on_ray.run import Progress
from raymix.screens.screen import Screen


def test_what_libraries_print_while_a_study_runs_is_kept_off_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(as_json=True) as screen:
        with screen.preparing():
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
