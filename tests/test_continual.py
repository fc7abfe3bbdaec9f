"""The critical share of original data is found where it is known, and stages survive the way to the table and back."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raymix.observations import Observations
from raymix.stages import Stage, seen, stages, this_stage
from raymix.target.continual import critical_share, critical_share_of
from raymix.target.falling import fit_exponential

DATA = Path(os.environ.get("RAYMIX_DATA", Path(__file__).parents[2] / "shared" / "data")) / "mixinglaws"

SHARES = np.array([0.125, 0.25, 0.375, 0.5])
# Weighted loss on the Pile after 3k and 10k steps of continual training, and before (arXiv 2403.16952, public runs).
AT_3K = np.array([2.92947472, 2.89636334, 2.87063716, 2.85532648])
AT_10K = np.array([2.92616592, 2.88049349, 2.85707243, 2.8387568])
BEFORE = 2.87336759


@pytest.fixture(scope="module")
def published() -> tuple[Observations, Any, Any]:
    """The public runs on Pile + Python as a table, with the weights of the Pile and the losses before."""
    if not (DATA / "ct.parquet").is_file():
        pytest.skip(f"needs the published runs of Data Mixing Laws at {DATA} (set RAYMIX_DATA)")
    with (DATA / "valid_domains.csv").open() as file:
        weights = {row["valid_domain"]: float(row["pile_weight"]) for row in csv.DictReader(file)}
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    before = dict.fromkeys(weights, np.nan)
    for row in pyarrow.parquet.read_table(DATA / "ct.parquet").to_pylist():
        if row["valid_domain"] not in weights:
            continue
        if row["step"] == 0:
            before[row["valid_domain"]] = row["loss"]
            continue
        cell = rows.setdefault((row["run_id"], row["tokens"]), {"trial_id": row["run_id"], "n_params": 18915328})
        cell |= {"n_tokens": row["tokens"], "mixture/pile": row["p_pile"], "mixture/python": 1 - row["p_pile"]}
        cell[f"loss/{row['valid_domain']}"] = row["loss"]
    table = Observations.from_rows(rows.values(), ("pile", "python"), tuple(weights))
    return table, np.array(list(before.values())), np.array(list(weights.values()))


@pytest.mark.data
def test_published_critical_share_at_every_step(published: tuple[Observations, Any, Any]) -> None:
    found = critical_share_of(published[0], "pile", published[1], published[2])
    assert found.share == pytest.approx(0.2831, abs=5e-4)  # the published code stops at .286
    assert found.low < 0.283 < 0.286 < found.high
    assert found.n_tokens == 10_000 * 1_048_576
    assert len(found.steps) == 10
    assert found.steps[2].share == pytest.approx(0.364, abs=1e-3)
    assert 0.2 < found.low < found.high < 0.35


def test_published_steps_from_their_four_losses() -> None:
    assert critical_share(SHARES, AT_10K, BEFORE).share == pytest.approx(0.28310, abs=2e-5)
    both = critical_share(
        np.tile(SHARES, 2), np.r_[AT_10K, AT_3K], BEFORE, np.tile(np.arange(4), 2), np.repeat([1e10, 3e9], 4)
    )
    assert [step.n_tokens for step in both.steps] == [3e9, 1e10]
    assert both.steps[0].share == pytest.approx(0.36440, abs=2e-5)
    assert both.share == both.steps[1].share
    assert any("rough" in note for note in both.notes)


@given(floor=st.floats(1, 3), scale=st.floats(0.05, 1), rate=st.floats(-20, -0.5), share=st.floats(0.01, 0.99))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_law_finds_itself(floor: float, scale: float, rate: float, share: float) -> None:
    def truth(r: Any) -> Any:
        return floor + scale * np.exp(rate * r)

    shares = np.linspace(0, 1, 6)
    law = fit_exponential(shares, truth(shares)[None])
    np.testing.assert_allclose(law.losses(shares)[0], truth(shares), atol=1e-6)
    assert law.losses(law.share_for(truth(share)))[0, 0] == pytest.approx(truth(share), abs=1e-6)


def test_one_bad_run_moves_the_share_little() -> None:
    shares = np.linspace(0.1, 0.8, 12)
    loss = 2.8 + 0.2 * np.exp(-4 * shares)
    base = 2.8 + 0.2 * np.exp(-4 * 0.3)
    bad = loss.copy()
    bad[5] += 0.2
    assert critical_share(shares, loss, base, n_draws=20).share == pytest.approx(0.3, abs=1e-5)
    assert critical_share(shares, bad, base, n_draws=20).share == pytest.approx(0.3, abs=0.02)


def test_one_absurd_run_says_nothing_about_the_noise_of_the_others() -> None:
    shares, rng = np.linspace(0.1, 0.8, 12), np.random.default_rng(0)
    loss = 2.8 + 0.2 * np.exp(-4 * shares) + 0.001 * rng.normal(size=12)
    absurd = loss.copy()
    absurd[5] = 50.0
    honest, found = (critical_share(shares, x, 2.8 + 0.2 * np.exp(-4 * 0.3), n_draws=100) for x in (loss, absurd))
    assert honest.noise < 0.002 and found.noise < 0.01  # 13 nats with that run as it is
    assert 0.2 < found.low < found.share < found.high < 0.4


def test_interval_holds_the_truth_when_the_noise_is_known() -> None:
    rng, hits = np.random.default_rng(0), 0
    clean = 2.8161 + 0.18365 * np.exp(-4.116 * SHARES)
    base = 2.8161 + 0.18365 * np.exp(-4.116 * 0.2831)
    for _ in range(60):
        found = critical_share(SHARES, clean + 0.002 * rng.normal(size=4), base, noise=0.002, n_draws=100)
        hits += found.low <= 0.2831 <= found.high
    assert hits >= 45  # of 60; 54 expected, the interval of a curve near its floor is somewhat short


def test_interval_holds_the_truth_when_four_runs_are_all_that_tells_the_noise() -> None:
    """One residual left over: with the sd that it shows taken for known the interval held 41 of 60."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(60):
        rate, scale, share = -rng.uniform(2, 6), rng.uniform(0.1, 0.25), rng.uniform(0.2, 0.6)
        loss = 2.8 + scale * np.exp(rate * SHARES) + 0.002 * rng.normal(size=4)
        found = critical_share(SHARES, loss, 2.8 + scale * np.exp(rate * share), n_draws=100)
        hits += found.low <= share <= found.high
    assert hits >= 46  # of 60; 54 expected of an exact interval, about 50 of this one, sd 3


