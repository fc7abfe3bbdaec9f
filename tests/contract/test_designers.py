"""Every designer keeps the contract."""

from functools import partial

import pytest

from raymix.design import DESIGNERS, Designer, ModelFree
from raymix.space import SearchSpace
from raymix.testing import check_designer


@pytest.mark.parametrize("name", DESIGNERS)
def test_designer_keeps_the_contract(name: str) -> None:
    check_designer(DESIGNERS[name])


def test_samplers_of_optuna_keep_the_contract() -> None:
    check_designer(partial(ModelFree, sampler="random"))


class Wanders:
    """A designer that breaks its promises: it remembers, and it steps outside."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def suggest(self, table, pending, n, rng):  # type: ignore[no-untyped-def]
        found = DESIGNERS["space_filling"](self.space).suggest(table, pending, n, rng)
        found[0].mixture_K[0] += 0.5
        return found


def test_the_contract_can_fail() -> None:
    broken: Designer = Wanders  # type: ignore[assignment]
    with pytest.raises(AssertionError, match="outside the polytope"):
        check_designer(broken)  # type: ignore[arg-type]
