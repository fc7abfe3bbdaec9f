"""The benchmark of searchers: budgets are kept, runs repeat, what is stored is not played again, scores are right."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarks import laws, search
from benchmarks.search_methods import METHODS, Method, rungs_of
from benchmarks.search_page import page
from benchmarks.search_play import Played, answers, play, space_for, train
from benchmarks.search_scores import ONE_SCALE, Cell, by_method, duels, quarter, trials_to_goal
from benchmarks.worlds import World, makers
from raymix.design import DESIGNERS, Proposal
from raymix.design.schedule import rungs
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import SearchSpace
from raymix.study import Study

ROOT = Path(__file__).parents[2]
RANDOM = Method("random", "random")


@dataclass(frozen=True)
class Costly:
    """Asks for every rung in turn, the dearest too; notes how many rows each answer rests on."""

    space: SearchSpace

    def suggest(
        self, table: Observations, pending: Sequence[Proposal], n: int, rng: np.random.Generator
    ) -> list[Proposal]:
        """See `Designer.suggest`."""
        ladder = rungs(self.space)
        uniform_K = np.full(len(self.space.domains), 1 / len(self.space.domains))
        return [Proposal(uniform_K, ladder[i % len(ladder)], i) for i in range(n)]

    def recommend(self, table: Observations) -> Array:
        """See `Recommender.recommend`."""
        return self.space.prior_K()


@dataclass(frozen=True)
class Broken(Costly):
    """Raises when asked."""

    def suggest(
        self, table: Observations, pending: Sequence[Proposal], n: int, rng: np.random.Generator
    ) -> list[Proposal]:
        """See `Designer.suggest`."""
        raise ArithmeticError("singular")


@pytest.fixture
def world() -> World:
    return makers(None)["bimix 7, scales"]()


def test_budget_is_kept_and_answers_come_before_it_is_passed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DESIGNERS, "costly", Costly)
    spent = [(size, played.spent) for size, _, played in answers(world, world.space, Method("c", "costly"), 0, 64)]
    assert [size for size, _ in spent] == [8, 16, 24, 32, 48, 64]
    assert all(used <= size for size, used in spent)
    # rounds of 1, 4, 16, 1, 4, 16, 1, 4: spent are 1, 5, 21, 22, 26, 42, 43, 47, 48, 52, then what still fits into 64
    assert [used for _, used in spent] == [5, 5, 22, 26, 48, 64]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["m4 3", "bimix 7, scales"])
def test_what_is_scored_is_what_a_study_recommends(name: str, tmp_path: Path) -> None:
    played = makers(None)[name]()
    study = Study.create(played.space, tmp_path)
    for number, trial in enumerate(study.ask(12)):
        rung = 1 if number % 3 == 2 and played.scale_aware else 0
        scale, mix_K = rungs(played.space)[rung], played.space.mixture(trial.mixture)
        n_tokens, loss_M = played.run(mix_K, scale, number, seed=0)[-1]
        losses = dict(zip(played.space.eval_names, loss_M.tolist(), strict=True))
        study.tell(trial.trial_id, losses, n_params=scale.n_params, n_tokens=n_tokens)
    scored_K = DESIGNERS["law"](played.space).recommend(study.table())  # type: ignore[attr-defined]
    found = study.recommend()
    assert list(found.mixture.values()) == pytest.approx(scored_K.tolist(), abs=1e-6)  # sums round as memory lies
    assert len(np.unique(study.table().scale_B2[:, 0])) == (2 if played.scale_aware else 1)


def test_same_seed_same_result_and_one_rung_when_asked(world: World) -> None:
    first, again = (play(world, RANDOM, 1, 3, 32) for _ in range(2))
    assert first["regret"] == again["regret"]
    assert first["trials"] == 8  # the second rung costs 4
    assert first["regret"] != play(world, RANDOM, 1, 4, 32)["regret"]


def test_two_methods_meet_the_same_noise(world: World) -> None:
    scale = rungs(world.space)[0]
    rows = []
    for _ in range(2):
        played = Played()
        for number in range(3):
            train(world, Proposal(world.natural_K, scale, number), played, seed=7)
        rows.append([row["loss/e0"] for row in played.rows])
    assert rows[0] == rows[1]
    assert len(set(rows[0])) == 9  # three trials of three checkpoints


def test_method_that_raises_is_a_result(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DESIGNERS, "broken", Broken)
    found = play(world, Method("broken", "broken"), None, 0, 32)
    assert found["regret"] == {}
    assert found["error"].startswith("ArithmeticError: singular")
    assert "ArithmeticError: singular" in page([found], {world.name: world}, [])


def test_every_method_is_in_the_registry() -> None:
    assert {method.designer for method in METHODS} <= set(DESIGNERS)


def test_single_scale_methods_run_at_two_rungs(world: World) -> None:
    ladder = Method("l", "law", ladder=True)
    assert rungs_of(RANDOM, world) == [0, 1]
    assert rungs_of(ladder, world) == [None, 0, 1]
    assert rungs_of(RANDOM, makers(None)["m4 3"]()) == [None]
    assert [rung.scale for rung in space_for(world, 1).ladder] == [rungs(world.space)[1]]


def record(method: str, seed: int, rung: int | None = None, **regret: float) -> dict[str, object]:
    budgets = {name.removeprefix("at"): value for name, value in regret.items()}
    return {"world": "w", "method": method, "rung": rung, "seed": seed, "regret": budgets, "seconds": 1.0}


def test_of_two_rungs_the_better_counts() -> None:
    records = [record("tpe", 0, 0, at32=50, at64=10), record("tpe", 0, 1, at32=30, at64=20)]
    records.append(record("law", 0, 1, at64=5))
    methods = by_method(records)
    assert methods["tpe"] == {32: {0: 30.0}, 64: {0: 10.0}}
    assert methods[ONE_SCALE] == {64: {0: 5.0}}


def test_duel_uses_the_error_of_the_paired_difference() -> None:
    # means 20 and 19; the difference is 1 in both seeds, so its error is 0 and the default is beaten
    own = [record("law", 0, at64=10), record("law", 1, at64=30)]
    (duel,) = duels(by_method([*own, record("tpe", 0, at64=9), record("tpe", 1, at64=29)]))
    assert (duel.own.mean, duel.best.mean, duel.behind.mean, duel.behind.error) == (20, 19, 1, 0)
    assert duel.beaten
    assert duel.own.error == pytest.approx(10.0)
    (duel,) = duels(by_method([*own, record("tpe", 0, at64=29), record("tpe", 1, at64=9)]))
    assert not duel.beaten


def test_trials_to_the_goal_must_stay_there() -> None:
    regrets = {8: {0: 20.0}, 16: {0: 30.0}, 32: {0: 25.0}, 64: {0: 10.0}}
    assert trials_to_goal(regrets) == 32
    assert trials_to_goal({8: {0: 30.0}}) is None


def test_a_quarter_of_the_trials_of_the_best_peer() -> None:
    peer = [record("tpe", 0, at32=60, at64=20, at128=20), record("cmaes", 0, at64=60, at128=20)]
    assert "(a quarter: reached)" in quarter(by_method([*peer, record("law", 0, at16=20, at32=10)]))
    assert "(a quarter: missed)" in quarter(by_method([*peer, record("law", 0, at16=30, at32=10)]))


def test_peers_that_never_reach_the_goal_must_have_been_played_to_four_times_the_trials() -> None:
    own, gp = record("law", 0, at32=30, at48=20, at128=10), record("gp", 0, at64=90)
    assert "none within 128 (gp within 64) (a quarter: missed)" in quarter(
        by_method([own, gp, record("tpe", 0, at64=60, at128=50)])
    )
    assert "none within 192 (gp within 64) (a quarter: reached)" in quarter(
        by_method([own, gp, record("tpe", 0, at64=60, at192=50)])
    )


def test_runs_count_as_played_up_to_their_last_budget() -> None:
    assert search.reached(record("tpe", 0, at64=60, at128=50)) == 128
    assert search.reached(record("gp", 0, at64=90)) == float("inf")


def test_error_of_one_seed_is_unknown() -> None:
    assert Cell.of([3.0]).words() == "3.0"
    assert Cell.of([1.0, 3.0]).words() == "2.0 ± 1.0"
    (duel,) = duels(by_method([record("law", 0, at64=20), record("tpe", 0, at64=10), record("cmaes", 0, at64=15)]))
    assert duel.words() == "64: 20.0, best other tpe 10.0 (beaten by 10.0, one seed, ratio 2.00)"


def test_torn_last_line_is_left_out_and_the_last_of_equals_counts(tmp_path: Path) -> None:
    store = tmp_path / "runs.jsonl"
    lines = [json.dumps(record("tpe", 0, at64=value)) for value in (5, 6)]
    store.write_text("\n".join([*lines, '{"world": "w", "met']))
    assert [found["regret"] for found in search.stored(store)] == [{"64": 6}]


def test_runs_of_a_changed_method_can_be_dropped(tmp_path: Path) -> None:
    store = tmp_path / "runs.jsonl"
    store.write_text("".join(json.dumps(record(name, 0, at64=5)) + "\n" for name in ("law", "tpe")))
    search.drop(store, ["law"])
    assert [found["method"] for found in search.stored(store)] == ["tpe"]


@pytest.mark.slow
def test_command_writes_a_page_and_continues_without_playing_again(tmp_path: Path) -> None:
    store, target = tmp_path / "runs.jsonl", tmp_path / "search.md"
    words = ["--methods", "random,uniform", "--worlds", "m4 3", "--budget", "8", "--jobs", "1", "--results", str(store)]
    command = [sys.executable, "-m", "benchmarks.search", *words, "--markdown", str(target)]
    first = subprocess.run([*command, "--seeds", "1"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "2 runs to play, 0 stored" in first.stderr
    again = subprocess.run([*command, "--seeds", "2"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "1 runs to play, 2 stored" in again.stderr
    assert len(store.read_text().splitlines()) == 3
    assert "| random |" in target.read_text()
    assert (tmp_path / "pictures" / "search.html").is_file()


@pytest.mark.parametrize("command", [search, laws])
def test_missing_folder_is_one_sentence_and_exit_code_2(
    command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", "--data", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.strip().splitlines()) == 1
    assert "--data DIR" in said.err
