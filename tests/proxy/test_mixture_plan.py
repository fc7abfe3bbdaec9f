"""The plan is exact at every prefix, and shares its randomness between mixtures."""

import hashlib
from collections.abc import Callable
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raymix.corpus import Corpus
from raymix.proxy.going_on import planned
from raymix.proxy.plan import SUBSET, Batches, _permutation, domain_order, sequence_order, unique_sequences
from raymix.proxy.recipe import resolve
from raymix.space import SearchSpace

weights = st.lists(st.one_of(st.just(0.0), st.floats(1e-4, 1.0)), min_size=1, max_size=40).filter(any)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(weights, st.integers(1, 400))
def test_every_prefix_is_within_one_sequence_of_its_share(weights: list[float], n: int) -> None:
    mix_K = np.asarray(weights) / sum(weights)
    order = domain_order(mix_K, n)
    count_BK = np.cumsum(order[:, None] == np.arange(len(mix_K)), axis=0)
    drawn = int((mix_K > 0).sum())
    most = 1 - 1 / max(2 * drawn - 2, 1)  # Tijdeman's bound; 1e-6 is rounding of n shares
    assert np.abs(count_BK - np.outer(np.arange(1, n + 1), mix_K)).max() <= most + 1e-6
    assert not count_BK[-1][mix_K == 0].any()


@pytest.mark.parametrize("mix", [[0.9] + [0.01] * 10, [0.5, 0.5], [1 / 3] * 3, [1e-5, 1 - 1e-5], [0.01] * 100])
def test_hard_mixtures_stay_exact_over_long_runs(mix: list[float]) -> None:
    mix_K, n = np.asarray(mix) / sum(mix), 20_000
    count_BK = np.cumsum(domain_order(mix_K, n)[:, None] == np.arange(len(mix_K)), axis=0)
    assert np.abs(count_BK - np.outer(np.arange(1, n + 1), mix_K)).max() < 1


def test_each_epoch_is_a_permutation_and_epochs_differ() -> None:
    order = sequence_order(3, "web", 50, 120)
    assert sorted(order[:50]) == sorted(order[50:100]) == list(range(50))
    assert len(set(order[100:])) == 20
    assert (order[:50] != order[50:100]).any()
    assert len(sequence_order(3, "web", 50, 0)) == 0


def test_order_depends_on_seed_and_name_alone() -> None:
    order = sequence_order(3, "web", 50, 120)
    assert np.array_equal(order[:70], sequence_order(3, "web", 50, 70))
    assert not np.array_equal(order, sequence_order(4, "web", 50, 120))
    assert not np.array_equal(order, sequence_order(3, "code", 50, 120))


def test_simulated_epochs_by_hand() -> None:
    # 1e6 tokens for a target of 1e8: 100 epochs' worth at the target; a proxy of 1e6 gets 1e4 tokens = 78 sequences
    assert unique_sequences(10**6, 128, 1e6, 1e8, 1e6) == 78
    assert unique_sequences(10**6, 128, 1e6, 1e8, 1e12) == 7812  # no more than the shard holds: (1e6 - 1) // 128
    assert unique_sequences(10**6, 128, 1e3, 1e8, 1e6) == 1  # at least one
    assert unique_sequences(10**6, 128, 1e6, 1e8, float("inf")) == 7812
    assert unique_sequences(10**6, 128, 1e6, 1e8, None) == 7812


def test_shard_shorter_than_a_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="128 tokens holds no sequence"):
        unique_sequences(128, 128, 1, 1, None)


def plan(corpus: Corpus, space: SearchSpace, share: float, seed: int = 0, n_tokens: float = 4096) -> Batches:
    shape = resolve(space.recipe, 2e4, n_tokens, corpus.vocab)
    return Batches.of(corpus, space, np.asarray([share, 1 - share]), seed, shape)


def drawn_from(batches: Batches, low: int, high: int) -> list[tuple[int, ...]]:
    rows = [tuple(row) for step in range(len(batches)) for row in batches[step]]
    return [row for row in rows if low <= row[0] < high]


def test_two_mixtures_read_the_same_text_as_far_as_they_can(
    corpus: Corpus, make_space: Callable[..., SearchSpace]
) -> None:
    space = make_space()
    little, much = plan(corpus, space, 0.25), plan(corpus, space, 0.75)
    few, many = drawn_from(little, 0, 100), drawn_from(much, 0, 100)
    assert len(few) == 32
    assert many[: len(few)] == few
    few, many = drawn_from(much, 100, 200), drawn_from(little, 100, 200)
    assert many[: len(few)] == few


