"""Intervals of losses, objectives and gains, in which what two mixtures share cancels; verdicts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from raymix.space import Scale
from raymix.target.held_out import HeldOut
from raymix.target.objective import ObjectiveAtScale
from raymix.target.reading import Interval, Reading, far_notes, guessed_scale, verdict

MIX_QK = np.array([[1.0, 0.0], [0.0, 1.0]])
Z90 = 1.645


class Linear:
    """L = 2 + r . (0, .1) in one eval domain and twice that in another; sd .01, of differences .002 per unit apart."""

    name, convex, notes_ = "linear", True, []

    def predict(self, mix_BK: Any, scale: Any) -> Any:
        return np.repeat((2.0 + mix_BK @ np.array([0.0, 0.1]))[:, None], 2, axis=1) * [1.0, 2.0]

    def sd(self, mix_BK: Any, scale: Any) -> Any:
        return np.full((len(mix_BK), 2), 0.01)

    def sd_between(self, mix_BK: Any, other_BK: Any, scale: Any) -> Any:
        return np.repeat(0.002 * np.abs(mix_BK - other_BK)[:, :1], 2, axis=1)


SEEN = (1e8, 1e9)


def objective(reduce: str = "mean") -> Any:
    return ObjectiveAtScale(Linear(), SEEN, np.array([0.5, 0.5]), reduce)


@pytest.mark.parametrize(
    ("reduce", "mean", "sd"),
    [("mean", 0.15, 0.002 * np.sqrt(0.5 * 3.15**2 + 0.5 * (1.05**2 + 2.1**2))), ("worst", 0.2, 0.002 * 4.2)],
)
def test_a_gain_is_as_sure_as_the_law_is_of_the_difference(reduce: str, mean: float, sd: float) -> None:
    """Not as it is of two losses: what these share cancels."""
    gain = Reading.of(objective(reduce), MIX_QK).gain(1)
    assert gain.mean == pytest.approx(mean)
    assert (gain.low, gain.high) == (pytest.approx(mean - Z90 * sd, rel=1e-3), pytest.approx(mean + Z90 * sd, rel=1e-3))


@pytest.mark.parametrize("sd", [1e-4, 1e-3])
def test_of_the_worst_case_a_gain_is_no_surer_than_levels_where_another_eval_domain_is_the_worst(sd: float) -> None:
    """From 3 in the second eval domain to 4 in the first; half of the variance of a level is common to both."""

    class Crossing(Linear):
        def predict(self, mix_BK: Any, scale: Any) -> Any:
            return np.column_stack([2 + 2 * mix_BK[:, 1], np.full(len(mix_BK), 3.0)])

        def sd(self, mix_BK: Any, scale: Any) -> Any:
            return np.full((len(mix_BK), 2), sd)

        def sd_between(self, mix_BK: Any, other_BK: Any, scale: Any) -> Any:
            return np.zeros((len(mix_BK), 2))

    gain = Reading.of(replace(objective("worst"), law=Crossing()), MIX_QK).gain(1)
    assert gain.mean == pytest.approx(1)
    assert (gain.high - gain.mean) / Z90 == pytest.approx(sd * np.sqrt(0.5 * (4**2 + 3**2)), rel=2e-3)


def test_of_the_worst_case_levels_that_are_equal_at_the_optimum_count_one_way() -> None:
    """3 and 3 of one mixture, 3.2 and 2.9 of the other: either level, off by more than .3, makes .2 gained .1 lost."""

    class Tied(Linear):
        def predict(self, mix_BK: Any, scale: Any) -> Any:
            return 3 + mix_BK[:, 1:] * [0.2, -0.1]

        def sd(self, mix_BK: Any, scale: Any) -> Any:
            return np.full((len(mix_BK), 2), 0.2)

        def sd_between(self, mix_BK: Any, other_BK: Any, scale: Any) -> Any:
            return np.zeros((len(mix_BK), 2))

    gain = Reading.of(replace(objective("worst"), law=Tied()), MIX_QK).gain(1)
    assert (gain.high - gain.mean) / Z90 == pytest.approx(0.3, rel=1e-3)


@pytest.mark.parametrize("reduce", ["mean", "worst"])
def test_a_mixture_gains_nothing_over_itself_for_sure(reduce: str) -> None:
    gain = Reading.of(objective(reduce), MIX_QK[[0, 0]]).gain(1)
    assert (gain.low, gain.mean, gain.high) == (0, 0, 0)


@pytest.mark.parametrize(("factor_Q", "wider"), [((1.0, 1.0), 1), ((2.0, 1.0), 2), ((1.0, 3.0), 3)])
def test_a_gain_is_less_sure_where_either_mixture_lies_outside_those_trained(
    factor_Q: tuple[float, float], wider: int
) -> None:
    read = Reading.of(objective(), MIX_QK)
    one, other = read.gain(1), read.widened(np.array(factor_Q)).gain(1)
    assert other.mean == one.mean
    assert other.high - other.low == pytest.approx(wider * (one.high - one.low))


@pytest.mark.parametrize(
    ("reduce", "value", "sd"),
    [
        ("mean", 3.0, 0.01 * np.sqrt(0.5 * 3.0**2 + 0.5 * (1.0**2 + 2.0**2))),  # of 1 and 2, correlated .5
        ("worst", 4.0, 0.01 * 4.0),
    ],
)
def test_errors_of_one_run_correlate(reduce: str, value: float, sd: float) -> None:
    read = Reading.of(objective(reduce), MIX_QK).value(0)
    assert read.mean == pytest.approx(value)
    assert np.log(read.high / read.mean) * read.mean == pytest.approx(Z90 * sd, rel=1e-3)


def test_losses_have_the_sd_of_the_law() -> None:
    losses = Reading.of(objective(), MIX_QK).losses(("a", "b"))
    assert losses["b"].mean == pytest.approx(4.0)
    assert losses["b"].low == pytest.approx(4.0 * np.exp(-Z90 * 0.01), rel=1e-4)


@pytest.mark.parametrize("sd", [0.01, 2.0])
def test_the_interval_of_one_loss_is_that_of_the_objective_and_above_0_however_unsure(sd: float) -> None:
    class Unsure(Linear):
        def sd(self, mix_BK: Any, scale: Any) -> Any:
            return np.full((len(mix_BK), 2), sd)

    read = Reading.of(replace(objective(), law=Unsure(), weights_M=np.array([0.0, 1.0])), MIX_QK)
    value, loss = read.value(0), read.losses(("a", "b"))["b"]
    assert 0 < value.low < value.mean < value.high
    np.testing.assert_allclose([value.low, value.mean, value.high], [loss.low, loss.mean, loss.high], rtol=1e-9)


@pytest.mark.parametrize(
    ("gain", "noise", "answer"),
    [
        (Interval(0.05, 0.01, 0.09), 0.02, "use it"),
        (Interval(0.05, -0.01, 0.11), 0.02, "keep the baseline: gain within noise"),
        (Interval(0.01, 0.005, 0.015), 0.02, "keep the baseline: gain within noise"),
    ],
)
def test_verdict(gain: Interval, noise: float, answer: str) -> None:
    found = verdict("prior", gain, noise)
    assert found["answer"] == answer
    assert "0.0" in found["reason"]


@pytest.mark.parametrize(("order", "answer"), [(0.9, "use it"), (float("nan"), "use it"), (0.3, "keep the baseline")])
def test_a_law_that_hardly_orders_mixtures_held_out_is_no_ground_to_use_one(order: float, answer: str) -> None:
    found = verdict("prior", Interval(0.05, 0.01, 0.09), 0.02, order)
    assert found["answer"].startswith(answer)
    assert ("confirm it first" in found["reason"]) == (order == 0.3)


@pytest.mark.parametrize(("mixtures", "answer"), [(None, "use it"), (6, "use it"), (5, "keep the baseline: law not")])
def test_a_law_of_too_few_mixtures_to_judge_it_by_is_no_ground_to_use_one(mixtures: int | None, answer: str) -> None:
    found = verdict("prior", Interval(0.05, 0.01, 0.09), 0.02, float("nan"), mixtures=mixtures)
    assert found["answer"].startswith(answer)
    assert ("5 mixtures are too few" in found["reason"] and "confirm it first" in found["reason"]) == (mixtures == 5)
    within = verdict("prior", Interval(0.05, -0.01, 0.09), 0.02, float("nan"), mixtures=mixtures)
    assert within["answer"] == "keep the baseline: gain within noise"


def test_an_order_is_judged_inside_scales_of_enough_trials_alone() -> None:
    large, small = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [9.0, 8.0]
    columns = [f"t{i}" for i in range(8)], [1e6] * 6 + [2e5] * 2, [1e8] * 8, large + small
    found = HeldOut(*columns, predicted=large[::-1] + small, low=[0.0] * 8, high=[9.0] * 8)
    assert found.order == pytest.approx(-1)
    few = HeldOut(*(column[2:] for column in columns), large[2:] + small, [0.0] * 6, [9.0] * 6)
    assert np.isnan(few.order)


def test_an_order_over_scales_of_few_trials_is_that_of_their_differences() -> None:
    """Three trials of each of three sizes: between sizes any law ranks well, inside them this one is upside down."""
    apart, level = np.array([0, 10, 21, 0, 13, 25, 0, 17, 36]) / 100, np.repeat([4.0, 3.0, 2.0], 3)
    columns = [f"t{i}" for i in range(9)], np.repeat([1e6, 4e6, 16e6], 3).tolist(), [1e8] * 9
    nothing = [0.0] * 9
    for sign in (1, -1):
        found = HeldOut(*columns, (level + apart).tolist(), (level + sign * apart).tolist(), nothing, nothing)
        assert found.order == pytest.approx(sign)
    scattered = HeldOut(columns[0], [1e6 * 2**i for i in range(9)], columns[2], apart.tolist(), apart.tolist(),
                        nothing, nothing)  # fmt: skip
    assert np.isnan(scattered.order)


def test_replicates_are_no_differences_of_an_order() -> None:
    """Five runs of the prior at one size and a pair at another: one difference is no order, however many runs."""
    size = [1e6] * 5 + [4e6] * 2
    predicted, observed = [3.3] * 5 + [2.0, 2.1], [3.29, 3.31, 3.3, 3.32, 3.28, 2.0, 2.1]
    nothing = [0.0] * 7
    found = HeldOut([f"t{i}" for i in range(7)], size, [1e8] * 7, observed, predicted, nothing, nothing)
    assert np.isnan(found.order)


def test_a_gain_that_no_run_speaks_of_is_to_be_confirmed_first() -> None:
    one, two = (1e6, 1e6), (1e6, 4e6)
    assert len(guessed_scale(Scale(3.5e8, 4e9), one, (1e9, 1e9))) == 2
    assert guessed_scale(Scale(3.5e8, 4e9), two, (1e8, 1e9)) == []  # a trend of size and length was seen
    assert guessed_scale(Scale(2e7, 2e9), one, (1e9, 1e9)) == []  # near
    (why,) = guessed_scale(Scale(3.5e8, 1e9), one, (1e9, 1e9))
    assert "one size and the target 350 times that" in why
    gain = Interval(0.05, 0.01, 0.09)
    found = verdict("prior", gain, 0.02, 0.9, [why])
    assert found["answer"] == "confirm first: far from the runs" and why in found["reason"]
    found = verdict("prior", gain, 0.02, 0.9, unjudged=["other weights"])
    assert found["answer"] == "confirm first: law not judged" and "but other weights" in found["reason"]
    assert "far" in verdict("prior", gain, 0.02, 0.9, [why], unjudged=["other weights"])["answer"]
    assert verdict("prior", gain, 0.02, 0.3, [why])["answer"] == "keep the baseline: law not trusted"
    assert verdict("prior", gain, 0.06, 0.9, [why])["answer"] == "keep the baseline: gain within noise"


def test_far_scales_are_noted() -> None:
    assert far_notes(3e9, 3e10, 1e8, 1e10) == []
    assert len(far_notes(3.1e9, 3.1e10, 1e8, 1e10)) == 2
