"""Every law in the registry keeps the whole contract."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raymix.laws import LAWS, Law, make_law
from raymix.testing import LAW_CHECKS, World, check_law, synthetic_runs, world

ONE_SCALE = world(sizes=(6e7,), tokens=(1e9,))
WORLDS = {
    **dict.fromkeys(("m1", "m2", "m3", "m4", "m4_published", "log_linear", "log_feature", "effective_data"), ONE_SCALE),
    "implicit": world(sizes=(6e7,), tokens=(1e9,), n_mixtures=40),  # 25 parameters: more than 20 runs can tell
    "bimix": world(sizes=(6e7,)),
    "chinchilla": world(mixture_effect=0.0),
    "dcpt": world(n_domains=2),
}


@pytest.mark.parametrize("check", LAW_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", sorted(LAWS))
def test_law_keeps_contract(name: str, check: Callable[[Callable[[], Law], World], None]) -> None:
    check(lambda: make_law(name), WORLDS.get(name, synthetic_runs))


@pytest.mark.parametrize("name", ["union", "hedged_union", "residual_gp", "average"])
def test_law_finds_the_truth_in_ragged_losses(name: str) -> None:
    runs = synthetic_runs()
    ragged_BM = runs.loss_BM.copy()
    ragged_BM[np.random.default_rng(7).random(len(ragged_BM)) < 0.3, 0] = np.nan
    law = make_law(name).fit(runs.mix_BK, runs.scale_B2, ragged_BM, runs.run_B, runs.own_M)
    np.testing.assert_allclose(law.predict(runs.mix_BK, runs.scale_B2), runs.truth_BM, rtol=0.02)


def test_unknown_law_is_named() -> None:
    with pytest.raises(ValueError, match=r"no_such_law.*union"):
        make_law("no_such_law")


class Unfinished(Law):
    """A law of somebody's own, from before gains had an interval."""

    name = "unfinished"

    fit = predict = gradient = sd = to_json = from_json = lambda self: self  # type: ignore[assignment]


def test_what_a_law_lacks_is_named() -> None:
    with pytest.raises(AssertionError, match="Unfinished lacks convex, sd_between: "):
        check_law(Unfinished)


CONVEX = {
    (name, shape): synthetic_runs(sizes=sizes, tokens=tokens).fit(make_law(name))
    for name, law in LAWS.items()
    if law.convex
    for shape, sizes, tokens in (
        ("general", (2e7, 6e7), (5e8, 1e9)),
        ("one size", (6e7,), (5e8, 1e9)),
        ("one size, one D", (6e7,), (1e9,)),
        ("one D", (2e7, 6e7), (1e9,)),
    )
}


@pytest.mark.parametrize("key", sorted(CONVEX), ids=" ".join)
@given(
    ends=st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(any), min_size=2, max_size=2),
    part=st.floats(0, 1),
    log_scale=st.tuples(st.floats(15, 25), st.floats(18, 30)),
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_loss_is_convex_along_segments(
    key: tuple[str, str], ends: list[list[float]], part: float, log_scale: tuple[float, float]
) -> None:
    law = CONVEX[key]
    ends_2K = np.array([np.array(end) / np.sum(end) for end in ends])
    middle_K = part * ends_2K[0] + (1 - part) * ends_2K[1]
    loss_3M = law.predict(np.vstack([ends_2K, middle_K]), np.exp(log_scale))
    assert (loss_3M[2] <= part * loss_3M[0] + (1 - part) * loss_3M[1] + 1e-9 * loss_3M[2]).all()
