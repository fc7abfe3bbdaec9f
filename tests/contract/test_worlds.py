"""The contract of worlds: nobody beats their optimum, and all methods meet the same noise."""

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.worlds import World, makers, replay
from benchmarks.worlds.best import many_starts
from raymix import simplex
from raymix.design.schedule import rungs
from raymix.simplex import Array, Polytope

DATA = Path(os.environ.get("RAYMIX_DATA") or Path(__file__).parents[3] / "shared" / "data")
ZOO = makers(None)
RECORDED = ("regmix mean", "regmix cc", "regmix mean, caps", "regmix cc, caps", "replay 5Mix", "replay RedPajama")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no published runs in {DATA}; set RAYMIX_DATA to theirs")


def check_world(world: World) -> None:
    """What a benchmark takes for granted of every world."""
    polytope = world.space.polytope()
    best = float(world.values(world.optimum_K)[0])
    assert polytope.contains(world.optimum_K, 1e-9)[0]
    assert world.regret(world.optimum_K) == 0.0
    others_BK = attempts(polytope, world.optimum_K, world.natural_K)
    assert world.values(others_BK).min() >= best - 1e-6 * abs(best)
    for rung in rungs(world.space):
        mix_K = world.admit(world.natural_K, rung, set())
        for n_tokens, loss_M in world.run(mix_K, rung, 0, 0):
            assert 0 < n_tokens <= rung.n_tokens
            assert np.isfinite(loss_M).all()
            assert (loss_M > 0).all()


def attempts(polytope: Polytope, best_K: Array, natural_K: Array) -> Array:
    """Where a method might end: anywhere, on the way to the optimum, close to it, one pair of domains away."""
    rng = np.random.default_rng(1)
    anywhere_BK = simplex.sample(polytope, 2000, rng)
    towards_BK = best_K + 10.0 ** rng.uniform(-6, 0, (2000, 1)) * (anywhere_BK - best_K)
    home_BK = natural_K + rng.random((500, 1)) * (best_K - natural_K)
    pairs = [
        (best_K + step * (np.eye(len(best_K))[i] - np.eye(len(best_K))[j]))
        for step in (1e-4, 1e-2)
        for i in range(len(best_K))
        for j in range(len(best_K))
        if i != j
    ]
    inside = [mix_K for mix_K in pairs if polytope.contains(mix_K)[0]]
    return np.concatenate([anywhere_BK, towards_BK, home_BK, np.reshape(inside, (-1, len(best_K)))])


LARGE = pytest.param("exposure 40", marks=pytest.mark.slow)  # its optimum takes some seconds to find


@pytest.mark.parametrize("name", [LARGE if name == "exposure 40" else name for name in ZOO])
def test_nobody_beats_the_optimum(name: str) -> None:
    check_world(ZOO[name]())


@pytest.mark.data
@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("name", RECORDED)
def test_nobody_beats_the_optimum_of_a_world_from_published_runs(name: str) -> None:
    check_world(makers(DATA)[name]())


def test_natural_mixture_has_a_regret_of_100() -> None:
    world = ZOO["m4 3"]()
    assert world.regret(world.natural_K) == pytest.approx(100.0, abs=1e-9)
    assert world.gap > 0


@pytest.mark.parametrize("name", ["bimix 7, scales", "autoscale 7, scales", "exposure 17, scales"])
def test_optimum_moves_with_scale_where_the_name_says_so(name: str) -> None:
    world = ZOO[name]()
    assert world.scale_aware
    assert world.stale > 5.0  # %: more than the noise of a run, or a ladder could not pay
    assert [world.cost(rung) for rung in rungs(world.space)] == pytest.approx([1, 4, 16])


def test_many_starts_finds_an_optimum_known_by_hand() -> None:
    # sum_k a_k (o + w_k)^-1 without bounds binding: a_k / (o + w_k)^2 is the same for all k, so o + w_k ~ sqrt(a_k)
    level_K, offset = np.array([1.0, 2.0, 4.0, 8.0]), 0.2
    exact_K = np.sqrt(level_K) / np.sqrt(level_K).sum() * (1 + 4 * offset) - offset
    found_K = many_starts(
        lambda mix_BK: (level_K / (offset + mix_BK)).sum(axis=1), Polytope.box([0] * 4, [1] * 4), np.full(4, 0.25)
    )
    assert found_K == pytest.approx(exact_K, abs=1e-4)  # flat there: 1e-4 of share is 1e-8 of the value


