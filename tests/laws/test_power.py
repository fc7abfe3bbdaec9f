"""The per-domain power law keeps the contract, finds its own parameters, and meets AutoScale at the optimum."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from raymix.laws.base import Law
from raymix.laws.ddo import perturbations, water_fill
from raymix.laws.power import PerDomainPower
from raymix.simplex import Array, Polytope
from raymix.target.objective import ObjectiveAtScale
from raymix.target.optimum import minimise
from raymix.testing import LAW_CHECKS, synthetic_runs

# The first looks the law up in the registry; the second asks for a truth with transfer and sizes, which it gives up.
ELSEWHERE = {"check_json_round_trip_is_exact", "check_missing_losses_are_left_out"}
OWN = [check for check in LAW_CHECKS if check.__name__ not in ELSEWHERE]

E, B, GAMMA, A = (
    np.array([1.5, 1.2, 1.8]),
    np.array([0.8, 1.1, 0.6]),
    np.array([0.3, 0.5, 0.4]),
    np.array([0.1, 0.3, 0.05]),
)


def truth(mix_BK: Array, scale_B2: Array) -> Array:
    return np.asarray(E + B * (mix_BK * scale_B2[:, 1:] / 1e9 + A) ** -GAMMA)


def runs(n: int = 40, seed: int = 0) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    mix_BK = rng.dirichlet(np.full(3, 0.7), n)
    scale_B2 = np.column_stack([np.full(n, 1e8), 1e9 * np.exp(rng.uniform(-1, 1, n))])
    return mix_BK, scale_B2, truth(mix_BK, scale_B2)


@pytest.fixture(scope="module")
def law() -> PerDomainPower:
    return PerDomainPower().fit(*runs(), own_M=np.arange(3))


@pytest.mark.parametrize("check", OWN, ids=lambda check: check.__name__.removeprefix("check_"))
def test_contract(check: Callable[[Callable[[], Law]], None]) -> None:
    check(PerDomainPower)


def test_json_round_trip_is_exact(law: PerDomainPower) -> None:
    again = PerDomainPower.from_json(json.loads(json.dumps(law.to_json(), allow_nan=False)))
    assert again.to_json() == law.to_json()
    mix_BK, scale_B2, _ = runs(10, 1)
    for read in ("predict", "gradient", "sd"):
        np.testing.assert_array_equal(getattr(again, read)(mix_BK, scale_B2), getattr(law, read)(mix_BK, scale_B2))


def test_missing_losses_leave_the_others_alone() -> None:
    mix_BK, scale_B2, loss_BM = runs()
    ragged_BM = loss_BM.copy()
    ragged_BM[::3, 0] = np.nan
    law = PerDomainPower().fit(mix_BK, scale_B2, ragged_BM, own_M=np.arange(3))
    np.testing.assert_allclose(law.predict(mix_BK, scale_B2), loss_BM, rtol=0.01)


def test_unseen_runs_are_predicted(law: PerDomainPower) -> None:
    mix_BK, scale_B2, loss_BM = runs(50, 1)
    error_BM = np.abs(np.log(law.predict(mix_BK, scale_B2) / loss_BM))
    assert error_BM.mean() < 0.002
    assert error_BM.max() < 0.02


def test_a_ddo_design_is_enough_to_fit_it() -> None:
    mix_BK, n_tokens_B = perturbations(np.full(3, 3e8), down=1 / 5, up=3)
    scale_B2 = np.column_stack([np.full(7, 1e8), n_tokens_B])
    law = PerDomainPower().fit(mix_BK, scale_B2, truth(mix_BK, scale_B2), own_M=np.arange(3))
    np.testing.assert_allclose(law.predict(mix_BK, scale_B2), truth(mix_BK, scale_B2), rtol=0.005)


def test_optimum_equals_water_filling(law: PerDomainPower) -> None:
    total, weights_M = 3e9, np.array([0.2, 0.5, 0.3])
    best = minimise(ObjectiveAtScale(law, (1e8, total), weights_M), Polytope.box(np.zeros(3), np.ones(3)))
    _, log_B, log_power, log_offset = law.params_MP_.T
    units = total / law.origin_2_[1]
    n_K = water_fill(np.exp(log_offset), np.exp(log_power), units, weights=weights_M * np.exp(log_B))
    np.testing.assert_allclose(best.mixture_K, n_K / units, atol=2e-4)
    assert best.gap < 1e-4


def test_notes_say_what_the_law_gives_up() -> None:
    wide = PerDomainPower().fit(*runs())
    assert sum("no own training domain" in note for note in wide.notes_) == 3
    assert (wide.gradient(*runs(5)[:2]) == 0).all()
    several = synthetic_runs()
    assert any("more than one model size" in note for note in several.fit(PerDomainPower()).notes_)
    mix_BK, _, loss_BM = runs()
    single = PerDomainPower().fit(mix_BK, np.array([1e8, 1e9]), loss_BM)
    assert any("prior only" in note for note in single.notes_)


def test_interval_is_wider_where_the_law_misfits(law: PerDomainPower) -> None:
    transfer = synthetic_runs(sizes=(6e7,))
    misfit = transfer.fit(PerDomainPower())
    residual_BM = np.log(misfit.predict(transfer.mix_BK, transfer.scale_B2) / transfer.truth_BM)
    sd_BM = misfit.sd(transfer.mix_BK, transfer.scale_B2)
    assert (np.abs(residual_BM) <= 1.645 * sd_BM).mean() > 0.85
    mix_BK, scale_B2, _ = runs(5, 2)
    assert law.sd(mix_BK, scale_B2 * [1, 100]).min() > law.sd(mix_BK, scale_B2).max()


def test_wrong_domain_count_is_refused(law: PerDomainPower) -> None:
    with pytest.raises(ValueError, match="expected"):
        law.predict(np.array([[0.5, 0.5]]), np.array([1e8, 1e9]))
