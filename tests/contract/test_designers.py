"""Every designer keeps the contract."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from raymix.design import DESIGNERS, Designer, Recommender, make_designer
from raymix.space import SearchSpace
from raymix.testing import check_designer
from raymix.testing.designers import fingerprint, space_of, tables

HEAVY = ("gp", "regmix", "climb", "d_optimal")  # seconds per proposal or answer; their kin are quick
MARKS = dict.fromkeys(HEAVY, pytest.mark.slow) | {"gp": pytest.mark.exhaustive, "gp_prior": pytest.mark.exhaustive}
SOME_HEAVY = [pytest.param(name, marks=MARKS[name]) if name in MARKS else name for name in DESIGNERS]
WIDE = [name if name in ("law", "random") else pytest.param(name, marks=pytest.mark.exhaustive) for name in DESIGNERS]


@pytest.mark.parametrize("name", SOME_HEAVY)
def test_designer_keeps_the_contract(name: str) -> None:
    check_designer(DESIGNERS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDE)
def test_designer_keeps_the_contract_in_many_dimensions(name: str) -> None:
    """With room, and with caps under which rejection accepts nothing."""
    wide = space_of("forty", 40), space_of("a hundred, tight caps", 100, max_share=1.2 / 100)
    check_designer(DESIGNERS[name], spaces=wide)


@pytest.mark.parametrize("name", SOME_HEAVY)
def test_more_proposals_than_a_round_has(name: str) -> None:
    """The first ones and later ones: all inside, no two alike."""
    space = space_of("two", 2)
    for where, table in tables(space):
        found = DESIGNERS[name](space).suggest(table, [], 20, np.random.default_rng(0))
        assert len(set(fingerprint(found))) == 20, where
        assert space.polytope().contains(np.stack([proposal.mixture_K for proposal in found]), 1e-9).all(), where


@pytest.mark.parametrize("name", DESIGNERS)
def test_every_designer_of_the_registry_can_answer(name: str) -> None:
    assert isinstance(make_designer(name, space_of("two", 2)), Recommender)


def hashes() -> dict[str, str]:
    """A digest per designer of what it proposes after a dozen trials."""
    space = space_of("groups", 5, constraints={"groups": [{"domains": ["d0", "d1"], "min": 0.3, "max": 0.5}]})
    table = dict(tables(space))["a dozen trials"]
    return {
        name: hashlib.sha256(
            repr(fingerprint(make(space).suggest(table, [], 3, np.random.default_rng(1)))).encode()
        ).hexdigest()
        for name, make in DESIGNERS.items()
    }


@pytest.mark.slow
def test_another_process_proposes_the_same() -> None:
    code = "import json; from tests.contract.test_designers import hashes; print(json.dumps(hashes()))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout.splitlines()[-1]) == hashes()


def test_an_unknown_designer_is_named() -> None:
    with pytest.raises(ValueError, match="unknown designer 'grid'; known: law"):
        make_designer("grid", space_of("two", 2))


class Wanders:
    """A designer that breaks its promises: it steps outside."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def suggest(self, table, pending, n, rng):  # type: ignore[no-untyped-def]
        found = DESIGNERS["space_filling"](self.space).suggest(table, pending, n, rng)
        found[0].mixture_K[0] += 0.5
        return found


class Remembers(Wanders):
    """Another: what it proposes depends on how often it was asked."""

    calls = 0

    def suggest(self, table, pending, n, rng):  # type: ignore[no-untyped-def]
        Remembers.calls += 1
        rng = np.random.default_rng(Remembers.calls)
        return DESIGNERS["random"](self.space).suggest(table, pending, n, rng)


class Repeats(Wanders):
    """Another: it does not look at what is pending."""

    def suggest(self, table, pending, n, rng):  # type: ignore[no-untyped-def]
        return DESIGNERS["uniform"](self.space).suggest(table, [], n, rng)


@pytest.mark.parametrize(
    ("broken", "message"), [(Wanders, "outside"), (Remembers, "other proposals"), (Repeats, "pending or tried")]
)
def test_the_contract_can_fail(broken: type[Designer], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_designer(broken)  # type: ignore[arg-type]
