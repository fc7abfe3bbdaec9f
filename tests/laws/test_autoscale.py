"""AutoScale reproduces its published numbers, its water filling is the exact optimum, and it refuses nonsense."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raymix.laws import autoscale as asc
from raymix.laws import ddo
from raymix.simplex import Array

DATA = Path(os.environ.get("RAYMIX_DATA", Path(__file__).parents[3] / "shared" / "data")) / "autoscale"

# Quantities in B tokens at two scales, GPT-2 Large on RedPajama, and the totals of the published chain (arXiv
# 2407.20177, public notebook): common_crawl, github, books, wiki, c4, stackexchange, arxiv.
N_03 = np.array([1.55818971, 0.2, 1.1645966, 1.42333261, 1.49550525, 0.68184781, 0.47652801]) * 0.3 / 7
N_12 = np.array([1.63121445, 0.2, 1.30180479, 1.21425702, 1.83266187, 0.62006189, 0.2]) * 1.2 / 7
CHAIN = (5.000487243200733, 21.38933448443632, 93.22814586841008, 412.44002730550164)


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    path = DATA / "autoscale_vectors.json"
    if not path.is_file():
        pytest.skip(f"needs the published vectors of AutoScale at {path} (set RAYMIX_DATA)")
    return dict(json.loads(path.read_text()))


def ddo_points(domains: list[str]) -> Array:
    """Mean perplexity over that of the base run, (K, 3), at 1/5, 1 and 3 times the base quantity."""
    with (DATA / "ddo_gpt2large_1p2B_ppl.csv").open() as file:
        mean = {row["run"]: float(row["ppl_avg"]) for row in csv.DictReader(file)}
    return np.array([[mean[f"down_{d}"], mean["base"], mean[f"up_{d}"]] for d in domains]) / mean["base"]


@pytest.mark.data
def test_published_fit_is_reproduced(published: dict[str, Any]) -> None:
    fit = ddo.fit_ddo(published["x_points_used_in_fit"], ddo_points(published["domains"]), published["domains"])
    for name in "abc":
        np.testing.assert_allclose(getattr(fit, f"{name}_K"), published["published_abc"][name], rtol=1e-9)
    assert fit.error_K.max() < 1e-14


@pytest.mark.data
def test_published_optimum_is_reproduced(published: dict[str, Any]) -> None:
    abc = published["published_abc"]
    n_K = ddo.water_fill(abc["a"], abc["b"], 7.0, lower_K=0.2)
    assert n_K[1] == 0.2
    np.testing.assert_allclose(np.delete(n_K, 1), published["pgd_printed_6dom"], rtol=0, atol=1e-8)


@pytest.mark.data
def test_published_chain_is_reproduced_domain_by_domain(published: dict[str, Any]) -> None:
    tokens = published["autoscale"]["tokens_B"]
    for step in published["autoscale"]["pred_steps"]:
        np.testing.assert_allclose(
            asc.autoscale(tokens["0.3"], tokens["1.2"], step["step"]), step["tokens_B"], rtol=1e-12
        )
    halfway = asc.autoscale(tokens["0.3"], tokens["1.2"], -0.5)
    np.testing.assert_allclose(halfway, published["autoscale"]["interp_0p6_pred"]["tokens_B"], rtol=1e-12)


def test_published_chain_of_totals() -> None:
    totals = [asc.autoscale(N_03, N_12, steps).sum() for steps in (1, 2, 3, 4)]
    np.testing.assert_allclose(totals, CHAIN, rtol=1e-8)
    assert [float(f"{total:.5g}") for total in totals] == [5.0005, 21.389, 93.228, 412.44]


def test_step_is_repeated() -> None:
    n3 = N_12**2 / N_03
    np.testing.assert_allclose(asc.autoscale(N_03, N_12), n3, rtol=1e-14)
    np.testing.assert_allclose(asc.autoscale(N_03, N_12, 2), n3**2 / N_12, rtol=1e-14)


quantities = st.lists(st.floats(0.01, 100), min_size=2, max_size=6)
growths = st.floats(1.05, 8)


@given(n1=quantities, growth=st.lists(growths, min_size=6, max_size=6), k=st.integers(1, 4))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_chain_at_its_own_totals_is_the_chain(n1: list[float], growth: list[float], k: int) -> None:
    first = np.array(n1)
    second = first * growth[: len(n1)]
    chain = asc.autoscale(first, second, k)
    np.testing.assert_allclose(asc.autoscale_to(first, second, chain.sum()), chain, rtol=1e-9)
    assert asc.time_of(first, second, chain.sum()) == pytest.approx(1 + k, rel=1e-9)


@given(n1=quantities, growth=st.lists(growths, min_size=6, max_size=6), factor=st.floats(0.01, 1000))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_total_is_met_exactly(n1: list[float], growth: list[float], factor: float) -> None:
    first = np.array(n1)
    second = first * growth[: len(n1)]
    n_K = asc.autoscale_to(first, second, factor * second.sum())
    assert n_K.sum() == pytest.approx(factor * second.sum(), rel=1e-12)
    assert (n_K > 0).all()


def test_optimum_of_separate_power_laws_is_carried_exactly() -> None:
    b, weights, offsets = np.array([0.2, 0.5, 0.9]), np.array([1.0, 2.0, 0.5]), np.array([0.3, 0.1, 0.2])
    for n0 in (np.zeros(3), offsets):
        n1, n2, n3 = (ddo.water_fill(n0, b, total, weights=weights) for total in (30.0, 90.0, 1000.0))
        np.testing.assert_allclose(asc.autoscale_to(n1, n2, 1000.0, n0), n3, rtol=1e-6)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Array, Array, Array, Array, Array, float]:
    K = draw(st.integers(2, 6))
    a, b, w, lower, room = (
        np.array(draw(st.lists(st.floats(low, high), min_size=K, max_size=K)))
        for low, high in ((0.05, 10), (0.05, 3), (0.1, 10), (0, 1), (0.1, 5))
    )
    part = draw(st.floats(0.05, 0.95))
    return a, b, w, lower, lower + room, float(lower.sum() + part * room.sum())


@given(problem=problems(), seed=st.integers(0, 1000))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_water_filling_satisfies_kkt_and_beats_feasible_points(
    problem: tuple[Array, Array, Array, Array, Array, float], seed: int
) -> None:
    a, b, w, lower, upper, total = problem
    n = ddo.water_fill(a, b, total, lower, upper, w)
    assert n.sum() == pytest.approx(total, rel=1e-12)
    assert ((n >= lower) & (n <= upper)).all()
    marginal = np.log(w * b) - (b + 1) * np.log(n + a)
    free = (n > lower + 1e-9) & (n < upper - 1e-9)
    if free.any():
        at = marginal[free].mean()
        np.testing.assert_allclose(marginal[free], at, atol=1e-6)
        assert (marginal[n <= lower + 1e-9] <= at + 1e-6).all()
        assert (marginal[n >= upper - 1e-9] >= at - 1e-6).all()
    rng = np.random.default_rng(seed)
    best = (w * (n + a) ** -b).sum()
    for _ in range(20):  # move quantity between two domains as far as the bounds allow
        i, j = rng.choice(len(n), 2, replace=False)
        step = rng.random() * min(upper[i] - n[i], n[j] - lower[j])
        other = n + step * (np.eye(len(n))[i] - np.eye(len(n))[j])
        assert (w * (other + a) ** -b).sum() >= best - 1e-12 * abs(best)


def test_water_filling_in_plain_tokens_and_at_full_bounds() -> None:
    n_K = ddo.water_fill(np.zeros(2), np.array([0.3, 0.3]), 2e12, weights=[1.0, 2.0])
    assert n_K[1] / n_K[0] == pytest.approx(2 ** (1 / 1.3), rel=1e-9)  # w n^-1.3 equal
    np.testing.assert_array_equal(ddo.water_fill([1, 1], [1, 1], 3.0, 0, [1, 2]), [1, 2])
    np.testing.assert_array_equal(ddo.water_fill([1, 1], [1, 1], 3.0, [1, 2], 5), [1, 2])


@given(a=st.floats(1.5, 8), b=st.floats(1.0, 2.0), c=st.floats(0.5, 1.0))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_ddo_fit_recovers_the_curve(a: float, b: float, c: float) -> None:
    c = min(max(c, 0.91 - (1 + a) ** -b), 1.09 - (1 + a) ** -b)  # 1 at the base, but for noise
    truth = ddo.DDOFit(np.array([a]), np.array([b]), np.array([c]), np.zeros(1))
    for x in (np.array([0.2, 1.0, 3.0]), np.array([3.0, 0.2, 0.5, 1.0, 2.0])):
        y_KX = truth.predict(x[:, None]).T
        fit = ddo.fit_ddo(x, y_KX)
        np.testing.assert_allclose(fit.predict(x[:, None]).T, y_KX, atol=1e-8)
        np.testing.assert_allclose([fit.a_K[0], fit.b_K[0], fit.c_K[0]], [a, b, c], rtol=1e-3)


def test_two_curves_pass_three_points_and_the_published_kind_is_taken() -> None:
    fit = ddo.fit_ddo([0.2, 1, 3], [1.07106085110931581, 1.0, 0.91720990434197506])
    assert fit.a_K[0] == pytest.approx(2.665873, abs=1e-5)  # the other: a .789, b .124, c .070
    assert fit.c_K[0] == pytest.approx(0.802654, abs=1e-5)


def test_perturbations_change_the_total() -> None:
    mix_BK, n_tokens_B = ddo.perturbations([100.0, 200.0, 300.0], down=1 / 5, up=3)
    assert mix_BK.shape == (7, 3)
    np.testing.assert_allclose(mix_BK.sum(axis=1), 1)
    np.testing.assert_allclose(n_tokens_B, [600, 520, 800, 440, 1000, 360, 1200])
    np.testing.assert_allclose(mix_BK[3] * n_tokens_B[3], [100, 40, 300])
    np.testing.assert_allclose(mix_BK[6] * n_tokens_B[6], [100, 200, 900])


def test_log_sd_of_whole_steps() -> None:
    for k in (0, 1, 2, 3):
        assert asc.log_sd(1 + k, 0.1) == pytest.approx(0.1 * np.sqrt((k + 1) ** 2 + k**2))


def test_guards_speak_of_what_is_wrong_and_only_of_that() -> None:
    n1, n2 = np.array([1.0, 2.0]), np.array([2.5, 3.5])
    assert asc.check(n1, n2, 12.0, noise=0.01) == []
    names = ["common_crawl", "github", "books", "wiki", "c4", "stackexchange", "arxiv"]
    found = asc.check(N_03, N_12, 5.0, lower_K=0.2 / 7, names=names)
    assert [s.split()[0] for s in found] == ["github", "github", "arxiv"]
    for given_, word in (
        ({"noise": 0.05}, "factor of 1.2"),
        ({"offsets": [0.06, 0.0]}, "domain 0 has an offset"),
        ({"upper_K": [1.0, 2 / 3]}, "domain 1 is at a bound"),
    ):
        found = asc.check(n1, n2, 12.0, **given_)  # type: ignore[arg-type]
        assert len(found) == 1
        assert word in found[0]
    assert "more than one published step" in asc.check(n1, n2, 60.0)[0]
    assert "shrinks" in asc.check([1.0, 2.0], [3.5, 1.9], 6.0)[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: asc.autoscale([1.0, 0.0], [2.0, 2.0]), "domain 1 is 0: it must be above 0"),
        (lambda: asc.autoscale([1.0, np.nan], [2.0, 2.0]), "domain 1"),
        (lambda: asc.autoscale([1.0, 2.0], [2.0, 1.0]), "second scale must be the larger"),
        (lambda: asc.autoscale([1.0, 2.0], [1.0, 2.0, 3.0]), "2 and 3 domains"),
        (lambda: asc.autoscale([1.0, 2.0], [2.0, 3.0], 1, [-1.0, 0.0]), "offset"),
        (lambda: asc.autoscale([1.0, 5.0], [0.4, 9.0], 1, [1.0, 0.0]), "domain 0 falls to -0.02"),
        (lambda: asc.autoscale_to([1.0, 2.0], [2.0, 3.0], 0.0), "above 0"),
        (lambda: asc.autoscale_to([1.0, 2.0], [3.0, 1.5], 0.5), "beyond reach"),
        (lambda: asc.autoscale_to([1.0, 2.0], [3.0, 2.0], 1.9), "beyond reach"),
        (lambda: asc.autoscale([1.0, 2.0], [2.0, 3.0], np.nan), "steps is nan"),
        (lambda: asc.check([1.0, 2.0], [2.0, 3.0], 6.0, noise=np.nan), "the noise is nan"),
        (lambda: asc.check([1.0, 2.0], [2.0, 3.0], 6.0, noise=-0.2), "the noise is -0.2"),
        (lambda: asc.check([1.0, 2.0], [2.0, 3.0], 6.0, lower_K=[np.nan, 0.0]), "bounds of shares"),
        (lambda: asc.check([1.0, 2.0], [2.0, 3.0], 6.0, upper_K=[2.0, 3.0]), "bounds of shares"),
        (lambda: asc.check([1.0, 2.0], [2.0, 1.9], 6.0, names=["web"]), "1 names for 2 domains"),
        (lambda: ddo.water_fill([1, 1], [1, 1], np.inf), "total is inf"),
        (lambda: ddo.water_fill([1, 1], [1, 1], 1.0, 1.0), "bounds"),
        (lambda: ddo.water_fill([1, 1], [1, 1], 9.0, 0.0, 2.0), "bounds"),
        (lambda: ddo.water_fill([1, 1], [1, 0], 1.0), "b > 0"),
        (lambda: ddo.perturbations([1, 2], down=1.5), "down < 1 < up"),
        (lambda: ddo.perturbations([1, -2]), "base quantity of domain 1"),
        (lambda: ddo.fit_ddo([0.2, 1, 3], [[1.0, 1.1, 0.9]], ["law"]), "law: the loss does not fall"),
        (lambda: ddo.fit_ddo([0.2, 1, 3], [[1.01, 1.0, 0.9]], ["law"]), "law: the loss falls faster"),
        (lambda: ddo.fit_ddo([0.2, 1, 3], [[15.0, 1.0, 0.1]], ["law"]), "law: .*too large"),
        (lambda: ddo.fit_ddo([0.2, 1], [[1.1, 1.0]], ["law"]), "law: 2 different quantities"),
        (lambda: ddo.fit_ddo([0.2, 1, 2, 3], [[1.0, 1.1, 1.2, 1.3]], ["law"]), "law: the loss does not fall"),
        (lambda: ddo.fit_ddo([0.2, 1, 3], [[3.3, 3.0, 2.9]], ["law"]), "law: the loss at quantity 1, .* is 3"),
        (lambda: ddo.fit_ddo([0.2, 1, 3], [[1.1, 1.0, 0.9]] * 2, ["law"]), "1 names for 2 domains"),
        (lambda: ddo.fit_ddo([0.2, 1, np.nan], [[1.1, 1.0, 0.9]], ["law"]), "law: quantities are finite"),
    ],
)
def test_nonsense_is_refused_by_name(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
