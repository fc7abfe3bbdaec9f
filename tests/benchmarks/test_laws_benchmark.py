"""The benchmark of laws: its pieces run on small made-up tables."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import laws, laws_coverage, laws_figures, laws_mixtures, laws_regmix, laws_speed
from benchmarks.laws_figures import Figure, Row
from benchmarks.laws_published import contrast_r2, random_split, score
from benchmarks.peers import published_m4
from benchmarks.published import Runs
from raymix.testing import world


@pytest.fixture(scope="module")
def runs() -> Runs:
    """One scale, 24 mixtures of 4 domains."""
    made = world(n_mixtures=24, sizes=(6e7,), tokens=(1e9,))()
    n_rows, n_eval = made.loss_BM.shape
    weight_M, step_B = np.full(n_eval, 1 / n_eval), np.full(n_rows, 1000)
    return Runs(made.mix_BK, made.scale_B2, made.loss_BM, made.run_B, made.own_M, weight_M, step_B)


def test_published_m4_objective_is_the_hand_computed_one() -> None:
    # c = 2, k = 1, t = (ln 2, 0): predictions 2 + 2^r1, so 2 + 2 and 2 + 1
    theta_MP = np.log([[2.0, 1.0, 2.0, 1.0]])
    mix_BK = np.array([[1.0, 0.0], [0.0, 1.0]])
    loss_BM = np.array([[3.99], [3.1]])
    # errors .01 and -.1: .01^2 / 2 = .00005, and .02 (.1 - .01) = .0018
    assert published_m4.objective(theta_MP, mix_BK, loss_BM)[0] == pytest.approx(0.00185, rel=1e-9)


def test_m4_published_reaches_the_published_objective(runs: Runs) -> None:
    rows = laws_speed.compare_m4(runs.mix_BK, runs.loss_BM[:, :2], repeats=1, n_starts=2)
    ratio = {row.method: figure.value for row in rows for figure in row.figures if figure.name == "objective ratio"}
    assert ratio["m4_published"] <= 1.001
    assert [row.method for row in rows] == ["published", "m4", "m4_published"]


def test_regmix_and_mixtures_rows_have_goals_only_for_our_laws(runs: Runs) -> None:
    split = random_split(len(runs.mix_BK), 18, 0)
    ranked = laws_regmix.compare("n=18", runs, [split], 0, ["union", "log_linear"], (0.5, 0.5))
    missed = laws_mixtures.compare("5Mix 18/6", "5Mix", runs, [split], ("union", "log_linear"))
    for rows in (ranked, missed):
        assert [row.method for row in rows] == ["union", "log_linear"]
        assert [row.figures[0].reached is None for row in rows] == [False, True]
    assert all(figure.value > 0.5 for figure in ranked[0].figures)


def test_optimum_is_certified(runs: Runs) -> None:
    row = laws_speed.optimum("optimum", "union", runs)
    assert row.figures[1].name == "gap nats"
    assert row.figures[1].reached


def test_score_of_the_truth_is_perfect(runs: Runs) -> None:
    held_out = [(runs, runs.loss_BM, np.full_like(runs.loss_BM, 0.01))]
    got = score(runs.weight_M, held_out)
    assert (got["domain %"], got["weighted %"], got["90% holds"]) == (0.0, 0.0, 1.0)
    assert contrast_r2(held_out) == 1.0


def test_figure_says_whether_its_goal_is_reached() -> None:
    assert Figure("a", 0.9, 0.85, 0.95).reached
    assert Figure("a", 0.96, 0.85, 0.95).reached is False
    assert Figure("a", 1.0, reference=2.0).reached is None
    assert Figure("a", 0.012, most=0.01).words() == "0.012 (<= 0.01, missed)"


def test_figure_is_plain_json() -> None:
    plain = json.loads(json.dumps(Figure("a", np.float64(0.5), most=np.float64(1.0)).as_json()))
    assert plain == {"name": "a", "value": 0.5, "least": None, "most": 1.0, "reference": None, "reached": True}
    unknown = Figure("a", float("nan"), most=1.0).as_json()
    assert unknown["value"] is None
    assert unknown["reached"] is False


def test_page_has_every_row() -> None:
    row = Row("5Mix", "union", (Figure("MAE nats", 0.01, most=0.012), Figure("CPU s", 2.0)))
    assert "| 5Mix | union | 0.01 (<= 0.012, reached) | 2 |" in laws_figures.markdown([row])
    found = {section.__name__: [] for section in laws.SECTIONS} | {"benchmarks.laws_mixtures": [row]}
    page = laws.page(found, 3.0)
    assert "1 of 1 goals reached" in page
    assert "## mixtures" in page


def test_words_choose_tasks(tmp_path: Path) -> None:
    tasks = laws_coverage.tasks(tmp_path)
    assert [task.name for task in laws.named(tasks, "3mix, regmix 16")] == ["coverage: 3Mix", "coverage: RegMix 16"]
    assert len(laws.named(tasks, None)) == len(tasks)