def test_same_seed_same_interval_and_order_does_not_matter() -> None:
    order = np.array([2, 0, 3, 1])
    first = critical_share(SHARES, AT_10K, BEFORE, noise=0.002)
    assert first == critical_share(SHARES, AT_10K, BEFORE, noise=0.002)
    other = critical_share(SHARES[order], AT_10K[order], BEFORE, noise=0.002)
    np.testing.assert_allclose([other.share, other.low, other.high], [first.share, first.low, first.high], rtol=1e-6)


def test_no_share_and_any_share() -> None:
    none = critical_share(SHARES, AT_10K, 2.7)
    assert none.share == none.high == np.inf
    assert "no share" in none.notes[0]
    assert critical_share(SHARES, AT_10K, 3.5).share == 0
    assert "outside the shares trained" in critical_share(SHARES, AT_10K, 2.83).notes[0]


def test_three_runs_have_no_interval_without_the_noise() -> None:
    found = critical_share(SHARES[:3], AT_10K[:3], BEFORE)
    assert np.isnan([found.low, found.high, found.noise]).all()
    assert "no interval" in found.notes[0]
    assert critical_share(SHARES[:3], AT_10K[:3], BEFORE, noise=0.002).low < found.share


def test_checkpoints_a_batch_apart_are_one() -> None:
    """Runs end a batch apart, where tokens are counted as drawn; two checkpoints of one run stay two."""
    share, run, loss = np.tile(SHARES, 2), np.tile(np.arange(4), 2), np.r_[AT_3K, AT_10K]
    exact = critical_share(share, loss, BEFORE, run, np.repeat([3e9, 10e9], 4))
    apart = critical_share(share, loss, BEFORE, run, np.repeat([3e9, 10e9], 4) + 2e6 * np.tile([0, 1, 2, 1], 2))
    assert [step.share for step in apart.steps] == [step.share for step in exact.steps]
    assert (apart.low, apart.high, apart.notes) == (exact.low, exact.high, exact.notes)
    assert [step.n_tokens for step in apart.steps] == pytest.approx([3e9, 10e9], rel=1e-3)
    dense = critical_share(share, loss, BEFORE, run, np.repeat([9.99e9, 10e9], 4) + 2e6 * np.tile([0, 1, 2, 1], 2))
    assert [step.share for step in dense.steps] == [step.share for step in exact.steps]