def test_batches_are_the_same_in_any_order(corpus: Corpus, make_space: Callable[..., SearchSpace]) -> None:
    batches, again = plan(corpus, make_space(), 0.5), plan(corpus, make_space(), 0.5)
    forward = [batches[step] for step in range(len(batches))]
    backward = [again[step] for step in reversed(range(len(again)))][::-1]
    assert all(np.array_equal(left, right) for left, right in zip(forward, backward, strict=True))
    assert forward[0].shape == (4, 33)


def test_sequences_of_a_domain_are_ordered_once_an_epoch(
    corpus: Corpus, make_space: Callable[..., SearchSpace], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, made = plan(corpus, make_space(), 0.5), Mock(wraps=_permutation)
    whole = [batches.sequences(k, 0, 200) for k in (0, 1)]  # of 78: two epochs and a part
    for k, name in enumerate(batches.names):
        subset = _permutation(0, name, SUBSET, 156)
        starts = subset[sequence_order(0, name, 78, 200)] * 32
        assert np.array_equal(whole[k], [batches.shards[k][start : start + 33] for start in starts])
    monkeypatch.setattr("raymix.proxy.plan._permutation", made)
    again = plan(corpus, make_space(), 0.5)
    parts = [[again.sequences(k, first, 4) for k in (0, 1)] for first in range(0, 200, 4)]
    assert all(np.array_equal(np.concatenate([part[k] for part in parts]), whole[k]) for k in (0, 1))
    assert made.call_count == 2 * 2 * 3, "two orders for each domain and epoch"


def test_drawn_and_unique_tokens_are_counted(corpus: Corpus, make_space: Callable[..., SearchSpace]) -> None:
    batches = plan(corpus, make_space(), 0.25)
    assert batches.drawn_K(len(batches)).tolist() == [1024, 3072]
    assert batches.unique_K.tolist() == [78, 78]  # 5000 x 4096 / 8192 / 32
    assert len(set(drawn_from(batches, 100, 200))) == 78
    free = plan(corpus, make_space(simulated_epochs=False), 0.25)
    assert free.unique_K.tolist() == [156, 156]
    assert len(set(drawn_from(free, 100, 200))) == 96


def test_a_mixture_per_stage_is_exact_in_each(corpus: Corpus, make_space: Callable[..., SearchSpace]) -> None:
    parts = [{"tokens": 0.75}, {"tokens": 0.25, "mixture": {"b": 1}}]
    batches = plan(corpus, make_space(stages=parts), 0.6)
    rows = [tuple(row) for step in range(len(batches)) for row in batches[step]]
    from_a = np.cumsum([row[0] < 100 for row in rows])
    assert len(rows) == 128
    assert np.abs(from_a[:96] - 0.6 * np.arange(1, 97)).max() < 1
    assert from_a[-1] == from_a[95]
    before = plan(corpus, make_space(), 0.6, n_tokens=4096 * 3 / 4)
    firsts = [tuple(row) for step in range(len(before)) for row in before[step]]
    assert [row[0] < 100 for row in rows[:96]] == [row[0] < 100 for row in firsts]


def test_studies_begun_with_an_earlier_version_go_on_in_the_same_text(
    corpus: Corpus, make_space: Callable[..., SearchSpace]
) -> None:
    """Numpy's permutations count too: with others mixtures would be compared on other text than before."""
    parts = [{"tokens": 0.7}, {"tokens": 0.3, "mixture": {"b": 1}}]
    plans = {
        "epochs": plan(corpus, make_space(), 0.3, seed=1, n_tokens=8 * 4096),
        "stages": plan(corpus, make_space(stages=parts), 0.6),
        "promoted": planned(lambda length: plan(corpus, make_space(), 0.3, n_tokens=length), 50_000, [5000]),
    }
    read = {how: np.stack([of._domain_of, of._start_of]).astype("<i8").tobytes() for how, of in plans.items()}
    assert {how: hashlib.sha256(places).hexdigest()[:12] for how, places in read.items()} == {
        "epochs": "fcff5e23a9d1",
        "stages": "e994f372bd09",
        "promoted": "f24c6679d4db",
    }
