"""Which trials may go on to more tokens, and that one does where it tells more per FLOP than a new mixture."""

from typing import Any

import numpy as np
import pytest

from raymix.design import LawGuided, Proposal
from raymix.design.promotion import promotions
from raymix.design.schedule import longer_rungs, rungs, shorter_rungs
from raymix.observations import Observations
from raymix.space import Scale, SearchSpace
from tests.design.worlds import observed, space

N, FEW, MORE, MOST = 1e6, 1e8, 4e8, 16e8
LADDER = [{"n_params": N, "n_tokens": tokens} for tokens in (FEW, MORE, MOST)]


def long(**changes: Any) -> SearchSpace:
    target = {"n_params": N, "n_tokens": 1e11, "max_epochs": None}
    return space(4, ladder=LADDER, target=target, **changes)


def tried(n: int, n_tokens: float = FEW, seed: int = 0) -> list[Proposal]:
    mix_BK = np.random.default_rng(5).dirichlet(np.ones(4), size=n)
    return [Proposal(mix_K, Scale(N, n_tokens), seed) for mix_K in mix_BK]


def test_rungs_of_one_size_are_a_ladder_of_lengths() -> None:
    few, more, most = rungs(long())
    assert shorter_rungs(long(), most) == [more, few] and longer_rungs(long(), few) == [more, most]
    assert not shorter_rungs(space(4, rungs=3), rungs(space(4, rungs=3))[2]), "another size is another model"


@pytest.mark.parametrize(
    "recipe",
    [
        {"schedule": "cosine"},
        {"rates": "step-law"},
        {"promote": False},
        {"stages": [{"tokens": 0.5}, {"tokens": 0.5, "mixture": {"d0": 1.0}}]},
    ],
)
def test_no_run_goes_on_where_it_is_not_the_beginning_of_a_longer_one(recipe: dict[str, Any]) -> None:
    assert not shorter_rungs(long(recipe=recipe), Scale(N, MOST))
    assert long(recipe={"rates": "step-law", "learning_rate": 1e-3}).recipe.promotes


def test_the_best_quarter_of_a_rung_may_go_on_once() -> None:
    runs = tried(8)
    table = observed(long(), runs)
    found = promotions(long(), table, [])
    assert [each.scale for each in found] == [Scale(N, MORE)] * 2
    value_B = table.loss_BM.mean(axis=1)
    assert [each.trial_id for each in found] == [f"t{i}" for i in np.argsort(value_B)[:2]]
    best = Proposal(found[0].mixture_K, Scale(N, MORE), 0)
    assert [each.trial_id for each in promotions(long(), table, [best])] == [found[1].trial_id]
    larger = Proposal(found[0].mixture_K, Scale(8 * N, MORE), 0)
    assert len(promotions(long(), table, [larger])) == 2, "the same mixture at another size is another run"
    beyond = promotions(long(), observed(long(), [*runs, best]), [])
    assert [(each.trial_id, each.scale) for each in beyond] == [
        (found[1].trial_id, Scale(N, MORE)),
        ("t8", Scale(N, MOST)),
    ]
    assert len(promotions(long(), table, [], best=0.5)) == 4


def test_replicates_failures_and_reused_trials_do_not_go_on() -> None:
    assert not promotions(long(), observed(long(), tried(4, seed=1)), [])
    rows = observed(long(), tried(4)).table.to_pylist()
    for change in ({"status": "stopped"}, {"trial_id": "from/old/t"}):
        changed = [row | change | {"trial_id": change.get("trial_id", "t") + str(i)} for i, row in enumerate(rows)]
        assert not promotions(long(), Observations.from_rows(changed, long().domain_names, long().eval_names), [])
    assert not promotions(long(), observed(long(), []), [])
    assert not promotions(space(4, rungs=2), observed(space(4, rungs=2), tried(4)), [])


def test_the_default_lets_good_mixtures_go_on() -> None:
    """About a quarter of its longer trials do; in one search of 32 trials there may be none."""
    went_on = 0
    for seed in range(3):
        two, done = long(), list[Proposal]()
        while len(done) < 32:
            rng = np.random.default_rng([seed, len(done)])
            done += LawGuided(two).suggest(observed(two, done, 0.003), [], 8, rng)
        short = {proposal.mixture_K.tobytes() for proposal in done if proposal.scale.n_tokens == FEW}
        longer = [proposal for proposal in done if proposal.scale.n_tokens > FEW]
        went_on += sum(proposal.mixture_K.tobytes() in short for proposal in longer)
        assert len({(p.mixture_K.tobytes(), p.scale, p.seed) for p in done}) == len(done), "none twice"
    assert went_on > 2


def test_a_mixture_outside_the_caps_of_today_does_not_go_on() -> None:
    """Constraints may change on resume, and a trainer may have drawn another mixture than was proposed."""
    table = observed(long(), tried(8))
    best_K = promotions(long(), table, [])[0].mixture_K
    k = int(best_K.argmax())
    capped = long(constraints={"groups": [{"domains": [long().domain_names[k]], "max": float(best_K[k]) / 2}]})
    assert all(capped.polytope().contains(each.mixture_K)[0] for each in promotions(capped, table, [], best=1.0))
    assert len(promotions(capped, table, [], best=1.0)) < len(promotions(long(), table, [], best=1.0))