def test_checkpoint_that_cannot_be_fitted_is_noted() -> None:
    share, loss = np.r_[SHARES, SHARES, SHARES[:2]], np.r_[AT_10K, AT_10K[::-1], AT_10K[:2]]
    found = critical_share(share, loss, BEFORE, None, np.repeat([1e9, 2e9, 3e9], [4, 4, 2]))
    assert found.n_tokens == 1e9
    assert "does not fall" in found.notes[0]
    assert "2 different shares" in found.notes[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share_B": SHARES * 10}, "from 0 to 1"),
        ({"loss_B": -AT_10K}, "above 0"),
        ({"loss_B": AT_10K[:3]}, "one length"),
        ({"loss_B": AT_10K[::-1]}, "does not fall"),
        ({"loss_B": AT_10K * np.nan}, "finite"),
        ({"base_loss": np.nan}, "finite"),
        ({"n_tokens_B": np.full(4, np.nan)}, "n_tokens"),
        ({"n_tokens_B": np.arange(4.0)}, "no checkpoint"),
        ({"noise": -0.01}, "the noise is -0.01"),
        ({"noise": np.nan}, "the noise is nan"),
        ({"share_B": [], "loss_B": []}, "there are no rows with losses"),
    ],
)
def test_nonsense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        critical_share(**({"share_B": SHARES, "loss_B": AT_10K, "base_loss": BEFORE} | change))


def test_table_of_two_sizes_or_without_the_domain_is_refused() -> None:
    rows = [
        {
            "trial_id": i,
            "n_params": 1e6 * (1 + i % 2),
            "n_tokens": 1e9,
            "mixture/old": r,
            "mixture/new": 1 - r,
            "loss/old": y,
        }
        for i, (r, y) in enumerate(zip(SHARES, AT_10K, strict=True))
    ]
    table = Observations.from_rows(rows, ("old", "new"), ("old",))
    with pytest.raises(ValueError, match="one model size"):
        critical_share_of(table, "old", [BEFORE], [1.0])
    with pytest.raises(ValueError, match="unknown domain 'pile'; the table has old, new"):
        critical_share_of(table, "pile", [BEFORE], [1.0])
    alike = [row | {"n_params": 1e6 + i} for i, row in enumerate(rows)]  # as recipes round them
    one = critical_share_of(Observations.from_rows(alike, ("old", "new"), ("old",)), "old", [BEFORE], [1.0])
    assert one.share == critical_share(SHARES, AT_10K, BEFORE).share


@pytest.mark.parametrize(
    ("before", "weights", "message"),
    [([BEFORE], [1.0, 1.0], "for 1 eval domains: one of each"), ([BEFORE], [0.0], "weights are .* not all 0")],
)
def test_weights_that_fit_no_table_are_refused(before: list[float], weights: list[float], message: str) -> None:
    rows = [{"trial_id": f"{share}", "n_params": 7e7, "n_tokens": 1e10, "mixture/old": share, "mixture/new": 1 - share}
            | {"loss/old": loss} for share, loss in zip(SHARES, AT_10K, strict=True)]  # fmt: skip
    table = Observations.from_rows(rows, ("old", "new"), ("old",))
    with pytest.raises(ValueError, match=message):
        critical_share_of(table, "old", before, weights)


