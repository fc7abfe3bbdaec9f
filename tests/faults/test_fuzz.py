"""A few hundred mutated inputs of every parser, the same each time; `python -m tests.faults.fuzz` goes on for long."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults import fuzz


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_seeds_are_valid_inputs(target: str) -> None:
    assert all(fuzz.TARGETS[target](data) is None for data in fuzz.seeds(target))


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_mutated_inputs_are_read_or_refused_with_an_error_of_ours(target: str) -> None:
    rng, corpus = random.Random(0), fuzz.seeds(target)
    for _ in range(200):
        fuzz.TARGETS[target](fuzz.mutated(rng.choice(corpus), rng))


@pytest.mark.parametrize("target", fuzz.TARGETS)
@given(data=st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_read_or_refused_with_an_error_of_ours(target: str, data: bytes) -> None:
    fuzz.TARGETS[target](data)