def test_many_starts_keeps_bounds_and_leaves_local_optima() -> None:
    # two wells; the deeper one is narrower, and the bounds cut its bottom off
    def values(mix_BK: Array) -> Array:
        wide = -np.exp(-((mix_BK[:, 0] - 0.1) ** 2) / 0.05)
        return np.asarray(wide - 2 * np.exp(-((mix_BK[:, 0] - 0.95) ** 2) / 0.01))

    found_K = many_starts(values, Polytope.box([0, 0, 0], [0.9, 1, 1]), np.array([0.1, 0.45, 0.45]))
    assert found_K[0] == pytest.approx(0.9, abs=1e-6)


def test_noise_depends_on_seed_and_number_alone() -> None:
    world = ZOO["bimix 7, scales"]()
    rung = rungs(world.space)[0]

    def noise(mix_K: Array, number: int, seed: int) -> Array:
        scale_T2 = np.array([[rung.n_params, part * rung.n_tokens] for part in world.fractions])
        truth_TM = world.surface(np.tile(mix_K, (3, 1)), scale_T2)
        return np.log(np.stack([loss_M for _, loss_M in world.run(mix_K, rung, number, seed)]) / truth_TM)

    uniform_K = np.full(7, 1 / 7)
    assert noise(world.natural_K, 3, 5) == pytest.approx(noise(uniform_K, 3, 5), abs=1e-12)
    assert not np.allclose(noise(uniform_K, 3, 5), noise(uniform_K, 4, 5))
    assert not np.allclose(noise(uniform_K, 3, 5), noise(uniform_K, 3, 6))


def test_noise_has_the_covariance_stated() -> None:
    world = ZOO["m4 3"]()
    rung = rungs(world.space)[0]
    truth_M = world.surface(world.natural_K[None], np.array([rung]))[0]
    runs = [world.run(world.natural_K, rung, number, 0)[0][1] for number in range(2000)]
    log_BM = np.log(np.stack(runs) / truth_M)
    # the relative error of a variance from 2000 draws is sqrt(2 / 2000) = 3%: four of these
    assert np.cov(log_BM.T) == pytest.approx(world.noise_MM, rel=0.15)
    assert np.abs(log_BM.mean(axis=0)).max() < 4 * 0.005 / np.sqrt(2000)


def test_checkpoints_of_a_run_share_most_of_its_noise() -> None:
    world = ZOO["bimix 7, scales"]()
    rung = rungs(world.space)[0]
    runs = [[loss_M[0] for _, loss_M in world.run(world.natural_K, rung, number, 0)] for number in range(1000)]
    shared_TT = np.corrcoef(np.log(runs).T)  # a standard error of (1 - .8^2) / sqrt(1000) = .011: four of these
    assert shared_TT[np.triu_indices(3, 1)] == pytest.approx([0.8] * 3, abs=0.045)


@pytest.mark.data
@pytest.mark.slow
@needs_data
def test_simulator_predicts_runs_it_has_not_seen() -> None:
    facts = makers(DATA)["regmix mean"]().facts
    assert facts["Spearman cc"] > 0.98
    assert facts["Spearman mean"] > 0.98


@pytest.mark.data
@needs_data
def test_replay_trains_only_what_was_recorded_each_once() -> None:
    world = makers(DATA)["replay RedPajama"]()
    assert isinstance(world, replay.Replay)
    rung = rungs(world.space)[0]
    recorded = {row_K.tobytes() for row_K in world.runs.mix_BK}
    seen: set[tuple[int, bytes]] = set()
    for _ in range(30):  # 30 mixtures are recorded at 19M
        mix_K = world.admit(world.natural_K, rung, seen)
        assert mix_K.tobytes() in recorded
        assert (0, mix_K.tobytes()) not in seen
        seen.add((0, mix_K.tobytes()))
    assert (0, world.admit(world.natural_K, rung, seen).tobytes()) in seen