def test_losses_before_come_from_the_rows_of_a_study() -> None:
    """A study that goes on from a model records that model's losses at 0 tokens: nobody has to say them again."""

    def row(i: int, r: float, loss: float, status: str) -> dict[str, Any]:
        at = {"n_params": 1e6, "n_tokens": 0.0 if status == "start" else 1e9, "status": status}
        return {"trial_id": str(i), "mixture/old": r, "mixture/new": 1 - r, "loss/old": loss, **at}

    runs = list(enumerate(zip(SHARES, AT_10K, strict=True)))
    rows = [row(i, r, loss, "done") for i, (r, loss) in runs]
    starts = [row(i, r, BEFORE * (1 + 1e-6 * i), "start") for i, (r, _) in runs]
    table = Observations.from_rows([*starts, *rows], ("old", "new"), ("old",))
    found = critical_share_of(table, "old", None, [1.0], noise=0.002)
    told = critical_share_of(table, "old", [BEFORE], [1.0], noise=0.002)
    assert found.share == pytest.approx(told.share, abs=1e-3)
    with pytest.raises(ValueError, match="no row has status start"):
        critical_share_of(Observations.from_rows(rows, ("old", "new"), ("old",)), "old", None, [1.0])
    other = [*starts, row(9, 0.5, 1.1 * BEFORE, "start"), *rows]
    with pytest.raises(ValueError, match="on 'old': two models"):
        critical_share_of(Observations.from_rows(other, ("old", "new"), ("old",)), "old", None, [1.0])


mixtures = st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda shares: sum(shares) > 0.01)


@given(parts=st.lists(st.tuples(mixtures, st.floats(1e6, 1e12)), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_stages_there_and_back(parts: list[tuple[list[float], float]]) -> None:
    given_ = [Stage(np.array(mix) / sum(mix), n_tokens) for mix, n_tokens in parts]
    rows = seen(given_)
    assert rows[-1].n_tokens == pytest.approx(sum(stage.n_tokens for stage in given_))
    for row in rows:
        assert row.mixture_K.sum() == pytest.approx(1)
    for stage, again, row in zip(given_, stages(rows), rows, strict=True):
        lost = 1e-13 * row.n_tokens / stage.n_tokens  # a short stage after a long one has fewer digits
        assert again.n_tokens == pytest.approx(stage.n_tokens, rel=max(1e-9, 10 * lost))
        np.testing.assert_allclose(again.mixture_K, stage.mixture_K, atol=max(1e-9, 100 * lost))


def test_continual_run_after_a_base_model() -> None:
    base, run = Stage(np.array([1.0, 0.0]), 40e9), Stage(np.array([0.25, 0.75]), 10e9)
    rows = seen([base, run])
    np.testing.assert_allclose(rows[1].mixture_K, [0.85, 0.15])
    np.testing.assert_allclose(this_stage(rows[0], rows[1]).mixture_K, [0.25, 0.75])
    assert seen([]) == stages([]) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: seen([Stage(np.array([0.5, 0.6]), 1e9)]), "stage 0"),
        (lambda: seen([Stage(np.array([0.5, 0.5]), 0)]), "n_tokens is 0"),
        (lambda: stages([Stage(np.array([1.0]), 2e9), Stage(np.array([1.0]), 1e9)]), "must add tokens"),
        (lambda: stages([Stage(np.array([1.0, 0.0]), 2e9), Stage(np.array([0.5, 0.5]), 3e9)]), "not of one run"),
        (lambda: stages([Stage(np.array([np.nan, 0.5]), 2e9)]), "shares from 0 to 1"),
        (lambda: stages([Stage(np.array([0.9, 0.9]), 2e9)]), "the later row: 2 shares from 0 to 1 that sum to 1"),
        (lambda: stages([Stage(np.array([1.0]), np.nan)]), "must add tokens"),
        (lambda: this_stage(Stage(np.ones(1), 1e9), Stage(np.array([0.5, 0.5]), 2e9)), "the earlier row: 2 shares"),
    ],
)
def test_impossible_stages_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_checkpoints_of_the_same_runs_tell_no_more_of_their_noise() -> None:
    """A run has one error, so six checkpoints of five runs leave as much open as one."""
    share_R = np.linspace(0.05, 0.9, 5)
    loss_R = 2.0 + 0.3 * np.exp(-4 * share_R) + 0.005 * np.array([1.0, -0.6, 0.8, -1.2, 0.4])
    base, n = 2.0 + 0.3 * float(np.exp(-1.6)), 6
    one = critical_share(share_R, loss_R, base)
    tokens_B, run_B = np.tile(1e9 * np.arange(1, n + 1), 5), np.repeat(np.arange(5), n)
    many = critical_share(np.repeat(share_R, n), np.repeat(loss_R, n), base, run_B, tokens_B)
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.25)
